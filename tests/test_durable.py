import json
import math
import resource
import subprocess
import sys
import textwrap

import pytest

from depthnet.durable import file_digest, open_durable, require_writable, write_bytes, write_json, write_text
from depthnet.types import InputError


def test_a_file_appears_whole_and_nothing_else_is_left(tmp_path):
    write_bytes(tmp_path / "new" / "a.bin", b"one")
    write_bytes(tmp_path / "new" / "a.bin", b"two")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.bin"]
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"two"


def test_an_exception_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def fail_half_way():
        with open_durable(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path):
    program = textwrap.dedent(
        f"""
        import resource, signal, sys
        from depthnet.durable import write_bytes
        from depthnet.types import InputError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        write_bytes({str(tmp_path / "a.bin")!r}, b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))
        try:
            write_bytes({str(tmp_path / "a.bin")!r}, b"x" * 100_000)
        except InputError as error:
            sys.exit(str(error))
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "untouched" in done.stderr
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    write_bytes(tmp_path / "a.bin", b"old")
    program = textwrap.dedent(
        f"""
        import os, signal
        from depthnet.durable import open_durable
        with open_durable({str(tmp_path / "a.bin")!r}) as file:
            file.write(b"x" * 10_000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_the_file_gets_ordinary_permissions(tmp_path):
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": None}}


def test_a_figure_keeps_every_digit_in_json(tmp_path):
    write_json(tmp_path / "a.json", 0.1 + 0.2)
    assert json.loads((tmp_path / "a.json").read_text()) == 0.1 + 0.2


def test_the_digest_is_sha256(tmp_path):
    write_bytes(tmp_path / "a", b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_directory_under_a_file_is_not_writable(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(InputError, match="cannot write in"):
            require_writable(path)


def test_require_writable_leaves_nothing(tmp_path):
    assert require_writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []
