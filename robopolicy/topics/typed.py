"""Values of a settings file against the types of a dataclass: what is of the wrong type is named, with its place."""

import math
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from robopolicy.errors import ContractError, UnknownName


def typed(values: dict[str, Any], kind: Any, where: str) -> dict[str, Any]:
    """Return the values as the fields of the dataclass ``kind`` have them: numbers float, lists tuples, null left out.

    Fields that are none of str, float, bool, Literal, tuples of str or of counts, or one of these or None, stay as they
    are: mappings, and other dataclasses.

    Raises:
        ContractError, UnknownName: naming the key, what it is and what it wants to be.
    """
    hints = get_type_hints(kind)
    return {key: _typed(value, hints[key], f"{where}{key}") for key, value in values.items() if value is not None}


def _typed(value: Any, hint: Any, where: str) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UnknownName(where, str(value), get_args(hint))
        return value
    if get_origin(hint) is tuple:
        element = get_args(hint)[0]
        every = tuple(value) if isinstance(value, list) else (value,)
        if not all(map(_IS[element], every)):
            raise _wrong(where, value, " or a list of ".join(_WANTED[element]))
        return every
    for plain in get_args(hint) if get_origin(hint) is UnionType else (hint,):
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
    float: ("a finite number",),
}
