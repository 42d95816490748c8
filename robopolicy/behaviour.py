"""What kind of success or failure an episode is, asked of any world: worlds that say nothing of it have none."""

from typing import Any

from robopolicy.errors import ContractError


def modes_of(world: Any) -> tuple[str, ...]:
    """Return the behaviours by which an episode of ``world`` can succeed; () if it enumerates none."""
    return tuple(getattr(world, "modes", ()))


def mode_of(world: Any) -> str | None:
    """Return which of its modes the episode so far is; None while that is not decided, or if it has none.

    Raises:
        ContractError: if the world names a mode that it does not enumerate.
    """
    ask = getattr(world, "mode", None)
    mode: str | None = None if ask is None else ask()
    if mode is not None and mode not in modes_of(world):
        known = ", ".join(modes_of(world)) or "none"
        raise ContractError(f"{type(world).__name__} is in mode {mode!r}; it enumerates {known}")
    return mode


def failure_of(world: Any) -> str:
    """Return a slug of what has gone wrong and is so now, such as ``"dropped"``; "" if nothing has."""
    ask = getattr(world, "failure", None)
    return "" if ask is None else str(ask())
