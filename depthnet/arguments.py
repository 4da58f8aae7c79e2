"""Checks the arguments that a config gives to a constructor against the constructor's own type hints.

Checked are plain values: numbers, text, lists, mappings. What is built itself (a mapping with ``_target_``) is checked
as a call of its own; a parameter that takes an object, a function or a tensor has no plain form and is left alone.
pydantic decides, by its strict rules for JSON: an integer is a number, a list serves as a sequence or a tuple, and
neither "1" nor true is a number. The values themselves are handed on as they were given.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import pydoc
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from datetime import timedelta
from enum import Enum
from os import PathLike
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from depthnet.types import InputError

__all__ = ["accepts", "check_arguments", "check_value", "nearest", "written"]

_REACHED = {
    "depthnet.optim.build_optimizer": ("torch.optim.{algorithm}",),
    "depthnet.loggers.wandb_logger": ("wandb.init",),
    "lightning.pytorch.loggers.TensorBoardLogger": ("torch.utils.tensorboard.SummaryWriter",),
}
"""What further keyword arguments are handed to, where it is neither the class of a class method nor a base class."""

_KEPT = {
    "depthnet.data.datamodule.DepthDataModule.from_root": ("layout",),
    "depthnet.data.datamodule.DepthDataModule.rooms": ("layout",),
    "depthnet.optim.build_optimizer": ("network", "params"),
    "depthnet.loggers.wandb_logger": ("mode", "settings", "dir", "resume"),
}
"""Parameters of those that the caller gives itself."""

_NAMES_ONLY = ("depthnet.loggers.wandb_logger",)  # turns what a config gives into text itself
_HYDRA = ("_args_", "_recursive_", "_convert_")
_SIMPLE = (bool, int, float, str, timedelta, type(None))
_LISTS = (list, set, frozenset, Sequence, MutableSequence, Collection, Iterable)
_MAPPINGS = (dict, Mapping, MutableMapping)
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
        >>> check_arguments({"_target_": "depthnet.types.DepthRange", "min": 0.1, "max": "far"}, "range")
        Traceback (most recent call last):
        depthnet.types.InputError: range.max=far: it is a number
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
    """Check one plain value against a type hint; one without a plain form is met by any value.

    Raises:
        InputError: With the value's place and what it has to be.

    Example:
        >>> check_value(int | Literal["auto"], "two", "data.num_workers")
        Traceback (most recent call last):
        depthnet.types.InputError: data.num_workers=two: it is 'auto' or a whole number
    """
    plain = _plain(hint)
    if plain is None or plain is Any or _matches(plain, value):
        return
    if isinstance(value, Mapping):  # name the entry instead of the whole
        for kind in _kinds(plain):
            if get_origin(kind) is dict:
                for key, item in value.items():
                    check_value(get_args(kind)[1], item, f"{place}.{key}")
    raise InputError(f"{place}={written(value)}: it is {_described(plain)}")


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
    for key in _HYDRA:
        if key in node:
            raise InputError(f"{place}.{key}: a config gives arguments by their names alone; leave it out")
    check_value(bool, partial, f"{place}._partial_")
    arguments = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    if any(value == "???" for value in arguments.values()):
        key = next(key for key, value in arguments.items() if value == "???")
        raise InputError(f"{place}.{key}: has no value; add {place}.{key}=VALUE")
    try:
        parameters, more = _parameters(target, arguments)
    except InputError as error:
        raise InputError(f"{place}.{error}") from None
    for key, value in arguments.items():
        if key not in parameters:
            if more:
                continue
            known = [name for name in parameters if name not in (*given, *_KEPT.get(target, ()))]
            taker = _REACHED.get(target, (target,))[0].format_map({"algorithm": "AdamW", **arguments})
            raise InputError(f"{place}.{key}={written(value)}: {taker} takes no {key}; {nearest(str(key), known)}")
        if not (isinstance(value, Mapping) and "_target_" in value):
            _refuse_for_object(parameters[key].hint, value, f"{place}.{key}")
            check_value(parameters[key].hint, value, f"{place}.{key}")
    there = {*arguments, *given}
    missing = [name for name, parameter in parameters.items() if parameter.required and name not in there]
    if missing and not partial:
        raise InputError(f"{place}: {target} needs {missing[0]}; add {place}.{missing[0]}=VALUE")


def _refuse_for_object(hint: Any, value: Any, place: str) -> None:
    """Refuse a word or number where one of our own objects is wanted, such as ``data.augment=none``."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    ours = [kind for kind in kinds if isinstance(kind, type) and kind.__module__.startswith("depthnet.")]
    if ours and _plain(hint) in (None, type(None)) and isinstance(value, str | int | float):
        raise InputError(f"{place}={written(value)}: it is a mapping with _target_, as the files of conf/ state it")


@functools.cache
def _located(target: str) -> Any:
    found = _found(target)
    if found is None:
        package, _, name = target.rpartition(".")
        module = pydoc.locate(package)
        known = [word for word in dir(module) if callable(getattr(module, word)) and word[0] != "_"] if module else []
        raise InputError(f"_target_={target}: there is nothing of this name; {nearest(name, known)}")
    return found


def _found(target: str) -> Any:
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport:
        return None
    return found if callable(found) else None


def _parameters(target: str, arguments: Mapping[str, Any]) -> tuple[dict[str, _Parameter], bool]:
    """The parameters of a call and of what it hands further ones to; whether it may take others besides."""
    kept, more = _KEPT.get(target, ()), False
    found: dict[str, _Parameter] = {}
    for function in _functions(_located(target)):
        further = {name: known._replace(required=False) for name, known in _own(function).items() if name not in kept}
        found = further | found if found else dict(_own(function))
    for name in _REACHED.get(target, ()):
        reached = _found(name.format_map({"algorithm": "AdamW", **arguments}))
        more = more or reached is None
        for function in _functions(reached) if reached else ():
            for key, known in _own(function).items():
                if key not in kept:
                    hint = Any if target in _NAMES_ONLY else known.hint
                    found.setdefault(key, _Parameter(hint, required=False))
    return found, more


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


def _plain(hint: Any) -> Any:
    """A type hint without what plain data cannot be; None where nothing is left."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint in _SIMPLE or origin is Literal or (isinstance(hint, type) and issubclass(hint, Enum)):
        return type(None) if hint is None else hint
    if hint is PathLike or origin is PathLike:
        return str
    if origin is Annotated:
        plain = _plain(inner[0])
        return None if plain is None else Annotated[(plain, *inner[1:])]
    if origin in (Union, types.UnionType):
        kept = [plain for part in inner if (plain := _plain(part)) is not None]
        if Any in kept:
            return Any
        return Union[tuple(kept)] if kept else None  # noqa: UP007  of a number known only here
    kind = origin or hint
    if kind is tuple:
        parts = tuple(part if part is Ellipsis else _element(part) for part in inner)
        return tuple[parts] if parts else list[Any]  # type: ignore[valid-type]
    if kind in _MAPPINGS:
        return dict[_element(inner[0]), _element(inner[1])] if inner else dict[Any, Any]  # type: ignore[misc]
    if kind in _LISTS:
        return list[_element(inner[0])] if inner else list[Any]  # type: ignore[misc]
    return None


def _kinds(plain: Any) -> Iterator[Any]:
    """What a plain hint is a union of, or itself."""
    if get_origin(plain) is Annotated:
        yield from _kinds(get_args(plain)[0])
    elif get_origin(plain) in (Union, types.UnionType):
        for part in get_args(plain):
            yield from _kinds(part)
    else:
        yield plain


def _element(hint: Any) -> Any:
    plain = _plain(hint)
    return Any if plain is None else plain


def _matches(plain: Any, value: Any) -> bool:
    from pydantic import ValidationError

    try:
        _adapter(plain).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError:
        return False
    return True


@functools.cache
def _adapter(plain: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(plain)


def _described(plain: Any) -> str:
    """What a value has to be, in words."""
    origin, inner = get_origin(plain), get_args(plain)
    if origin is Annotated:
        texts = [text for text in inner[1:] if isinstance(text, str)]
        return texts[0] if texts else _described(inner[0])
    if origin in (Union, types.UnionType, Literal):
        words = [_described(part) if origin is not Literal else _literal(part) for part in inner]
        if float in inner and int in inner:
            words.remove(_described(int))
        words = sorted(dict.fromkeys(words), key=lambda word: word[0] not in "'0123456789")  # a fixed word first
        return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    if origin is tuple and Ellipsis not in inner:
        words = list(map(_described, inner))
        each = f"each {words[0]}" if len(set(words)) == 1 else "; ".join(words)
        return f"a list of {len(inner)}, {each}"
    if origin in (list, tuple):
        return "a list" if inner[0] is Any else f"a list, each {_described(inner[0])}"
    if origin is dict:
        return "a mapping" if inner[1] is Any else f"a mapping, each value {_described(inner[1])}"
    if isinstance(plain, type) and issubclass(plain, Enum):
        return " or ".join(_literal(member.value) for member in plain)
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text", timedelta: "a duration"}.get(
        plain, "null"
    )


def _literal(value: Any) -> str:
    return repr(value) if isinstance(value, str) else written(value)
