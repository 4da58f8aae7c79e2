"""The command depthnet: its list of tools, and what a wrong one gives."""

import subprocess
import sys

import pytest

from depthnet.cli import TOOLS, main


def test_help_lists_every_tool(capsys):
    assert main(["--help"]) == main([]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in TOOLS)
    assert main(["--version"]) == 0


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "train"])
def test_every_tool_has_its_own_help(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        main([tool, "--help"])
    assert stop.value.code == 0
    assert f"depthnet {tool}" in capsys.readouterr().out


def test_train_is_train_py(tmp_path):
    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "depthnet", "train", *words], cwd=tmp_path, capture_output=True, text=True
        )

    done = run("--help")
    assert done.returncode == 0
    assert "irv2_attn" in done.stdout
    wrong = run("model=nothing")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert wrong.stderr.startswith("error: model=nothing: there are basic, ")
    assert not list(tmp_path.iterdir())


def test_a_wrong_tool_is_one_line(capsys):
    assert main(["score"]) == 2
    assert capsys.readouterr().err.startswith("depthnet: no tool score; there are train, predict, data, ")


def test_the_command_imports_nothing_heavy():
    program = "import sys; from depthnet.cli import main; main(['--help']); print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
