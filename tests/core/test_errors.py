import pytest

from depthnet.core.errors import error_line, finish
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


def test_an_error_line_is_found_under_what_libraries_wrap_around_it():
    wrapped = RuntimeError("Error in call to target\nfull_key: x")
    wrapped.__cause__ = InputError("what is wrong")
    assert error_line(wrapped) == "what is wrong"


def test_an_error_line_is_found_in_a_workers_message():
    text = "Caught InputError in worker 0.\nTraceback:\n  File\ndepthnet.core.types.InputError: a.png is torn\n"
    assert error_line(InputError(text)) == "a.png is torn"


def test_other_errors_are_ours_unless_named():
    assert error_line(KeyError("x")) is None
    assert error_line(ValueError("two\n lines"), also=(ValueError,)) == "two lines"
