import hashlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
    path = tmp_path / "nyu" / LABELLED_FILE
    for said in (f"/{what}", f"{len(PAYLOAD)} bytes, MD5 {DIGEST}", str(path)):
        assert said in message
    return [left for left in path.parent.iterdir() if left != path]


@pytest.mark.parametrize("what", ["whole", "moved"])
def test_it_arrives_whole_under_its_name_alone(fetch, tmp_path, what):
    path = fetch(what)
    assert path == tmp_path / "nyu" / LABELLED_FILE
    assert path.read_bytes() == PAYLOAD
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("missing", "HTTP Error 404"),
        ("other", "not found or corrupted"),
        ("torn", "not found or corrupted"),
        ("silent", "timed out"),
    ],
)
def test_a_failure_says_what_to_do_by_hand_and_leaves_what_was_there(fetch, tmp_path, monkeypatch, what, match):
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    assert refused(fetch, tmp_path, what, match) == []
    path = tmp_path / "nyu" / LABELLED_FILE
    assert not path.exists()
    path.write_bytes(b"of yesterday")
    assert refused(fetch, tmp_path, what, match) == []
    assert path.read_bytes() == b"of yesterday"
    assert socket.getdefaulttimeout() is None


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


def test_a_full_disk_half_way_leaves_nothing(fetch, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", full)
    assert refused(fetch, tmp_path, "whole", "No space left on device") == []


def test_an_interruption_leaves_nothing_and_a_killed_run_is_cleared_up(fetch, tmp_path, monkeypatch):
    def stopped(url, path):
        path = str(path)
        assert path.endswith(".part")
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(PAYLOAD[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.utils._urlretrieve", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch("whole")
    assert list((tmp_path / "nyu").iterdir()) == []
    (tmp_path / "nyu" / f".{LABELLED_FILE}.0123abcd.part").write_bytes(PAYLOAD)
    assert list(fetch("whole").parent.iterdir()) == [tmp_path / "nyu" / LABELLED_FILE]


def test_what_is_downloaded_is_the_official_file():
    assert URL == "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat"
    assert (SIZE, MD5) == (2_972_037_809, "520609c519fba3ba5ac58c8fefcc3530")


def test_the_import_is_light():
    program = "import sys, depthnet.data.download; print(sorted({'torch', 'torchvision', 'h5py'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
