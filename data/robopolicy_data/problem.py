"""One finding about a dataset."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One finding; an ``error`` means that data are missing or wrong, a ``warning`` that they look odd."""

    severity: Severity
    where: str  # "episode 12, obs/cam/front", or "" for the whole dataset
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}{': ' if self.where else ''}{self.message}"
