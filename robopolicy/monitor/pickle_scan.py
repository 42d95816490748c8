"""What a pickle is going to do, found without doing it: which globals it names, how much memory it wants."""

import pickletools
from typing import Any, cast

CORE = tuple(f"{core}.{module}" for core in ("numpy.core", "numpy._core") for module in ("multiarray", "numeric"))
PLAIN = frozenset(
    [(core, name) for core in CORE for name in ("_reconstruct", "scalar", "_frombuffer")]
    + [("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict")]
    + [(builtins, name) for builtins in ("builtins", "__builtin__") for name in ("set", "bytes", "bytearray")]
)
TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
WORDS = """
    PROTO FRAME STOP MARK MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET NONE NEWTRUE NEWFALSE BININT BININT1 BININT2
    LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET APPEND APPENDS SETITEM SETITEMS ADDITEMS
    GLOBAL STACK_GLOBAL REDUCE BUILD
"""
OPCODES = TUPLES.union(WORDS.split())
MAX_TUPLES = 64  # one in another; to hash a million of them overflows the stack of the interpreter

Item = tuple[int, str | None]  # of the unpickler's stack: tuples in one another, and what it says if it is text


class Refused(Exception):
    """A pickle that is not plain data; says what it would do."""


def scan(data: bytes) -> None:
    """Walk through the opcodes of a pickle as its stack would go, making nothing.

    Lengths that the file does not have, places in the memo far beyond what is in it, and tuples nested without end
    are found before an unpickler makes room for them.

    Raises:
        Refused: if it names a global that is not in ``PLAIN``, or uses what plain data has no use for.
        ValueError: if it is no pickle or ends early.
        LookupError: if it takes from the stack or memo what is not there.
    """
    stack: list[Item | None] = []  # None is a mark
    memo: dict[int, Item | None] = {}
    for opcode, found, position in pickletools.genops(data):
        name, argument = opcode.name, cast(Any, found)
        if name in ("GLOBAL", "INST"):
            _check(*str(argument).split(" ", 1))
        if name not in OPCODES:
            raise Refused(f"the pickle uses {name}")
        if name == "FRAME" and int(argument) > len(data):
            raise ValueError(f"a frame of {argument} bytes in {len(data)}")
        if name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            place = len(memo) if name == "MEMOIZE" else int(argument)
            if place > max(255, position or 0):
                raise Refused(f"the pickle wants a memo of {place} places")
            memo[place] = stack[-1]
            continue
        if name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
            continue
        taken = _take(stack, opcode)
        if name == "STACK_GLOBAL":
            _check(*(item[1] or "(a name that is no text)" for item in taken))
        depth = 1 + max((item[0] for item in taken), default=0) if name in TUPLES else 0
        if depth > MAX_TUPLES:
            raise Refused(f"the pickle nests tuples deeper than {MAX_TUPLES}")
        text = argument if isinstance(argument, str) and "UNICODE" in name else None
        for kind in opcode.stack_after:
            stack.append(None if kind is pickletools.markobject else (depth, text))


def _take(stack: list[Item | None], opcode: pickletools.OpcodeInfo) -> list[Item]:
    """Remove what ``opcode`` takes from the stack and return it, lowest first, without the mark."""
    wanted = opcode.stack_before
    count = len(wanted)
    taken: list[Item] = []
    if pickletools.markobject in wanted:
        while (item := stack.pop()) is not None:
            taken.append(item)
        count = wanted.index(pickletools.markobject)
    for _ in range(count):
        item = stack.pop()
        if item is None:
            raise IndexError("a mark where an object should be")
        taken.append(item)
    return taken[::-1]


def _check(module: str, name: str = "") -> None:
    if (module, name) not in PLAIN:
        raise Refused(f"the pickle asks for {module}.{name}")
