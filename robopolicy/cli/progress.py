"""Progress bars with rates and an ETA; plain lines where there is no terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_EVERY_S = 15.0  # where there is no terminal to redraw


class Bar:
    """One bar: ``advance`` it, and say what is worth knowing beside it."""

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task
        self._told_s = time.monotonic()

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Move on by ``steps``."""
        self._progress.update(self._task, advance=steps, note=note)
        self._tell()

    def at(self, completed: float, total: float | None = None, note: str = "") -> None:
        """Move to ``completed`` of ``total``."""
        changes = {"completed": completed, "note": note} | ({} if total is None else {"total": total})
        self._progress.update(self._task, **changes)
        self._tell()

    def _tell(self) -> None:
        console = self._progress.console
        if not console.is_terminal and time.monotonic() - self._told_s > LINE_EVERY_S:
            console.print(self._progress.get_renderable())
            self._told_s = time.monotonic()


@contextmanager
def bar(label: str, total: float | None, unit: str = "it") -> Iterator[Bar]:
    """Show a bar while the block runs: count, rate in ``unit`` per second, elapsed time, ETA and a note."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f} {unit}/s", style="cyan")

    columns = (
        TextColumn("{task.description:<10}", "bold", markup=False), BarColumn(bar_width=16), MofNCompleteColumn(),
        Rate(), TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    for column in columns:
        column.get_table_column().no_wrap = True
    with Progress(*columns, console=console()) as progress:
        yield Bar(progress, progress.add_task(label, total=total, note=""))


def console() -> Any:
    """Return the console that bars and messages share."""
    from rich.console import Console

    plain = not sys.stderr.isatty()  # a log file has no width of its own
    return Console(stderr=True, highlight=False, width=140 if plain else None)


def say(*parts: str | tuple[str, str]) -> None:
    """Print one line of result.

    Args:
        parts: texts, printed as they are (a path may hold brackets), or pairs of a text and its rich style.
    """
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False, soft_wrap=True).print(Text.assemble(*parts))
