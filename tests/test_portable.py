"""What needs a POSIX system is asked for where it is used, so that prediction and evaluation also run on Windows."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from depthnet import processes
from depthnet.durable import locked

ROOT = Path(__file__).resolve().parent.parent
POSIX = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty")

PROGRAM = f"""
import sys
for name in {POSIX!r}:
    sys.modules[name] = None
import depthnet.prediction, depthnet.score, predict
"""


def test_prediction_and_score_are_imported_without_what_windows_has_not():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def imported_at_once(body):
    """Yield the names of the modules that are imported as the module is."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported_at_once(ast.iter_child_nodes(node))


def test_no_module_imports_at_once_what_windows_has_not():
    files = [*ROOT.glob("depthnet/**/*.py"), ROOT / "train.py", ROOT / "predict.py"]
    found = {path.name: {*imported_at_once(ast.parse(path.read_text()).body)} & {*POSIX} for path in files}
    assert {name: names for name, names in found.items() if names} == {}


def test_a_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with caplog.at_level("WARNING", "depthnet"), locked(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / ".lock").read_text()
    assert "cannot be locked on this system" in caplog.text


@pytest.mark.parametrize(("code", "number"), [(-signal.SIGTERM, signal.SIGTERM), (1, 0)])
def test_a_stopped_child_is_known_without_sigusr1(monkeypatch, code, number):
    monkeypatch.delattr(signal, "SIGUSR1")
    child = type("Child", (), {"poll": lambda self: code})()
    assert processes._stopped([child]) == number
