"""Dataclasses as command-line arguments: an option for each field, explained by the comment beside it."""

import argparse
import ast
import inspect
import io
import textwrap
import tokenize
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from robopolicy.errors import UsageError

ON, OFF = "on", "off"  # of an optional part that has one member


@dataclass(frozen=True)
class Option:
    """One field of a dataclass, or of one that it holds, or the choice of such a one."""

    path: str  # "solver.steps"
    hint: Any  # type; for a choice the tuple of names
    default: Any  # MISSING if there is none
    help: str
    group: str  # the top-level field it belongs to; "" for a plain field


def options(cls: type, prefix: str = "") -> list[Option]:
    """Return the options of ``cls`` and of all that its fields can hold, in order.

    A field that holds one of several dataclasses, each with a ``kind``, is chosen by its kind; a field that holds a
    dataclass or None by ``on`` and ``off``. A name that several kinds share is listed once.
    """
    found: dict[str, Option] = {}
    hints, comments = typing.get_type_hints(cls), field_comments(cls)
    for field in fields(cls):
        path = prefix + field.name
        members = members_of(hints[field.name])
        if not members:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            help_ = comments.get(field.name, "")
            found[path] = Option(path, hints[field.name], default, help_, path.rpartition(".")[0].split(".")[0])
            continue
        group = path.split(".")[0]
        choices = choices_of(hints[field.name])
        if choices:
            found[path] = Option(path, choices, MISSING, _told(members), group)
        for kind, member in members.items():
            for option in options(member, path + "."):
                _merge(found, option, kind)
    return list(found.values())


def add_options(
    parser: argparse.ArgumentParser,
    cls: type,
    *,
    names: Mapping[str, str] | None = None,
    skip: Collection[str] = (),
    helps: Mapping[str, str] | None = None,
    defaults: bool = False,
    title: str = "",
    about: str = "",
) -> None:
    """Add an option for each field of ``cls``; only those that are given appear in the parsed namespace.

    Args:
        parser: gets an argument group for the plain fields and one for each field that holds dataclasses.
        cls: a dataclass.
        names: ``{path: option}`` where the option is not called as the field.
        skip: paths to leave out.
        helps: ``{path: help}``, default included, where it is not what the field's comment says.
        defaults: whether the help tells the default of each field.
        title: of the group of plain fields.
        about: its description.
    """
    groups: dict[str, Any] = {"": parser.add_argument_group(title, about or None)} if title else {"": parser}
    for option in options(cls):
        if option.path in skip:
            continue
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group.replace("_", " "))
        told = (helps or {}).get(option.path) or _help(option, defaults)
        _add(groups[option.group], option, (names or {}).get(option.path, option.path), told, _dest(cls))


def given(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """Return ``{path: value}`` of the options of ``cls`` that were on the command line."""
    prefix = _dest(cls)
    return {key.removeprefix(prefix): value for key, value in vars(args).items() if key.startswith(prefix)}


def changed(value: Any, changes: Mapping[str, Any], prefix: str = "", *, names: Mapping[str, str] | None = None) -> Any:
    """Return the dataclass ``value`` with ``changes`` {path: new value}; another kind starts from its own defaults.

    ``names``: {field: option} of ``value`` itself, where the option is not called as the field.

    Raises:
        UsageError: if a change is of a kind that is not chosen, or something it needs is missing.
    """
    start = {f.name: getattr(value, f.name) for f in fields(value)}
    return make(type(value), changes, prefix, start, names=names)


def make(
    cls: type,
    changes: Mapping[str, Any],
    prefix: str = "",
    start: Mapping[str, Any] | None = None,
    *,
    names: Mapping[str, str] | None = None,
) -> Any:
    """Return a ``cls`` of the values in ``start``, or else of its defaults, with ``changes``; raises as `changed`."""
    values = dict(start or {})
    hints = typing.get_type_hints(cls)
    known = {f.name for f in fields(cls)}
    for name in sorted({key.split(".")[0] for key in changes} - known):
        kind = getattr(cls, "kind", "")
        which = f"{prefix.rstrip('.')} {kind}".strip() or cls.__name__
        flags = (_flag(prefix + (names or {}).get(f.name, f.name)) for f in fields(cls))
        here = ", ".join(dict.fromkeys(flags))
        raise UsageError(f"{_flag(prefix + name)} says nothing to {which}, which has {here}")
    for name in known & {key.split(".")[0] for key in changes}:
        members = members_of(hints[name])
        within = {key.removeprefix(name + "."): v for key, v in changes.items() if key.startswith(name + ".")}
        if not members:
            values[name] = changes[name]
            continue
        kinds = choices_of(hints[name])
        held = _member(values.get(name), kinds, members, changes.get(name), within, prefix + name)
        values[name] = held
    lacking = [f.name for f in fields(cls) if f.name not in values and f.default is f.default_factory is MISSING]
    if lacking:
        raise UsageError(f"{_flag(prefix.rstrip('.'))} needs {' and '.join(_flag(prefix + n) for n in lacking)}")
    return cls(**values)


def late(parser: argparse.ArgumentParser, add: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the arguments of ``parser`` only once it is used: what they are read from may take a second to load.

    Underscores in the names of options are taken for hyphens.
    """
    parse = parser.parse_known_args
    pending = [add]

    def parse_known_args(args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        while pending:
            pending.pop()(parser)
        return parse([_hyphened(word) for word in args] if args is not None else None, namespace)

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign, assignment]


def members_of(hint: Any) -> dict[str, type]:
    """Return ``{kind: dataclass}`` of what a field may hold; its kind is "" where there is only one."""
    found = [member for member in _union(hint) if is_dataclass(member)]
    if len(found) == 1:
        return {"": found[0]}
    return {member.kind: member for member in found}


def choices_of(hint: Any) -> tuple[str, ...]:
    """Return the names that choose among `members_of`; none where there is nothing to choose."""
    optional = (ON, OFF) if type(None) in _union(hint) else ()
    kinds = tuple(kind for kind in members_of(hint) if kind)
    return (*kinds, *(optional[1:] if kinds else optional))


def field_comments(cls: type) -> dict[str, str]:
    """Return the comment beside each field of ``cls``, those it inherits included; none where there is no source."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        if is_dataclass(part):
            found |= _comments(part)
    return found


def _member(
    held: Any,
    choices: Sequence[str],
    members: Mapping[str, type],
    choice: str | None,
    within: dict[str, Any],
    path: str,
) -> Any:
    """Return what a field holds after it was chosen and changed."""
    if choice == OFF and OFF in choices:
        if within:
            raise UsageError(f"{_flag(path)} is off, so {_flag(path + '.' + next(iter(within)))} says nothing")
        return None
    kind = "" if choice in (ON, None) else choice
    if held is not None and kind in ("", getattr(held, "kind", "")):
        return changed(held, within, path + ".")
    return make(members[kind or ""], within, path + ".")


def _merge(found: dict[str, Option], option: Option, kind: str) -> None:
    """List ``option``, or add its explanation to that of another kind with the same name."""
    tagged = f"[{kind}] {option.help}" if kind else option.help
    before = found.get(option.path)
    if before is not None:
        same = "] " + option.help
        tagged = before.help.replace(same, f", {kind}{same}") if same in before.help else f"{before.help}; {tagged}"
    found[option.path] = Option(option.path, option.hint, option.default, tagged, option.group)


def _help(option: Option, defaults: bool) -> str:
    """Return the comment of a field for who reads no Python, with its default if that is wanted."""
    told = option.help.replace("``", "")
    if not defaults or option.default in (MISSING, None):
        return told
    return f"{told} (default {_switch(option.default) if isinstance(option.default, bool) else option.default})"


def _add(group: Any, option: Option, name: str, told: str, dest: str) -> None:
    told = told.replace("%", "%%")
    flags = [_flag(name)]
    kind = _kind(option.hint, name)
    if option.hint == (ON, OFF):
        kind["metavar"] = "{on,off}"
    elif isinstance(option.hint, tuple):  # --process.kind says what --process does
        flags.append(f"{flags[0]}.kind")
    elif flags[0].endswith(".name"):  # and --solver what --solver.name does
        flags.insert(0, flags[0].removesuffix(".name"))
        told = f"{', '.join(kind['choices'])}: {told}" if "choices" in kind else told
    if len(flags) > 1:
        kind["metavar"] = "NAME"
    elif _none_is_another(option):
        kind["type"] = _or_none(kind["type"])
    common: dict[str, Any] = {"dest": dest + option.path, "default": argparse.SUPPRESS, "help": told}
    if option.hint is bool:
        group.add_argument(*flags, action=argparse.BooleanOptionalAction, **common)
    else:
        group.add_argument(*flags, **kind, **common)


def _kind(hint: Any, name: str) -> dict[str, Any]:
    """Return what argparse wants to know of a type."""
    if isinstance(hint, tuple):
        return {"choices": hint}
    parts = [part for part in _union(hint) if part is not type(None)]
    part = next((p for p in parts if p is not int), parts[0])
    if typing.get_origin(part) is typing.Literal:
        return {"choices": typing.get_args(part)}
    if typing.get_origin(part) is tuple:
        inner = typing.get_args(part)[0]
        return {"nargs": "+", "type": inner, "metavar": "NAME" if inner is str else "N"}
    return {"type": part, "metavar": {int: "N", float: "X"}.get(part, name.split(".")[-1].upper())}


def _none_is_another(option: Option) -> bool:
    """Whether None has to be said in a word because a number is the default."""
    return type(None) in _union(option.hint) and isinstance(option.default, int | float)


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def number(text: str) -> Any:  # argparse tells its name
        return None if text.lower() == "none" else kind(text)

    return number


def _switch(value: bool) -> str:
    return ON if value else OFF


def _comments(cls: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    assignments = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return {node.target.id: comments[node.end_lineno] for node in assignments if node.end_lineno in comments}


def _told(members: Mapping[str, type]) -> str:
    """Say what each member is: in the words of its module, if each has its own, else in its own."""
    homes = {kind: inspect.getmodule(member) for kind, member in members.items()}
    own = len(set(homes.values())) == len(members) > 1
    lines = {kind: inspect.getdoc(homes[kind] if own else member) or "" for kind, member in members.items()}
    told = {kind: _lowered(text.partition("\n")[0].rstrip(".")) for kind, text in lines.items()}
    return "; ".join(f"{kind}: {text}" if kind else text for kind, text in told.items())


def _lowered(text: str) -> str:
    """Begin with a small letter, unless it is an acronym's."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _union(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _flag(path: str) -> str:
    return "--" + path.replace("_", "-")


def _dest(cls: type) -> str:
    return f"{cls.__name__}:"


def _hyphened(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word
