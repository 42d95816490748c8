"""Settings files: YAML, checked against dataclasses; what is wrong is one line that names file and key."""

import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from robopolicy.errors import ConfigError, ContractError, MissingExtra, RobopolicyError, UnknownName

T = TypeVar("T")


def read_settings(path: Path | str, make: Callable[[Any], T], what: str, *, extra: str = "ros") -> T:
    """Read a YAML file and return what ``make`` makes of it.

    Args:
        path: of the file.
        make: takes keys and values as YAML has them; what it raises is told with the file's name.
        what: the file is, for messages: ``"the YAML file that says which topic is which field"``.
        extra: that brings ruamel.yaml to who wants this file.

    Raises:
        ConfigError: naming the file and the key that is missing, unknown or makes no sense.
        MissingExtra: without ruamel.yaml, which ``extra`` brings.
    """
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        raise MissingExtra("ruamel.yaml", extra) from None
    try:
        data = YAML(typ="safe", pure=True).load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; want {what}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())[:160]}") from error
    try:
        return make(data)
    except (RobopolicyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def keys(data: Any, kind: Any, where: str, required: Iterable[str] = (), prefix: str | None = None) -> dict[str, Any]:
    """Return the values of a mapping that are fields of the dataclass ``kind``, `typed`.

    Args:
        data: as YAML has it.
        kind: the dataclass.
        where: the mapping is, for messages.
        required: keys that must be there.
        prefix: before the name of a key in messages; None is ``where.``.

    Raises:
        ContractError, UnknownName: naming a key that is missing, unknown or of the wrong type.
    """
    values = mapping(data, where)
    known = [field.name for field in fields(kind)]
    for key in values:
        if key not in known:
            raise UnknownName(f"key in {where}", str(key), known)
    for key in required:
        if values.get(key) in (None, ""):
            raise ContractError(f"{where} has no {key!r}")
    return typed(values, kind, f"{where}." if prefix is None else prefix)


def mapping(data: Any, where: str) -> dict[str, Any]:
    """Return keys and values, none of None; ContractError if ``data`` is anything else."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ContractError(f"{where} is {type(data).__name__} {str(data)[:40]!r}; want keys and values")
    if odd := [key for key in data if not isinstance(key, str)]:
        raise ContractError(f"{where}: the name {odd[0]!r} is no text")
    return dict(data)


def typed(values: dict[str, Any], kind: Any, where: str) -> dict[str, Any]:
    """Return the values as the fields of the dataclass ``kind`` have them: numbers float, lists tuples, null left out.

    Fields that are none of str, float, bool, Literal, tuples of str, of numbers or of counts, or one of these or None,
    stay as they are: mappings, and other dataclasses.

    Raises:
        ContractError, UnknownName: naming the key, what it is and what it wants to be.
    """
    hints = get_type_hints(kind)
    return {key: _typed(value, hints[key], f"{where}{key}") for key, value in values.items() if value is not None}


def _typed(value: Any, hint: Any, where: str) -> Any:
    for plain in get_args(hint) if get_origin(hint) is UnionType else (hint,):
        if get_origin(plain) is Literal:
            if value not in get_args(plain):
                raise UnknownName(where, str(value), get_args(plain))
            return value
        if get_origin(plain) is tuple:
            element = get_args(plain)[0]
            every = value if isinstance(value, list) else [value]
            if not all(map(_IS[element], every)):
                raise _wrong(where, value, " or a list of ".join(_WANTED[element]))
            return tuple(element(one) for one in every)
        if plain in _IS:
            if not _IS[plain](value):
                raise _wrong(where, value, _WANTED[plain][0])
            return plain(value)
    return value


def _wrong(where: str, value: Any, want: str) -> ContractError:
    return ContractError(f"{where} is {str(value)[:40]!r}; want {want}")


_IS: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    float: lambda value: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
}
_WANTED = {
    str: ("text", "texts"),
    bool: ("true or false",),
    int: ("a number from 0", "such"),
    float: ("a finite number", "such"),
}
