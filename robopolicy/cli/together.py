"""How many environments of a process plan together, and whether they may."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.errors import UsageError


def add_together(parser: Any) -> None:
    """Add the options that say how plans are made."""
    parser.add_argument(
        "--envs", type=at_least(1), metavar="N",
        help="episodes at once in each process, whose policy plans for all of them in one pass (default 32, 4 of a "
        "policy that sees pictures)",
    )  # fmt: skip
    parser.add_argument(
        "--exact",
        action="store_true",
        help="make each plan alone, to the bit as on a robot; otherwise in batches of one shape, so rounded otherwise, "
        "though the same whatever --jobs and --envs",
    )


@dataclass(frozen=True)
class Together:
    """Episodes at once in a process, and plans of a batch: see `robopolicy.evaluation.batched`."""

    envs: int = 1
    rows: int | None = None  # None: every plan is made alone

    @classmethod
    def of(cls, checkpoint: str | Path, envs: int | None, *, exact: bool = False, realtime: bool = False) -> "Together":
        """Return what was asked for; by default as many at once as is fastest.

        Raises:
            UsageError: if episodes are to share a process at the pace of the wall clock.
        """
        from robopolicy.evaluation.batched import envs_of, rows_of
        from robopolicy.training.checkpoint import read_spec

        if realtime:
            if envs is not None and envs > 1:
                raise UsageError(f"--envs {envs}: with --realtime every episode has a process of its own; want 1")
            return ALONE
        spec = read_spec(checkpoint)
        return cls(envs or 1) if exact else cls(envs or envs_of(spec), rows_of(spec))


ALONE = Together()
