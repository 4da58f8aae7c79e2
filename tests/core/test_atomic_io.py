import errno
import io
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from depthnet.core.atomic_io import (
    file_digest,
    locked,
    open_durable,
    remove_leftovers,
    require_writable,
    write_bytes,
    write_json,
    write_text,
)
from depthnet.core.types import InputError


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
        from depthnet.core.atomic_io import write_bytes
        from depthnet.core.types import InputError
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
        from depthnet.core.atomic_io import open_durable
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


def run(program, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_full_disk_says_how_much_was_needed(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    free = r"[\d,.]+ MB free; what was there before is untouched"
    with pytest.raises(InputError, match=rf"cannot write .*a: No space left on device; 216\.0 MB needed, {free}"):  # noqa: SIM117
        with open_durable(tmp_path / "a", needed=216_000_000):
            pass
    with pytest.raises(InputError, match=rf"No space left on device; {free}"):  # noqa: SIM117
        with open_durable(tmp_path / "a") as file:
            file.write(bytes(1_000_000))
    with pytest.raises(InputError, match=r"No space left on device; 0\.0 MB needed"):
        write_text(tmp_path / "a", "abc")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_otherwise_says_nothing_of_room(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(InputError, match="Input/output error; what was there before is untouched"):
        write_text(tmp_path / "a", "abc")


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    kept = {".a.part", "a.0a1b2c3d.part", ".b.0a1b2c3d.part.txt", "a.bin", ".lock"}
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    write_bytes(tmp_path / "below/.x.01234567.part", b"")
    program = """
        import os, signal, sys
        from depthnet.core.atomic_io import open_durable
        with open_durable(sys.argv[1]) as file:
            os.kill(os.getpid(), signal.SIGKILL)
    """
    for name in ("a.bin", "a b\n.bin", "x" * 100):
        assert run(program, tmp_path / name).returncode == -signal.SIGKILL
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept | {"below"}
    assert (tmp_path / "below/.x.01234567.part").exists()
    remove_leftovers(tmp_path / "missing")


LOCK = "import sys; from depthnet.core.atomic_io import locked\nwith locked(sys.argv[1]): pass"


def test_a_second_run_in_a_directory_is_refused_by_name(tmp_path):
    with locked(tmp_path / "new %d"):
        refused = run(LOCK, tmp_path / "new %d")
        assert refused.returncode == 1
        said = refused.stderr.splitlines()[-1]
        assert "new %d: another run is at work in this directory" in said
        assert f"(process {os.getpid()} on {socket.gethostname()}, since {time.localtime().tm_year}-" in said
        with locked(tmp_path / "other"):
            pass
    assert run(LOCK, tmp_path / "new %d").returncode == 0
    with locked(tmp_path / "new %d"):
        pass


def test_a_process_cannot_lock_twice_and_its_try_frees_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with locked(tmp_path):
        for name in (tmp_path, tmp_path / "link"):
            with pytest.raises(InputError, match=f"another run is at work .*process {os.getpid()} on"), locked(name):
                pass
        assert run(LOCK, tmp_path).returncode == 1


def test_an_error_frees_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        1 / 0  # noqa: B018
    assert run(LOCK, tmp_path).returncode == 0


def test_a_killed_holder_frees_the_lock_though_its_children_live(tmp_path):
    program = """
        import os, signal, sys, time
        from depthnet.core.atomic_io import locked
        from depthnet.core.types import InputError
        with locked(sys.argv[1]):
            child = os.fork()
            if child == 0:
                os.closerange(0, 3)
                time.sleep(60)
                os._exit(0)
            print(child, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = run(program, tmp_path)
    assert killed.returncode == -signal.SIGKILL
    child = int(killed.stdout)
    try:
        with locked(tmp_path):
            os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_neither_holds_nor_frees_the_lock(tmp_path):
    program = """
        import os, sys
        from depthnet.core.atomic_io import locked
        from depthnet.core.types import InputError
        with locked(sys.argv[1]):
            child = os.fork()
            if child == 0:
                try:
                    with locked(sys.argv[1]):
                        code = 1
                except InputError:
                    code = 0
                sys.exit(code)  # through the outer block's end
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            import subprocess
            print(subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]], capture_output=True).returncode)
    """
    assert run(program, tmp_path, LOCK).stdout == "1\n"


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog):
    def unknown(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unknown)
    with locked(tmp_path):
        pass
    assert "No locks available" in caplog.text


def test_a_lock_in_what_is_no_directory_is_a_users_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write in"), locked(tmp_path / "file"):
        pass


def test_a_full_disk_is_reported_before_any_work(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: Full())
    with pytest.raises(InputError, match=r"cannot write in .*No space left on device"):
        require_writable(tmp_path)
