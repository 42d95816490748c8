"""What can be set of a score, by name: read off its constructor, so that a command line can say it too."""

import inspect
import math
from collections.abc import Sequence
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from robopolicy.errors import MonitorError
from robopolicy.monitor.scores import score_class

NOT_SET = ("self", "layout", "seed")  # of the policy, and of the whole monitor
SWITCH = {"true": True, "on": True, "false": False, "off": False}


def settings_of(name: str) -> dict[str, Any]:
    """Return what can be set of the score ``name``, {setting: type}, those of its training last.

    Raises:
        MonitorError: if there is no such score; those there are are named.
    """
    make: Any = score_class(name).__init__
    hints, found = get_type_hints(make), {}
    for one in inspect.signature(make).parameters.values():
        if one.kind is inspect.Parameter.VAR_KEYWORD:  # entries of the training
            from robopolicy.monitor.scores.learning import Schedule

            found |= get_type_hints(Schedule)
        elif one.name not in NOT_SET:
            found[one.name] = hints[one.name]
    return found


def read_setting(name: str, setting: str, text: str) -> Any:
    """Return the value that ``text`` is for a ``setting`` of the score ``name``: ``true``, ``64,128``, ``none``.

    Raises:
        MonitorError: if there is no such score or setting, those there are are named; or if the text is no such value.
    """
    found = settings_of(name)
    if setting not in found:
        valid = ", ".join(f"{one} ({_told(hint)})" for one, hint in found.items())
        raise MonitorError(f"score {name} has no setting {setting!r}; valid: {valid or '(nothing can be set)'}")
    try:
        return _read(found[setting], text)
    except ValueError:
        raise MonitorError(f"{name}.{setting} is {text!r}; want {_told(found[setting])}") from None


def _read(hint: Any, text: str) -> Any:
    """Return a text as a type wants it; ValueError if it is none of it."""
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if type(None) in options and text == "none":
        return None
    (kind,) = [one for one in options if one is not type(None)]
    if kind is bool:
        if text not in SWITCH:
            raise ValueError
        return SWITCH[text]
    if get_origin(kind) is Sequence:
        (element,) = get_args(kind)
        return tuple(element(part) for part in text.split(","))
    if kind is float and not math.isfinite(float(text)):
        raise ValueError
    return kind(text)


def _told(hint: Any) -> str:
    """Return in words what a type wants."""
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", type(None): "none"}
    return " or ".join(words.get(one, "whole numbers with commas between") for one in options)
