"""robosuite 1.5.2 on the MuJoCo that everything else runs on: what changed since is told to its modules, not to MuJoCo.

Its requirement is ``mujoco>=3.3``, but of what it uses ``mj_fullM`` has another signature since 3.10, ``MjData.qM`` is
gone since 3.11, and members of ``mjtJoint`` do not equal numpy integers from their side since 3.12.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from robopolicy.errors import ContractError, MissingExtra

VERSION = "1.5.2"  # the one that this was written for and is tested with
JOINTS = ("mjJNT_FREE", "mjJNT_BALL", "mjJNT_SLIDE", "mjJNT_HINGE")


def load_robosuite() -> Any:
    """Import robosuite, make it fit this MuJoCo, and return it; nothing global is changed for anyone else.

    Raises:
        MissingExtra: if it is not installed.
        ContractError: if it is another version, which has not what is to be changed.
    """
    try:
        with undisturbed():
            import robosuite
    except ImportError as error:
        raise MissingExtra(
            "robosuite" if error.name == "robosuite" else f"{error.name} (for robosuite)", "robosuite"
        ) from error
    _fit()
    return robosuite


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep robosuite's import and construction from choosing a GL backend for everyone, and from logging advice."""
    before, logger = os.environ.get("MUJOCO_GL"), logging.getLogger("robosuite_logs")
    logger.addFilter(_is_error)
    try:
        yield
    finally:
        logger.removeFilter(_is_error)
        if before is None:
            os.environ.pop("MUJOCO_GL", None)
        else:
            os.environ["MUJOCO_GL"] = before


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _fit() -> None:
    """Give the two modules that need it a MuJoCo as they know it: theirs alone, and only once."""
    import mujoco
    from robosuite.controllers.parts import controller
    from robosuite.utils import binding_utils

    if isinstance(binding_utils.mujoco, SimpleNamespace):
        return
    if controller.mujoco is not mujoco or binding_utils.mujoco is not mujoco or hasattr(binding_utils.MjData, "qM"):
        raise ContractError(
            f"this robosuite is not {VERSION}; pip install 'robopolicy[robosuite]' has the one that fits"
        )
    joints = SimpleNamespace(**{name: int(getattr(mujoco.mjtJoint, name)) for name in JOINTS})
    binding_utils.mujoco = _copied(mujoco, mjtJoint=joints)
    binding_utils.MjData.qM = property(lambda data: data._data)  # what the next line hands to mj_fullM
    controller.mujoco = _copied(mujoco, mj_fullM=lambda model, full, data: mujoco.mj_fullM(model, data, full))


def _copied(module: Any, **changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**{name: getattr(module, name) for name in dir(module)}, **changes})
