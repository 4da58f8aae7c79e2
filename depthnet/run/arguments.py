"""Checks the arguments that a config gives to a constructor against the constructor's own type hints.

pydantic decides, by its strict rules for JSON: an integer is a number, a list serves as a sequence or a tuple, and
neither "1" nor true is a number. What is built itself (a mapping with ``_target_``) is checked as a call of its own.
The values themselves are handed on as they were given.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import pydoc
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from depthnet.core.types import InputError

_REACHED = {
    "depthnet.training.optimizers.build_optimizer": ("torch.optim.{algorithm}",),
    "depthnet.training.loggers.wandb_logger": ("wandb.init",),
    "lightning.pytorch.loggers.TensorBoardLogger": ("torch.utils.tensorboard.SummaryWriter",),
}
"""What further keyword arguments are handed to, where it is neither the class of a class method nor a base class."""

_WANDB = (
    "depthnet.training.loggers.wandb_logger"  # turns what a config gives into text, so that names alone are checked
)
_WANDB_OWN = ("mode", "settings", "dir", "resume")  # what it sets itself

_KINDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "missing": "a longer list",
    "too_long": "a shorter list",
    "needs_python_object": (_OBJECT := "a mapping with _target_, as the files of conf/ state it"),
}
"""pydantic's types of error, in the words of a config; others keep pydantic's."""

_HYDRA = ("_args_", "_recursive_", "_convert_")
_SHOWN = 80  # characters of a value
_LISTED = 12  # names in a message


class _Parameter(NamedTuple):
    hint: Any
    required: bool


def check_arguments(config: Any, place: str, given: Collection[str] = ()) -> None:
    """Check every call that a config states, before any is carried out.

    Args:
        config: Plain data; each mapping with ``_target_`` is a call. Its targets may be imported.
        place: The key under which it stands, for the message.
        given: Names of arguments that the outermost call gets besides.

    Raises:
        InputError: For the first name that a call does not take, argument that is missing, or value of another type.

    Example:
        >>> check_arguments({"_target_": "depthnet.core.types.DepthRange", "min": 0.1, "max": "far"}, "range")
        Traceback (most recent call last):
        depthnet.core.types.InputError: range.max=far: it is a number
    """
    if isinstance(config, Mapping):
        if "_target_" in config:
            _check_call(config, place, given)
        for key, value in config.items():
            check_arguments(value, f"{place}.{key}")
    elif isinstance(config, Sequence) and not isinstance(config, str):
        for number, value in enumerate(config):
            check_arguments(value, f"{place}[{number}]")


def check_value(hint: Any, value: Any, place: str) -> None:
    """Check one plain value against a type hint.

    Raises:
        InputError: With the place and value of what is wrong in it, and what that has to be.

    Example:
        >>> from typing import Literal
        >>> check_value(int | Literal["auto"], "two", "data.num_workers")
        Traceback (most recent call last):
        depthnet.core.types.InputError: data.num_workers=two: it is 'auto' or a whole number
    """
    from pydantic import ValidationError

    adapter = _adapter(hint)
    try:
        adapter.validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        found = [(*_part(value, problem["loc"], place), problem) for problem in error.errors()]
    else:
        return
    deepest = max(depth for depth, *_ in found)  # of a union's members the one that fits best
    depth, where, part, _ = next(entry for entry in found if entry[0] == deepest)
    text = _stated(hint) if depth == 0 else ""
    words = [_words(problem) for number, other, _, problem in found if (number, other) == (depth, where)]
    null = depth == 0 and _is_null_allowed(adapter)
    raise InputError(f"{where}={written(part)}: it is {text or _joined(words, null)}")


def _part(value: Any, loc: Sequence[str | int], place: str) -> tuple[int, str, Any]:
    """How deep in a value one of pydantic's errors lies, where, and what stands there; a union's labels are skipped."""
    depth = 0
    for step in loc:
        if isinstance(value, Mapping) and step in (keys := {str(key): key for key in value}):
            depth, place, value = depth + 1, f"{place}.{step}", value[keys[str(step)]]
        elif isinstance(value, list | tuple) and isinstance(step, int) and step < len(value):
            depth, place, value = depth + 1, f"{place}[{step}]", value[step]
    return depth, place, value


def _words(problem: Mapping[str, Any]) -> str:
    if problem["type"] in ("literal_error", "enum"):
        return str(problem["ctx"]["expected"])
    message = str(problem["msg"]).removeprefix("Input should be ")
    return _KINDS.get(problem["type"], message[:1].lower() + message[1:])


def _joined(words: Sequence[str], null: bool) -> str:
    words = sorted(dict.fromkeys(words), key=lambda word: word[0] != "'")  # a fixed word first
    implied = {"a whole number"} if "a number" in words else set()
    words = [word for word in words if word not in implied | {_OBJECT}] or words
    words += ["null"] * null
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _stated(hint: Any) -> str:
    """The text beside an annotated hint, or a part of a union, that says what a value has to be."""
    texts = [text for text in getattr(hint, "__metadata__", ()) if isinstance(text, str)]
    return texts[0] if texts else next(filter(None, map(_stated, get_args(hint))), "")


@functools.cache
def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    try:
        adapter = TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except Exception:  # nothing that pydantic knows
        return TypeAdapter(Any)
    return adapter if adapter.pydantic_complete else TypeAdapter(Any)  # a name in it may be for type checkers alone


def _is_null_allowed(adapter: Any) -> bool:
    try:
        adapter.validate_json("null")
    except ValueError:
        return False
    return True


def accepts(target: str, name: str) -> bool:
    """Return whether what a config may build takes an argument of this name."""
    parameters, more = _parameters(target, {})
    return more or name in parameters


def nearest(name: str, known: Collection[str]) -> str:
    """Return an advice for a name that is not known: those that were probably meant, or all.

    Example:
        >>> nearest("batch_sise", ["batch_size", "root"]), nearest("x", ["batch_size", "root"])
        ('did you mean batch_size?', 'there are batch_size, root')
    """
    names = [str(word) for word in known]
    close = difflib.get_close_matches(name, names, 2)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names[:_LISTED])}{more}"


def written(value: Any) -> str:
    """Return a value as a command line states it, shortened.

    Example:
        >>> written([None, True, {"min": 0.1}])
        '[null,true,{min:0.1}]'
    """
    text = _written(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _check_call(node: Mapping[str, Any], place: str, given: Collection[str]) -> None:
    target, partial = str(node["_target_"]), node.get("_partial_", False)
    check_value(bool, partial, f"{place}._partial_")
    arguments = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    for key, value in arguments.items():
        if key in _HYDRA:
            raise InputError(f"{place}.{key}: a config gives arguments by their names alone; leave it out")
        if value == "???":
            raise InputError(f"{place}.{key}: has no value; add {place}.{key}=VALUE")
    try:
        parameters, more = _parameters(target, arguments)
    except InputError as error:
        raise InputError(f"{place}.{error}") from None
    for key, value in arguments.items():
        if key in parameters:
            if not (isinstance(value, Mapping) and "_target_" in value):
                check_value(parameters[key].hint, value, f"{place}.{key}")
        elif not more:
            known = [name for name in parameters if name not in given]
            taker = _REACHED.get(target, (target,))[0].format_map({"algorithm": "AdamW", **arguments})
            raise InputError(f"{place}.{key}={written(value)}: {taker} takes no {key}; {nearest(str(key), known)}")
    missing = [name for name, known in parameters.items() if known.required and name not in (*arguments, *given)]
    if missing and not partial:
        raise InputError(f"{place}: {target} needs {missing[0]}; add {place}.{missing[0]}=VALUE")


def _found(target: str) -> Any:
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport:
        return None
    return found if callable(found) else None


def _parameters(target: str, arguments: Mapping[str, Any]) -> tuple[dict[str, _Parameter], bool]:
    """The parameters of a call and of what it hands further ones to; whether it may take others besides."""
    call = _found(target)
    if call is None:
        package, _, name = target.rpartition(".")
        module = pydoc.locate(package)
        known = [word for word in dir(module) if callable(getattr(module, word)) and word[0] != "_"] if module else []
        raise InputError(f"_target_={target}: there is nothing of this name; {nearest(name, known)}")
    own = list(_functions(call))
    reached = [_found(name.format_map({"algorithm": "AdamW", **arguments})) for name in _REACHED.get(target, ())]
    found = dict(_own(own[0])) if own else {}
    for function in own[1:] + [function for call in reached if call for function in _functions(call)]:
        for name, parameter in _own(function).items():
            if target != _WANDB or name not in _WANDB_OWN:
                found.setdefault(name, _Parameter(Any if target == _WANDB else parameter.hint, required=False))
    return found, None in reached


def _functions(call: Any) -> Iterator[Any]:
    """The function that is called, and those that its further keyword arguments are handed to."""
    if inspect.isclass(call):
        for kind in call.__mro__[:-1]:
            if "__init__" in vars(kind):
                function = vars(kind)["__init__"]
                yield function
                if not _takes_any(function):
                    return
    elif inspect.ismethod(call):
        yield call.__func__
        if _takes_any(call.__func__):
            yield from _functions(call.__self__)
    else:
        yield call


def _takes_any(function: Any) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


@functools.cache
def _own(function: Any) -> dict[str, _Parameter]:
    names = inspect.unwrap(function).__globals__
    return {
        name: _Parameter(_evaluated(parameter.annotation, names), parameter.default is parameter.empty)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "cls") and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _evaluated(hint: Any, names: dict[str, Any]) -> Any:
    if hint is inspect.Parameter.empty:
        return Any
    try:
        return eval(hint, names) if isinstance(hint, str) else hint
    except Exception:  # a name that is imported for type checkers alone
        return Any
