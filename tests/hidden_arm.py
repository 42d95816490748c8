"""An arm whose parameters the twin does not know, moved by MuJoCo's own stepping with its own delayed actuators."""

import mujoco
import numpy as np

from sim_envs.arm import HOME, JOINTS
from sim_envs.excitation import multi_sine
from sim_envs.parameters import JointParameters, Parameters, apply, read_model
from sim_envs.sysid_arm import Motion, arm_spec

NOISE_RAD = 1e-4


def hidden_parameters(rng: np.random.Generator, delay_s: float = 0.024) -> Parameters:
    """Gains off by up to 40 %, armature by a half, dry friction and damping where the twin has none or 1."""
    nominal = read_model(arm_spec().compile(), JOINTS)
    joints = {}
    for name, joint in nominal.joints.items():
        strong = joint.kp / 3000
        joints[name] = JointParameters(
            kp=joint.kp * rng.uniform(0.6, 0.95),
            kv=joint.kv * rng.uniform(0.7, 1.4),
            damping=joint.damping * rng.uniform(1.0, 4.0),
            armature=joint.armature * rng.uniform(1.3, 2.5),
            frictionloss=strong * rng.uniform(0.8, 2.5),
        )
    return Parameters(joints, delay_s)


def excitation(rng: np.random.Generator, duration_s: float, rate_hz: float) -> np.ndarray:
    """Joint targets (K, 7) rad about home: slow and quick sines, from rest to rest."""
    return multi_sine(np.asarray(HOME), rng, duration_s=duration_s, rate_hz=rate_hz)


def record(
    truth: Parameters, rng: np.random.Generator, duration_s: float, *, rate_hz: float = 100.0, name: str = "motion"
) -> Motion:
    """Move the hidden arm from rest at home and measure its angles at ``rate_hz`` with noise."""
    spec = arm_spec()
    for actuator in spec.actuators:
        # Half a step less than whole steps: MuJoCo takes the newest sample that is old enough, and 0.024 - 12 * 0.002
        # is sometimes a little more than nothing.
        actuator.delay = truth.delay_s - spec.option.timestep / 2
        actuator.nsample = round(truth.delay_s / spec.option.timestep) + 1
    model = spec.compile()
    apply(truth, model)
    data = mujoco.MjData(model)
    data.qpos[:7] = HOME
    data.ctrl[:7] = HOME
    for servo in range(model.nu):
        history = np.arange(-int(model.actuator_history[servo, 0]), 0) * model.opt.timestep
        mujoco.mj_initCtrlHistory(model, data, servo, history, np.full(len(history), data.ctrl[servo]))
    targets = excitation(rng, duration_s, rate_hz)
    substeps = round(1 / rate_hz / model.opt.timestep)
    q = []
    for target in targets:
        q.append(data.qpos[:7].copy())
        data.ctrl[:7] = target
        mujoco.mj_step(model, data, substeps)
    times = np.arange(len(targets)) / rate_hz
    return Motion(
        name, times, np.array(q) + NOISE_RAD * rng.normal(size=(len(q), 7)), times, targets, held=np.array(HOME)
    )
