"""What a twin cannot know of an arm from drawings: friction, damping, gains, delay; as a file, and onto a model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from robopolicy.errors import ConfigError, ContractError, UnknownName

FORMAT = "robopolicy joint parameters 1"


@dataclass(frozen=True)
class JointParameters:
    """Of one joint and the position servo that drives it."""

    kp: float  # N m / rad
    kv: float  # N m s / rad, of the servo
    damping: float  # N m s / rad, of the joint
    armature: float  # kg m^2, of the rotor as the joint feels it
    frictionloss: float  # N m, dry friction

    def __post_init__(self) -> None:
        for key in (f.name for f in fields(self)):
            value = getattr(self, key)
            if not (isinstance(value, int | float) and np.isfinite(value) and value >= 0):
                raise ContractError(f"{key} is {value!r}; want a finite number from 0")
        if self.kp == 0:
            raise ContractError("kp is 0; want it above 0: a servo without it holds nothing")


@dataclass(frozen=True)
class Parameters:
    """Of an arm: its joints by name, and how late what it is sent shows in what it measures."""

    joints: Mapping[str, JointParameters]
    delay_s: float = 0.0  # from a command's due time to its force, plus how old a measurement is: only their sum shows
    about: Mapping[str, Any] = field(default_factory=dict)  # where they come from

    def __post_init__(self) -> None:
        if not (isinstance(self.delay_s, int | float) and np.isfinite(self.delay_s) and self.delay_s >= 0):
            raise ContractError(f"delay_s is {self.delay_s!r}; want seconds, finite, from 0")


def read_model(model: mujoco.MjModel, joints: Sequence[str]) -> Parameters:
    """Return what ``model`` has for the named joints; no delay.

    Raises:
        UnknownName: if the model has no such joint.
        ContractError: if a joint is not driven by one position actuator of gear 1.
    """
    found = {}
    for name in joints:
        dof, servo = _parts(model, name)
        found[name] = JointParameters(
            kp=float(model.actuator_gainprm[servo, 0]),
            kv=float(-model.actuator_biasprm[servo, 2]),
            damping=float(np.ravel(model.dof_damping[dof])[0]),
            armature=float(model.dof_armature[dof]),
            frictionloss=float(model.dof_frictionloss[dof]),
        )
    return Parameters(found)


def apply(parameters: Parameters, model: mujoco.MjModel) -> None:
    """Write the joints' parameters into a compiled ``model``; the delay is the business of whoever commands it.

    Raises:
        UnknownName, ContractError: as `read_model`; nothing is written then.
    """
    parts = {name: _parts(model, name) for name in parameters.joints}
    for name, joint in parameters.joints.items():
        dof, servo = parts[name]
        model.dof_damping[dof] = joint.damping
        model.dof_armature[dof] = joint.armature
        model.dof_frictionloss[dof] = joint.frictionloss
        model.actuator_gainprm[servo, 0] = joint.kp
        model.actuator_biasprm[servo, 1:3] = -joint.kp, -joint.kv


def save(parameters: Parameters, path: Path | str) -> None:
    """Write JSON."""
    data = {"format": FORMAT, "delay_s": parameters.delay_s, "about": dict(parameters.about)}
    data["joints"] = {name: asdict(joint) for name, joint in parameters.joints.items()}
    Path(path).write_text(json.dumps(data, indent=1) + "\n")


def load(path: Path | str) -> Parameters:
    """Read what `save`, or ``robopolicy twin identify``, wrote.

    Raises:
        ConfigError: naming the file and what is wrong with it.
    """
    want = "want a file of `robopolicy twin identify`"
    try:
        data = json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {want}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} is no JSON ({error}); {want}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ConfigError(f"{path}: its format is not {FORMAT!r}; {want}")
    try:
        joints = {name: JointParameters(**joint) for name, joint in data["joints"].items()}
        return Parameters(joints, data["delay_s"], data.get("about", {}))
    except (KeyError, TypeError, AttributeError, ContractError) as error:
        raise ConfigError(f"{path}: {error}; {want}") from error


def _parts(model: mujoco.MjModel, name: str) -> tuple[int, int]:
    joint = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT.value, name)
    if joint < 0:
        raise UnknownName("joint", name, [model.joint(i).name for i in range(model.njnt)])
    drives = (model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT.value) & (model.actuator_trnid[:, 0] == joint)
    (servos,) = np.nonzero(drives)
    position = len(servos) == 1 and model.actuator_gainprm[servos[0], 0] == -model.actuator_biasprm[servos[0], 1] != 0
    if not position or model.actuator_gear[servos[0], 0] != 1:
        raise ContractError(f"joint {name} is not driven by one position actuator of gear 1; nothing to identify there")
    return int(model.jnt_dofadr[joint]), int(servos[0])
