"""What needs a POSIX system is asked for where it is used, so that prediction and evaluation also run on Windows."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POSIX = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty")

PROGRAM = f"""
import sys
for name in {POSIX!r}:
    sys.modules[name] = None
import depthnet.inference.predict, depthnet.evaluation.predictions, predict
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
