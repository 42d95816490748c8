"""Keys of a YAML file as parameters: every topic, joint, rate and limit can be said otherwise without another file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from robopolicy.errors import ContractError, RobopolicyError
from robopolicy.settings import mapping, read_settings

Read = Callable[[Path], Any]


def leaves(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {dotted key: value} of nested mappings; what no ROS parameter can hold, null and empty lists, is left out.

    Numbers of a list are all float if one of them is, as in a parameter of ROS.
    """
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= leaves(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(one, float) for one in value):
            found[name] = [float(one) for one in value]
        elif value is not None and value != []:
            found[name] = value
    return found


def merged(data: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings with the values of dotted keys in them.

    Raises:
        ContractError: if a key leads through something that is no mapping.
    """
    made = deepcopy(dict(data))
    for name, value in told.items():
        *path, last = name.split(".")
        inner: Any = made
        for key in path:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else None
            if not isinstance(inner, dict):
                raise ContractError(f"{name}: {key!r} has no keys of its own")
        inner[last] = value
    return made


def raw(path: Path | str, what: str) -> dict[str, Any]:
    """Return keys and values of a YAML file as they are; raises as `read_settings`."""
    found: dict[str, Any] = read_settings(path, lambda data: mapping(data, "the file"), what)
    return found


@contextmanager
def said_otherwise(path: Path | str | None, told: Mapping[str, Any], what: str) -> Iterator[Path | None]:
    """Yield the path of a file as it would be with ``told`` in it: itself if nothing was told, else one that is lent.

    Args:
        path: of the file; None is one without a key.
        told: {dotted key: value}.
        what: the file is, for messages.

    Raises:
        RobopolicyError: what the block raises of the lent file, by the name of the file itself.
    """
    if not told:
        yield None if path is None else Path(path)
        return
    made = merged({} if path is None else raw(path, what), told)
    if path is not None and isinstance(made.get("mjcf"), str):
        made["mjcf"] = str((Path(path).parent / made["mjcf"]).resolve())  # seen from its own folder
    from ruamel.yaml import YAML

    with TemporaryDirectory() as folder:
        lent = Path(folder) / ("parameters.yaml" if path is None else Path(path).name)
        with lent.open("w") as file:
            YAML(typ="safe", pure=True).dump(made, file)
        try:
            yield lent
        except RobopolicyError as error:
            where = f"{path or 'the parameters'}, {', '.join(sorted(told))} said otherwise"
            raise type(error)(str(error).replace(str(lent), where)) from error
