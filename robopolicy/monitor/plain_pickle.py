"""Pickles of strangers: numpy arrays and plain containers are read, anything else is refused before it runs.

A pickle is a program. Of this one, nothing that it names is ever imported: the few globals that numpy and plain
containers are made of have stand-ins here, which check what they are given; another one ends the reading.
"""

import io
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from robopolicy.errors import MonitorError
from robopolicy.monitor.pickle_scan import PLAIN, Refused, scan

MAX_BYTES = 2**32  # of a file; some hundreds of decisions with their pictures are a tenth of it
MAX_NESTING = 64
CODES = re.compile(r"\?|[biufcSU][1-9][0-9]{0,5}")  # no objects, records, void or dates
KEYS = (str, bytes, int, float, type(None))  # bool is an int; a key that is an array would not hash


def load_plain(path: str | Path) -> Any:
    """Return what the pickle ``path`` (protocol 2 to 5) holds.

    That is arrays, numpy scalars and dtypes, of numbers, booleans or text, in dict, list, tuple, set, str, bytes,
    int, float, bool, None and OrderedDict. Memory stays within a small multiple of the file.

    Raises:
        MonitorError: if it is no such pickle, or asks for anything else: one line that names it and the file.
    """
    path = Path(path)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise MonitorError(f"{path} has {size / 1e9:.1f} GB; a pickle of {MAX_BYTES / 1e9:.1f} GB at most is read")
    return plain_from_bytes(path.read_bytes(), str(path))


def plain_from_bytes(data: bytes, name: str) -> Any:
    """Read as `load_plain` does; ``name`` stands for the file in messages.

    Raises:
        MonitorError: as `load_plain` says.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in text that is refused anyway
            scan(data)
        return _plain(_Reader(io.BytesIO(data)).load(), {}, 0)
    except Refused as refused:
        raise MonitorError(f"{name}: {_line(refused)}; only numpy arrays and plain containers are read") from refused
    except (
        pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, MemoryError,
        OverflowError,
    ) as error:  # fmt: skip
        raise MonitorError(f"{name} is not a readable pickle: {_line(error)}") from error


def _line(error: Exception) -> str:
    """What it says, without what a stranger's name might do to a terminal."""
    text = f"{error!s:.200}"
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


class _Reader(pickle.Unpickler):
    """Finds no global but the stand-ins below."""

    def find_class(self, module: str, name: str) -> "_Global":
        if (module, name) not in PLAIN:  # scan has said so before; this is the lock, that is the doorbell
            raise Refused(f"the pickle asks for {module}.{name}")
        return _Global(name, MAKERS[name])


class _Global:
    """A global of the pickle: made anew each time it is named, so that nothing can be changed through it."""

    __slots__ = ("_make", "name")

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name, self._make = name, make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused(f"the pickle would change {self.name}")


class _Dtype:
    """A dtype while it is read; numpy's own would take a state that makes it what it is not."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        if not (isinstance(code, str) and CODES.fullmatch(code)):
            what = "Python objects" if isinstance(code, str) and code[:1] == "O" else f"dtype {code!r:.40}"
            raise Refused(f"the pickle holds an array of {what}")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise Refused("the pickle holds an array of records, or a damaged dtype")
        self._order = state[1]

    def value(self) -> np.dtype:
        return np.dtype(self._order + self._code if self._order != "|" else self._code)


class _Array:
    """An array or scalar while it is read."""

    __slots__ = ("_value",)

    def __init__(self, value: Any = None) -> None:
        self._value = value

    def __setstate__(self, state: Any) -> None:
        if self._value is not None or not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Refused("the pickle holds a damaged array")
        shape, dtype, fortran, raw = state[-4:]  # before them a version
        self._value = _array(raw, dtype, shape, "F" if fortran else "C")

    def value(self) -> Any:
        if self._value is None:
            raise Refused("the pickle holds an array without content")
        return self._value


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Return a fresh array of just the bytes that there are."""
    if not (isinstance(raw, (bytes, bytearray)) and isinstance(dtype, _Dtype) and isinstance(shape, tuple)):
        raise Refused("the pickle holds a damaged array")
    if order not in ("C", "F") or not all(type(n) is int and n >= 0 for n in shape):
        raise Refused("the pickle holds a damaged array")
    kind = dtype.value()
    if prod(shape) * kind.itemsize != len(raw) or max(shape, default=0) > max(len(raw), 2**20):
        raise Refused(f"the pickle holds an array {shape!r:.60} of {kind} in {len(raw)} bytes")
    return np.frombuffer(raw, kind).reshape(shape, order=order).copy(order="K")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if not (isinstance(kind, _Global) and kind.name == "ndarray"):
        raise Refused("the pickle holds an array of a class of its own")
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    if order != "K":
        return _Array(_array(raw, dtype, shape, order))
    if not isinstance(axes, tuple) or not isinstance(shape, tuple) or sorted(axes) != list(range(len(shape))):
        raise Refused("the pickle holds a damaged array")
    return _Array(_array(raw, dtype, shape, "C").transpose(axes))


def _scalar(dtype: Any, raw: Any = None) -> _Array:
    return _Array(_array(raw, dtype, (1,), "C")[0])


def _ndarray(*args: Any) -> NoReturn:
    raise Refused("the pickle makes an array of nothing")


def _set(items: Any = ()) -> set[Any]:
    return set(items) if isinstance(items, (list, tuple)) else _odd("set")


def _bytes(text: Any = "", encoding: Any = "latin1", *, name: str = "bytes") -> bytes:
    """Protocol 2 has no bytes: it spells them, a character each."""
    if isinstance(text, (bytes, bytearray)) and encoding == "latin1":
        return bytes(text)
    return text.encode("latin1") if isinstance(text, str) and encoding in ("latin1", "latin-1") else _odd(name)


def _bytearray(*args: Any) -> bytearray:
    return bytearray(_bytes(*args, name="bytearray"))


def _ordered(*args: Any) -> OrderedDict[Any, Any]:
    return _odd("OrderedDict") if args else OrderedDict()


def _odd(name: str) -> NoReturn:
    raise Refused(f"the pickle makes a {name} of something odd")


MAKERS: dict[str, Callable[..., Any]] = {
    "_reconstruct": _reconstruct,
    "_frombuffer": _frombuffer,
    "scalar": _scalar,
    "ndarray": _ndarray,
    "dtype": _Dtype,
    "set": _set,
    "bytes": _bytes,
    "bytearray": _bytearray,
    "encode": _bytes,
    "OrderedDict": _ordered,
}


def _plain(value: Any, seen: dict[int, tuple[Any, Any]], depth: int) -> Any:
    """Return ``value`` with what stood in for arrays replaced; ``seen`` keeps what is held twice one object."""
    if depth > MAX_NESTING:
        raise Refused(f"the pickle nests containers deeper than {MAX_NESTING}, or one in itself")
    if isinstance(value, (_Array, _Dtype)):
        return value.value()
    if isinstance(value, _Global):
        raise Refused(f"the pickle holds {value.name} itself")
    if not isinstance(value, (dict, list, tuple, set)):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    made: Any = value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, KEYS):
                raise Refused(f"the pickle has a key of type {type(key).__name__}")
            value[key] = _plain(value[key], seen, depth + 1)
    elif isinstance(value, list):
        value[:] = [_plain(item, seen, depth + 1) for item in value]
    else:
        made = type(value)(_plain(item, seen, depth + 1) for item in value)
    seen[id(value)] = (value, made)  # the old one too: its id must not go to another
    return made
