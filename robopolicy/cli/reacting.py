"""Options that say what a guarded robot does when its monitor speaks."""

import argparse
from typing import Any

from robopolicy.cli.arguments import positive
from robopolicy.errors import UsageError

NAMES = ("log", "slow", "hold", "retreat", "handover", "stop")  # `robopolicy.reactions.REACTIONS`, without numpy
LATE = ("hold", "log")
NO_OPERATOR = (
    "{option} handover gives the robot to an operator, and here there is none: robopolicy record --checkpoint C "
    "--monitor M --teleop DEVICE has one"
)


def add_reacting(parser: Any, *, default: str = "hold", late: bool = True) -> None:
    """Add the options to a parser, or to a group of one; ``late``: also those of verdicts that come too late."""
    parser.add_argument(
        "--on-alarm", choices=NAMES,
        help="log: only say so; slow: a quarter of the pace; hold; retreat: back the way it came, then hold; handover: "
        f"the operator's; stop: hold and end the episode (default {default})",
    )  # fmt: skip
    parser.add_argument(
        "--on-overrun", choices=NAMES, help="to an episode longer than any calibrated one (default: as to an alarm)"
    )
    if not late:
        return
    parser.add_argument(
        "--monitor-late", choices=LATE,
        help="to a verdict that comes too late: hold until one is in time, or only say so (default hold)",
    )  # fmt: skip
    parser.add_argument(
        "--monitor-deadline-ms", type=positive, metavar="MS",
        help="what a verdict may take where time is real (default: one control period)",
    )  # fmt: skip


def reactions_of(args: argparse.Namespace, *, operator: bool = False, otherwise: str = "hold") -> Any:
    """Return the `Reactions` that the arguments of `add_reacting` ask for.

    Args:
        args: also with ``monitor``.
        operator: whether somebody is there who could take over.
        otherwise: reaction to an alarm where nothing was asked for; with ``"log"`` a fault too is only said then.

    Raises:
        UsageError: if a reaction is asked for and there is no monitor, or an operator's and there is none.
    """
    given = {name: getattr(args, name, None) for name in ("on_alarm", "on_overrun", "monitor_late")}
    given["monitor_deadline_ms"] = getattr(args, "monitor_deadline_ms", None)
    asked = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if asked and args.monitor is None:
        raise UsageError(f"{asked[0]} says what a monitor's word does: add its --monitor")
    deadline_ms = given["monitor_deadline_ms"]
    if otherwise == "log" and {given["on_alarm"], given["on_overrun"]} <= {None, "log"}:
        from robopolicy.reactions import Reactions

        return Reactions.never()
    return reactions(
        given["on_alarm"] or otherwise, given["on_overrun"], given["monitor_late"] or "hold",
        None if deadline_ms is None else deadline_ms / 1e3, operator=operator,
    )  # fmt: skip


def reactions(
    on_alarm: str, on_overrun: str | None, on_late: str, deadline_s: float | None, *, operator: bool = False
) -> Any:
    """Return `Reactions`; raises UsageError if an operator is wanted and there is none."""
    from robopolicy.reactions import Reactions

    for option, name in (("--on-alarm", on_alarm), ("--on-overrun", on_overrun)):
        if name == "handover" and not operator:
            raise UsageError(NO_OPERATOR.format(option=option))
    return Reactions(on_alarm, on_overrun, on_late=on_late, deadline_s=deadline_s)


def reactions_told(reactions: Any) -> dict[str, str]:
    """Return what is done to which state, {alarm, overrun, fault: reaction}; nothing if it is never acted upon."""
    told = {state: reactions.to(state) for state in ("alarm", "overrun", "fault")}
    return told if set(told.values()) != {"log"} else {}
