import hashlib
import io
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from depthnet.core.types import InputError
from depthnet.data import download as module
from depthnet.data.download import MD5, SIZE, URL, download
from depthnet.data.layouts.labelled import LABELLED_FILE

PAYLOAD = bytes(range(256)) * 1000
DIGEST = hashlib.md5(PAYLOAD).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves PAYLOAD as the path says, and counts the requests."""

    daemon_threads = True
    requests = 0

    def handle_error(self, request, client_address):
        pass  # a client that goes away is meant


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        what = self.path.strip("/")
        if what == "missing":
            self.send_error(404)
            return
        if what == "moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        if what == "silent":
            time.sleep(3)
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start and what != "restarts":
            self.send_response(206)
            self.send_header("Content-Length", str(len(PAYLOAD) - start))
            self.end_headers()
            self.wfile.write(PAYLOAD[start:])
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAYLOAD)))
        self.end_headers()
        self.wfile.write(PAYLOAD[: len(PAYLOAD) // 2])
        if what != "torn":
            end = PAYLOAD[len(PAYLOAD) // 2 :]
            self.wfile.write(end[::-1] if what == "other" else end)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with Server(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def run(what, **changed):
        given = {"size": len(PAYLOAD), "md5": DIGEST, **changed}
        return download(tmp_path / "nyu", f"http://127.0.0.1:{server.server_port}/{what}", **given)

    return run


def refused(fetch, tmp_path, what, match):
    with pytest.raises(InputError, match=match) as caught:
        fetch(what)
    message = str(caught.value)
    assert "\n" not in message
    assert f"/{what}" in message
    assert "docs/data.md states how to download it by hand" in message
    part = tmp_path / "nyu" / f".{LABELLED_FILE}.part"
    return part.stat().st_size if part.exists() else 0


@pytest.mark.parametrize("what", ["whole", "moved"])
def test_it_arrives_whole_under_its_name_alone(fetch, tmp_path, what):
    path = fetch(what)
    assert path == tmp_path / "nyu" / LABELLED_FILE
    assert path.read_bytes() == PAYLOAD
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("what", "match", "kept"),
    [
        ("missing", "HTTP Error 404.*resumes after 0.0 MB", 0),
        ("other", "another file than the official one", 0),
        ("torn", "ended after 128000 of 256000 bytes; the same command resumes", 128000),
        ("silent", "timed out", 0),
    ],
)
def test_a_failure_says_what_to_do_and_leaves_the_file_that_was_there(fetch, tmp_path, monkeypatch, what, match, kept):
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    path = tmp_path / "nyu" / LABELLED_FILE
    path.parent.mkdir()
    path.write_bytes(b"of yesterday")
    assert refused(fetch, tmp_path, what, match) == kept
    assert path.read_bytes() == b"of yesterday"


@pytest.mark.parametrize("again", ["torn", "whole", "restarts"])
def test_an_interrupted_download_is_resumed(fetch, tmp_path, again):
    with pytest.raises(InputError):
        fetch("torn")
    path = fetch(again)  # the rest alone, or all of it from a server that knows no ranges
    assert path.read_bytes() == PAYLOAD
    assert list(path.parent.iterdir()) == [path]


def test_a_server_that_is_down(fetch, tmp_path, server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(InputError, match=r"refused.*by hand"):
        download(tmp_path, f"http://127.0.0.1:{port}/whole")
    assert list(tmp_path.iterdir()) == []


def test_the_right_file_is_left_and_a_wrong_one_replaced(fetch, server, capsys):
    path = fetch("whole")
    before, time_before = server.requests, path.stat().st_mtime_ns
    assert fetch("whole") == path
    assert "there already" in capsys.readouterr().out
    assert (server.requests, path.stat().st_mtime_ns) == (before, time_before)
    path.write_bytes(PAYLOAD[::-1])
    fetch("whole")
    assert path.read_bytes() == PAYLOAD


def test_too_little_room_is_told_before_anything_is_asked(fetch, server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**10, 1_000_000))
    before = server.requests
    with pytest.raises(InputError, match=r"0\.0 GB are free, 3\.0 GB needed"):
        fetch("whole", size=SIZE)
    assert server.requests == before
    assert list((tmp_path / "nyu").iterdir()) == []


def test_a_full_disk_half_way_keeps_what_has_arrived(fetch, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert refused(fetch, tmp_path, "whole", "No space left on device") == len(PAYLOAD)
    assert fetch("whole").read_bytes() == PAYLOAD


def archive(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name in members:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            file.addfile(entry, io.BytesIO(b"h5!"))
    return path


def test_the_hub_is_unpacked_and_resumed_archive_by_archive(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def fetch(repo, name, repo_type, local_dir):
        asked.append(name)
        if name.endswith("1.tar") and len(asked) == 2:
            raise OSError("no route to host")
        return str(archive(local_dir / name, [f"basement_{name[-5]}/1.h5"]))

    names = ["README.md", "data/train-000000.tar", "data/train-000001.tar", "data/val-000000.tar"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: names)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(InputError, match=r"Hugging Face hub, .*no route to host; the same command resumes"):
        module.download_hub(tmp_path)
    assert module.download_hub(tmp_path) == tmp_path
    assert asked == [names[1], names[2], names[2], names[3]]
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.h5"))
    assert found == ["train/basement_0/1.h5", "train/basement_1/1.h5", "val/basement_0/1.h5"]
    assert not list(tmp_path.rglob("*.tar"))


def test_kaggle_gives_the_folder_of_its_lists(tmp_path, monkeypatch):
    def fetch(handle, output_dir):
        folder = Path(output_dir, "nyu_data/data")
        folder.mkdir(parents=True)
        (folder / "nyu2_train.csv").touch()
        return output_dir

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=fetch))
    assert module.download_kaggle(tmp_path) == tmp_path / "nyu_data"
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(InputError, match=r"needs kagglehub: pip install 'depthnet\[kaggle\]'"):
        module.download_kaggle(tmp_path)


def test_what_is_downloaded_is_the_official_file():
    assert URL == "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat"
    assert (SIZE, MD5) == (2_972_037_809, "520609c519fba3ba5ac58c8fefcc3530")


def test_the_import_is_light():
    program = "import sys, depthnet.data.download; print(sorted({'torch', 'torchvision', 'h5py'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
