import pytest

from depthnet.core.errors import finish
from depthnet.core.types import InputError


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("work", "code", "line"),
    [
        (lambda: 1, 1, ""),
        (lambda: fail(InputError("list.txt:3: torn")), 2, "tool: list.txt:3: torn\n"),
        (lambda: fail(KeyboardInterrupt()), 130, "tool: interrupted; nothing was written\n"),
        (lambda: fail(InputError("caf\udce9: torn")), 2, "tool: caf\\udce9: torn\n"),
    ],
)
def test_a_tool_ends_with_a_code_and_at_most_a_line(capfd, work, code, line):
    assert finish("tool", work) == code
    assert capfd.readouterr() == ("", line)


def test_a_fault_of_the_program_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        finish("tool", lambda: 1 // 0)
