"""One line of a doctor's report, and how it is printed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MARKS = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "problem": ("FAIL", "red")}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    what: str
    level: Literal["ok", "note", "problem"]
    found: str
    remedy: str = ""


def report(findings: Iterable[Finding]) -> int:
    """Print findings as they come, remedies below them; return 1 if one is a problem, else 0."""
    from robopolicy.cli.progress import say

    wrong = False
    for finding in findings:
        wrong = wrong or finding.level == "problem"
        say(MARKS[finding.level], f" {finding.what:<11} {finding.found}")
        if finding.remedy:
            say(f"     {'':<11} ", (finding.remedy, "bold"))
    return int(wrong)
