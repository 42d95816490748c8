"""One command for the gripper from what several views say of the grasp."""

import numpy as np

from robopolicy.errors import ContractError


def hold_gripper(
    grasp: np.ndarray, commanded: np.ndarray | float, *, closes_above: float = 0.5, opens_below: float = 0.5
) -> np.ndarray:
    """Return commands (..., H), 0 closed and 1 open: changed only where all views agree, else as they were.

    Args:
        grasp: (..., V, H), 1 closed and 0 open; one that is not finite says neither.
        commanded: what was commanded last, 0 closed to 1 open, (...) or one number.
        closes_above: a view says closed above this.
        opens_below: a view says open below this.

    Raises:
        ContractError: if the thresholds cross, there is no view, or the last command is not from 0 to 1.
    """
    grasp = np.asarray(grasp, np.float64)
    command = np.broadcast_to(np.asarray(commanded, np.float64), grasp.shape[:-2])
    if grasp.ndim < 2 or grasp.shape[-2] < 1:
        raise ContractError(f"gripper: grasp is {grasp.shape}; want (..., V, H)")
    if not opens_below <= closes_above:
        raise ContractError(f"gripper: opens below {opens_below}, closes above {closes_above}; want them not to cross")
    if not ((command >= 0) & (command <= 1)).all():
        raise ContractError("gripper: the last command wants to be from 0 closed to 1 open")
    closes: np.ndarray = np.all(grasp > closes_above, axis=-2)
    opens: np.ndarray = np.all(grasp < opens_below, axis=-2)
    commands = np.empty(closes.shape)
    for step in range(grasp.shape[-1]):
        command = np.where(opens[..., step], 1.0, np.where(closes[..., step], 0.0, command))
        commands[..., step] = command
    return commands
