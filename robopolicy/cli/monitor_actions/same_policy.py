"""Rollouts and a monitor belong together only if they are of one policy, which drove alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopolicy.errors import SpecMismatch


def require_same_policy(rollouts: Path, folder: Path, monitor: Any) -> None:
    """Refuse rollouts of another policy than the one that ``monitor``, in ``folder``, guards.

    Raises:
        SpecMismatch: naming both.
        EvaluationError: if ``rollouts`` is not the folder of an evaluation.
    """
    from robopolicy.evaluation.outcomes import load_about
    from robopolicy.monitor.alike import require_same

    require_same(
        "policy", f"rollouts {rollouts} are of", load_about(rollouts).get("policy_sha", ""), f"monitor {folder} is of",
        monitor.provenance.policy_sha, "a monitor goes with the policy it guards, with the same solver and goal",
    )  # fmt: skip


def timing_of(about: Mapping[str, str]) -> str:
    """Return how plans came to the robot in rollouts, by what they say ``about`` themselves."""
    from robopolicy.monitor.alike import IN_THE_LOOP

    return about.get("timing", IN_THE_LOOP)


def require_one_world(abouts: Mapping[Path, Mapping[str, str]], why: str) -> tuple[str, str]:
    """Return world and timing of several rollouts, {folder: what they say of themselves}, that have the same.

    Raises:
        SpecMismatch: naming two that differ, both sides.
    """
    from robopolicy.monitor.alike import require_same

    first, *rest = abouts
    env, timing = abouts[first].get("env", ""), timing_of(abouts[first])
    for folder in rest:
        sides = f"rollouts {folder} are of", f"those of {first} of"
        require_same("world", sides[0], abouts[folder].get("env", ""), sides[1], env, why)
        require_same("plans made", sides[0], timing_of(abouts[folder]), sides[1], timing, why)
    return env, timing


def require_unanswered(rollouts: Path, about: Mapping[str, str]) -> None:
    """Refuse rollouts in which a monitor's alarms were answered by more than a line in the log.

    An episode that was held after an alarm fails: the successes that are left are those without one, of which a
    threshold would come too low; and its failure is the monitor's own, which must not count as one foreseen.

    Raises:
        SpecMismatch: naming the reactions.
    """
    said = dict(part.split(": ") for part in about.get("reactions", "").split(", ") if part)
    if any(said.get(state, "log") != "log" for state in ("alarm", "overrun")):
        raise SpecMismatch(
            f"rollouts {rollouts} were made with reactions to a monitor ({about['reactions']}): its alarms chose which "
            "episodes succeeded; make them without --on-alarm"
        )
