"""`robopolicy deploy` in real time and a simulated arm in another process, real DDS on loopback between."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from fake_ros_arm import LOOPBACK
from served_twin import CONFIGS, Bystander, serve, until

from robopolicy.cli.deploy import deploy
from robopolicy.cli.timing import Timing
from robopolicy.clock import WallClock
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import FlowConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.training.checkpoint import save_checkpoint
from robopolicy_hardware.ros.robot import make_ros_robot

os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAIN = 30 + os.getpid() % 60  # beside other tests on this machine
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
LIMITS = "max_rate: [1, 1, 1, 1, 1, 1, 1, 20]\nmax_accel: [8, 8, 8, 8, 8, 8, 8, 400]\nwatchdogs: {silent_s: 5}\n"


@pytest.fixture
def config(tmp_path):
    """The joint twin's topics, without cameras, as a trajectory controller's, patient on a busy machine."""
    text = (CONFIGS / "twin_joint.yaml").read_text()
    text = text[: text.index("cameras:")] + text[text.index("state:") :].replace(
        "type: std_msgs/msg/Float64MultiArray\n  kind: joint", f"type: {TRAJECTORY}\n  send: chunk\n  kind: joint"
    )
    assert "send: chunk" in text
    lines = [line for line in text.splitlines() if not line.startswith("primary")]
    patient = [
        line.replace("}", ", max_age_s: 2.0}", 1) if line.startswith("  ") and "topic: /" in line and ": {" in line
        and "gripper_commands" not in line else line
        for line in lines
    ]  # fmt: skip
    (tmp_path / "arm.yaml").write_text("\n".join(patient))
    (tmp_path / "limits.yaml").write_text(LIMITS + "max_age_s: 2.0\n")
    return tmp_path / "arm.yaml"


def fidget(folder, config):
    """A checkpoint whose plans are noise about where the served arm stands."""
    robot = make_ros_robot(config, WallClock(), domain=DOMAIN)
    try:
        at = robot.read().state["q"]
        spec = replace(robot.spec.select(state=("q", "gripper")), n_obs=2, horizon=16, n_execute=8)
    finally:
        robot.close()
    torch.manual_seed(0)
    policy = DiffusionPolicy(
        spec, DiffusionConfig(MlpConfig(width=16, depth=1), process=FlowConfig(), solver=SolverConfig("euler", 2))
    )
    rng = np.random.default_rng(0)
    low, high = np.append(at - 0.1, 0.2), np.append(at + 0.1, 0.8)
    state = {name: rng.uniform(-1, 1, (50, part.dim)).astype(np.float32) for name, part in spec.state.items()}
    policy.fit_normaliser(SimpleNamespace(state=state, action=rng.uniform(low, high, (50, 8)).astype(np.float32)))
    save_checkpoint(folder, policy, train={"steps": 0})
    return folder


@pytest.mark.slow
def test_whole_plans_reach_the_arm_within_all_limits_and_it_rests_at_the_end(config, tmp_path):
    server = serve(DOMAIN, "--config", config, "--cameras", "--command-timeout", 5)
    try:
        checkpoint = fidget(tmp_path / "policy", config)
        seen = Bystander(DOMAIN, ("/joint_commands", TRAJECTORY))
        agents = []
        deploy(
            f"ros:{config}", checkpoint, domain=DOMAIN, max_steps=250, timing=Timing(50.0),
            limits=tmp_path / "limits.yaml", watch=lambda robot, agent: agents.append(agent) or (),
        )  # fmt: skip
        ended_ns = seen.states()[0][-1]
        many = [message for _, message in seen.commands if len(message.points) > 1]
        motions = [one for one in many if one.points[0].time_from_start.nanosec <= 20_000_000]  # what brakes has others
        assert 3 <= len(motions) <= agents[0].plans
        for message in motions:
            points = np.array([point.positions for point in message.points])
            speeds = np.array([point.velocities for point in message.points])
            due = np.array([p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points])
            assert list(message.joint_names) == [f"joint{k}" for k in range(1, 8)]
            assert np.abs(np.diff(points, axis=0) / np.diff(due)[:, None]).max() <= 1.0 * 1.001
            assert np.abs(np.diff(points, 2, axis=0)).max() / 0.02**2 <= 8.0 * 1.01
            np.testing.assert_array_equal(speeds[-1], 0)
        seen.require_no_jump()
        assert np.ptp(seen.states()[2], axis=0).max() > 0.05, "it moved"
        until(lambda: seen.rests(ended_ns + 10**9))
        seen.close()
    finally:
        server.close()
