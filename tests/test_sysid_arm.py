"""Identification of arms: clocks that agree, commands that are replayed as the twin plays them, a hidden arm found."""

import sys
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hidden_arm import NOISE_RAD, hidden_parameters, record

from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, UnknownName
from sim_envs.arm import HOME, JOINTS
from sim_envs.excitation import multi_sine
from sim_envs.parameters import JointParameters, Parameters, apply, read_model
from sim_envs.sysid_arm import Motion, Rollouts, arm_spec, held_commands, identify
from sim_envs.sysid_drive import driven
from sim_envs.sysid_report import reported
from sim_envs.tasks import make_task
from sim_envs.twin import Twin


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def test_the_simulation_and_mujocos_own_stepping_agree_to_the_noise():
    """Rollouts with commands shifted here, against `mj_step` with MuJoCo's delayed actuators: a step off is seen."""
    rng = np.random.default_rng(3)
    truth = hidden_parameters(rng)
    rollouts = Rollouts(arm_spec().compile(), [record(truth, rng, 4.0)], JOINTS)
    late = replace(truth, delay_s=truth.delay_s + 0.002)
    right, wrong, nominal = rollouts.residuals([truth, late, read_model(arm_spec().compile(), JOINTS)]).T
    assert rms(right) == pytest.approx(NOISE_RAD, rel=0.05)
    assert rms(wrong) > 3 * NOISE_RAD, "one step of 2 ms"
    assert rms(nominal) > 20 * NOISE_RAD
    assert len(rollouts.blocks) == len(right)


@pytest.mark.parametrize("kind", ["joint", "tool_pose"])
def test_recorded_commands_move_the_arm_as_the_twin_did(kind):
    clock = SimClock()
    twin = Twin(make_task("lift"), clock, cameras=(), rate_hz=50.0, action=kind)
    twin.reset(4)
    hold = twin.stop().astype(float)
    moving = 7 if kind == "joint" else 3
    limits = {} if kind == "joint" else {"reach": 0.05, "max_speed": 0.3, "max_acceleration": 3.0}  # m here
    wave = multi_sine(hold[:moving], np.random.default_rng(0), duration_s=3.0, rate_hz=50.0, **limits)
    times, q, sent = [], [], []
    for row in wave:
        seen = twin.read()
        times.append(seen.stamp_ns / 1e9)
        q.append(seen.state["q"])
        sent.append(twin.command(np.concatenate([row, hold[moving:]]), clock.now_ns()))
        clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
    model, times, q = arm_spec().compile(), np.array(times), np.array(q, float)
    due, targets = driven(model, kind, q[0], 0.0, times[-1], times, np.array(sent, float))
    rollouts = Rollouts(model, [Motion("m", times, q, due, targets)], JOINTS)
    (gap,) = rollouts.residuals([read_model(model, JOINTS)]).T
    assert np.ptp(q, axis=0).max() > 0.05, "it moved"
    assert rms(gap) < 2e-5, "float32 and the fingers' place are all that differs"


def test_commands_of_another_kind():
    with pytest.raises(UnknownName, match="'vector'; valid: joint, tool_pose"):
        driven(arm_spec().compile(), "vector", np.array(HOME), 0.0, 1.0, np.zeros(1), np.zeros((1, 2)))


def test_a_delayed_command_is_its_mean_over_each_step():
    due = np.array([0.01, 0.05, 0.0833])
    motion = Motion("m", np.array([0.0, 0.2]), np.zeros((2, 1)), due, np.array([[1.0], [-2.0], [4.0]]))
    for delay in (0.0, 0.0137, 0.05):
        fine = (np.arange(200_000) + 0.5) * 1e-6
        row = np.searchsorted(due + delay, fine, side="right") - 1
        truth = np.where(row < 0, 0.0, motion.commands[np.maximum(row, 0), 0]).reshape(100, -1).mean(axis=1)
        assert held_commands(motion, 100, 0.002, delay)[:, 0] == pytest.approx(truth, abs=1e-3)


def two_joints() -> mujoco.MjModel:
    """An arm that is not ours: two hinges, two rods, no gravity."""
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.002
    spec.option.gravity = [0, 0, 0]
    body = spec.worldbody
    for name in ("shoulder", "elbow"):
        body = body.add_body(pos=[0.4 if name == "elbow" else 0, 0, 0])
        body.add_joint(name=name, axis=[0, 0, 1], damping=[0.5, 0, 0])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[0, 0, 0, 0.4, 0, 0], size=[0.03, 0, 0], mass=2.0)
        spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT).set_to_position(kp=200, kv=12)
    return spec.compile()


def move(truth: Parameters, rng: np.random.Generator, seconds: float, name: str) -> Motion:
    model = two_joints()
    apply(truth, model)
    data = mujoco.MjData(model)
    targets = multi_sine(np.zeros(2), rng, duration_s=seconds, rate_hz=100.0)
    queue = [np.zeros(2)] * round(truth.delay_s / 0.002)
    q = []
    for target in targets:
        q.append(data.qpos.copy())
        for _ in range(5):
            queue.append(target)
            data.ctrl[:] = queue.pop(0)
            mujoco.mj_step(model, data)
    times = 7.0 + np.arange(len(targets)) / 100
    return Motion(name, times, np.array(q) + NOISE_RAD * rng.normal(size=(len(q), 2)), times, targets)


def test_any_arm_with_position_servos():
    rng = np.random.default_rng(0)
    truth = Parameters(
        {
            "shoulder": JointParameters(150.0, 14.0, 0.5, 0.12, 0.6),
            "elbow": JointParameters(230.0, 9.0, 0.5, 0.05, 0.3),
        },
        delay_s=0.016,
    )
    motions = [move(truth, rng, 4.0, f"motion {i}") for i in range(3)]
    names = ("shoulder", "elbow")
    found = identify(two_joints(), motions[:2], motions[2:], joints=names, max_iters=12)
    assert found.ratio > 20
    assert rms(found.after) < 1.1 * NOISE_RAD
    assert found.held_out == ("motion 2",)
    assert found.parameters.delay_s == pytest.approx(0.016, abs=3e-4)
    by_name = {estimate.name: estimate for estimate in found.fit.estimates}
    for name in names:
        joint, true = found.parameters.joints[name], truth.joints[name]
        assert joint.frictionloss == pytest.approx(true.frictionloss, rel=0.1)
        assert joint.kp == pytest.approx(true.kp, rel=0.1)
        assert by_name[f"{name} damping"].status == "kept nominal", "a servo's damping and a joint's are one number"
        assert joint.kv + joint.damping == pytest.approx(true.kv + true.damping, rel=0.1)
    assert found.useful
    assert not replace(found, after=found.before / 1.05).useful, "it explains nothing that it was not fitted to"
    tiny = replace(found, before=np.full(2, 4e-8), after=np.full(2, 3e-8))
    assert not tiny.useful, "a twin that recorded itself: there is nothing to explain"
    assert any("do not use these parameters" in line for line in reported(tiny, {})[1]["lines"])
    parameters, report = reported(found, {"dataset": "d.zarr"})
    assert parameters.about["ratio"] == found.ratio
    assert any(line.startswith("elbow damping kept nominal: it cannot be told apart") for line in report["lines"])


def test_what_is_no_recording():
    times, q = np.arange(10) / 10, np.zeros((10, 2))
    with pytest.raises(ContractError, match=r"m: 10 stamps, angles \(10, 2\), 9 due times"):
        Motion("m", times, q, times[:9], q)
    with pytest.raises(ContractError, match="stamps of its commands do not rise"):
        Motion("m", times, q, np.zeros(10), q)
    with pytest.raises(ContractError, match="an angle or a command is not finite"):
        Motion("m", times, np.where(q == 0, np.nan, q), times, q)
    motion = Motion("m", times, q, times, q)
    with pytest.raises(ContractError, match="m has 2 joints; the model 7"):
        identify(arm_spec().compile(), [motion], [motion])
    with pytest.raises(ContractError, match="0 motions to identify from, 1 held out"):
        identify(two_joints(), [], [motion], joints=("shoulder", "elbow"))
    with pytest.raises(UnknownName, match="no joint 'wrist'"):
        identify(two_joints(), [motion], [motion], joints=("wrist", "elbow"))
    short = Motion("m", times[:2] / 10, q[:2], times[:2], q[:2])
    with pytest.raises(ContractError, match=r"no motion lasts longer than 0.3 s"):
        identify(two_joints(), [short], [motion], joints=("shoulder", "elbow"))


def test_an_excitation_keeps_its_limits():
    home = np.array(HOME)
    wave = multi_sine(home, np.random.default_rng(0), duration_s=8.0, rate_hz=100.0, max_speed=0.5)
    assert wave.shape == (800, 7)
    assert wave[[0, -1]] == pytest.approx(np.array([home, home]), abs=1e-6)
    assert np.abs(wave - home).max() <= 0.3 + 1e-9
    assert np.abs(np.diff(wave, axis=0)).max() * 100 <= 0.5 + 1e-9
    assert np.abs(np.diff(wave, 2, axis=0)).max() * 1e4 <= 4.0 + 1e-6
    other = multi_sine(home, np.random.default_rng(1), duration_s=8.0, rate_hz=100.0)
    assert not np.allclose(wave[400], other[400])
    with pytest.raises(ContractError, match="at least 3 s at 10 Hz"):
        multi_sine(home, np.random.default_rng(0), duration_s=1.0, rate_hz=100.0)
    with pytest.raises(ContractError, match="have to be positive"):
        multi_sine(home, np.random.default_rng(0), duration_s=8.0, rate_hz=100.0, max_speed=0.0)


@pytest.mark.slow
def test_a_hidden_arm_is_found_on_held_out_motion():
    """The bar of 20, on a shorter run than tests/benchmarks/bench_sysid.py makes."""
    rng = np.random.default_rng(0)
    truth = hidden_parameters(rng)
    motions = [record(truth, rng, 6.0, name=f"motion {i}") for i in range(2)]
    found = identify(arm_spec().compile(), motions[:1], motions[1:])
    assert found.ratio >= 20
    assert rms(found.after) < 1.5 * NOISE_RAD
    assert found.parameters.delay_s == pytest.approx(truth.delay_s, abs=5e-4)
