"""Checks the arguments that a config gives to a constructor against the constructor's own type hints.

pydantic decides, by its strict rules for JSON: an integer is a number, a list serves as a sequence or a tuple, and
neither "1" nor true is a number. What is built itself (a mapping with ``_target_``) is checked as another call.
The values themselves are passed on unchanged.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import json
import pydoc
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from depthnet.core.types import InputError

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
_OBJECT = "a mapping with _target_, as the files of conf/ state it"
_HYDRA = ("_args_", "_recursive_", "_convert_")
_RENAMED = {"truth": ["ground_truth"], "published": ["ssim_edge_l1", "keras"], "irv2_published": ["irv2_keras"]}
_SHOWN = 80  # characters of a value
_LISTED = 12  # names in a message


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
    elif isinstance(config, list | tuple):
        for number, value in enumerate(config):
            check_arguments(value, f"{place}[{number}]")


def _check_call(node: Mapping[str, Any], place: str, given: Collection[str]) -> None:
    target, partial = str(node["_target_"]), node.get("_partial_", False)
    check_value(bool, partial, f"{place}._partial_")
    call = pydoc.locate(target)
    if not callable(call):
        package, _, name = target.rpartition(".")
        known = [word for word in dir(pydoc.locate(package)) if word[0] != "_"]
        raise InputError(f"{place}._target_={target}: there is nothing of this name; {nearest(name, known)}")
    parameters, takes_more = _parameters(call)
    arguments = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    for key, value in arguments.items():
        if key in _HYDRA:
            raise InputError(f"{place}.{key}: a config gives arguments by their names alone; leave it out")
        if value == "???":
            raise InputError(f"{place}.{key}: has no value; add {place}.{key}=VALUE")
        if key in parameters:
            if not (isinstance(value, Mapping) and "_target_" in value):
                check_value(parameters[key].annotation, value, f"{place}.{key}")
        elif not takes_more:
            advice = nearest(str(key), [name for name in parameters if name not in given])
            raise InputError(f"{place}.{key}={written(value)}: {target} takes no {key}; {advice}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in (*arguments, *given) and not partial:
            raise InputError(f"{place}: {target} needs {name}; add {place}.{name}=VALUE")


@functools.cache
def _parameters(call: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the named parameters of a call, and whether it takes others besides.

    Further keyword arguments of a constructor are taken to be those of its base classes' constructors, and those of a
    class method to be the constructor's.
    """
    kind = call if inspect.isclass(call) else getattr(call, "__self__", None)
    functions = [base.__init__ for base in getattr(kind, "__mro__", ())[:-1] if "__init__" in vars(base)]
    if kind is not call:
        functions.insert(0, call)
    found: dict[str, inspect.Parameter] = {}
    for function in functions:
        own = inspect.signature(function, eval_str=True).parameters
        for name, parameter in own.items():
            if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(name, parameter if function is functions[0] else parameter.replace(default=None))
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in own.values()):
            return found, False
    return found, bool(functions)


def accepts(target: str, name: str) -> bool:
    """Return whether what a config may build takes an argument of this name."""
    parameters, takes_more = _parameters(pydoc.locate(target))
    return takes_more or name in parameters


def check_value(hint: Any, value: Any, place: str) -> None:
    """Check one plain value against a type hint.

    Raises:
        InputError: With the place, the value, and what it has to be.

    Example:
        >>> from typing import Literal
        >>> check_value(int | Literal["auto"], "two", "data.num_workers")
        Traceback (most recent call last):
        depthnet.core.types.InputError: data.num_workers=two: it is a whole number or 'auto'
    """
    from pydantic import ValidationError

    try:
        _adapter(hint).validate_json(json.dumps(value, default=str))
    except ValidationError:
        raise InputError(f"{place}={written(value)}: it is {describe_hint(hint)}") from None


@functools.cache
def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    if hint is not inspect.Parameter.empty:
        with contextlib.suppress(PydanticUserError):  # it takes no settings beside those of a dataclass, for one
            adapter = TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
            if adapter.pydantic_complete:  # else a name in it is for type checkers alone
                return adapter
    return TypeAdapter(Any)


def describe_hint(hint: Any) -> str:
    """Return what a value of a type hint looks like in a config.

    Example:
        >>> describe_hint(Sequence[float] | Literal["auto"] | None), describe_hint(Mapping[str, int])
        ("[a number, ...] or 'auto' or null", '{text: a whole number}')
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        texts = [text for text in hint.__metadata__ if isinstance(text, str) and text]
        return texts[0] if texts else describe_hint(parts[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe_hint, parts)))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    kind = origin or hint
    if kind is tuple and parts and parts[-1] is not ...:
        return f"[{', '.join(map(describe_hint, parts))}]"
    if kind in _NAMES or not inspect.isclass(kind):
        return _NAMES.get(kind, str(kind))
    if issubclass(kind, Mapping):
        return f"{{{': '.join(map(describe_hint, parts))}}}"
    if issubclass(kind, Sequence):
        return f"[{', '.join(map(describe_hint, parts[:1]))}, ...]"
    return _OBJECT


def nearest(name: str, known: Collection[str]) -> str:
    """Return an advice for a name that is not known: those that were probably meant, or all.

    Example:
        >>> nearest("batch_sise", ["batch_size", "root"]), nearest("x", ["batch_size", "root"])
        ('did you mean batch_size?', 'there are batch_size, root')
    """
    names = [str(word) for word in known]
    for new in _RENAMED.get(name, ()):
        if new in names:
            return f"it is {new} now"
    if close := difflib.get_close_matches(name, names, 2):
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"there are {', '.join(names[:_LISTED])}{more}"


def written(value: Any) -> str:
    """Return a value as a command line states it, shortened.

    Example:
        >>> written([None, True, {"min": 0.1}])
        '[null,true,{min:0.1}]'
    """
    text = json.dumps(value, separators=(",", ":"), default=str, ensure_ascii=False).replace('"', "")
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
