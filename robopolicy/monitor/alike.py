"""What has to be of one policy, one world and one timing to belong together; if it is not, both sides are named."""

from typing import TYPE_CHECKING

from robopolicy.errors import SpecMismatch

if TYPE_CHECKING:
    from robopolicy.monitor.layout import ActionLayout
    from robopolicy.monitor.runtime import ConformalMonitor

IN_THE_LOOP = "in the loop"  # how plans come, where nothing else is said: the loop waits for each of them


def require_same(what: str, one: str, its: str, other: str, others: str, why: str, *, known: bool = False) -> None:
    """Refuse two sides that differ: ``{one} policy {its}, {other} {others}; {why}``.

    Args:
        what: is compared, such as ``"policy"``.
        one: of the sides, with its verb: ``"rollouts R are of"``.
        its: what it has; a long hash is cut short in the message.
        other: of the sides, with its verb.
        others: what that has.
        why: they must be the same, or what to do.
        known: neither may be unnamed.

    Raises:
        SpecMismatch: naming both.
    """
    if its != others or (known and not its):
        raise SpecMismatch(f"{one} {what} {_named(its)}, {other} {_named(others)}; {why}")


def require_fit(
    monitor: "ConformalMonitor",
    name: str,
    *,
    policy_sha: str | None = None,
    embedding_dim: int | None = None,
    layout: "ActionLayout | None" = None,
    timing: str | None = None,
) -> None:
    """Refuse a monitor that was calibrated on something else than it is to guard; None does not compare.

    Args:
        monitor: in question.
        name: its folder, for the message.
        policy_sha: of the policy to be guarded.
        embedding_dim: of the policy to be guarded.
        layout: of its actions, with the time between two rows.
        timing: how its plans come to the robot, in words: ``IN_THE_LOOP``, or as `Timing.words` says.

    Raises:
        SpecMismatch: naming both sides.
    """
    was = f"monitor {name} was calibrated on"
    if policy_sha is not None:
        require_same("policy", was, monitor.provenance.policy_sha, "this policy is", policy_sha, "calibrate anew")
    if embedding_dim is not None and embedding_dim != monitor.shape.embedding:
        raise SpecMismatch(f"{was} embeddings of {monitor.shape.embedding}, this policy gives {embedding_dim}")
    if layout is not None and layout != monitor.layout:
        raise SpecMismatch(f"{was} actions {monitor.layout}, this policy gives {layout}")
    if timing is not None:
        require_same(
            "plans made", was, monitor.provenance.timing, "here they are made", timing,
            "its promise is of the former: run like that, or calibrate on rollouts made like here (deploy --rollouts)",
        )  # fmt: skip


def _named(value: str) -> str:
    long = len(value) == 64 and set(value) <= set("0123456789abcdef")
    return (value[:12] if long else value) or "(unnamed)"
