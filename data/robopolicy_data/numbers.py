"""Episode numbers as people write them: ``3 5-8``."""

import re
from collections.abc import Iterable, Sequence

from robopolicy.errors import DatasetError, UsageError

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_numbers(words: Sequence[str]) -> list[int]:
    """Return the numbers of ``["3", "5-8"]``, ascending, each once; commas are as good as blanks.

    Raises:
        UsageError: naming the word that is neither a number nor a range.
    """
    found: set[int] = set()
    for word in " ".join(words).replace(",", " ").split():
        match = _RANGE.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise UsageError(f"{word!r} names no episodes; want numbers and ranges such as 3 5-8")
        found.update(range(first, last + 1))
    return sorted(found)


def numbers_in_words(numbers: Iterable[int]) -> str:
    """Return ``"3 5-8"`` of [3, 5, 6, 7, 8], ``"none"`` of nothing."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "none"


def require_episodes(asked: Iterable[int], there: Iterable[int], where: object) -> None:
    """Refuse episodes that do not exist.

    Raises:
        DatasetError: naming them and those that do.
    """
    there = set(there)
    if missing := set(asked) - there:
        raise DatasetError(f"{where} has no episode {numbers_in_words(missing)}; it has {numbers_in_words(there)}")
