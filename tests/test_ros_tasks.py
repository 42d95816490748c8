"""Every task of the twin as a robot behind topics: observations, actions and units are the twin's own."""

import threading

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

from robopolicy.clock import WallClock
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.robot import RosRobot
from robopolicy_hardware.ros.server import RobotServer
from robopolicy_hardware.ros.usual import usual_topics
from sim_envs.arm import JOINTS
from sim_envs.tasks import TASKS, make_task
from sim_envs.twin import Twin


@pytest.mark.parametrize("action", ["tool_pose", "joint"])
@pytest.mark.parametrize("task", TASKS)
def test_a_checkpoint_finds_what_it_saw_in_the_twin(task, action):
    clock, wire, over = WallClock(), Wire(), threading.Event()
    twin = Twin(make_task(task), clock, cameras=(), action=action)
    twin.reset(3)
    config = usual_topics(twin.spec, JOINTS)
    server = RobotServer(twin, config, LocalTopics(wire), clock)

    def serve():
        while not over.wait(0.005):
            server.step()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        robot = RosRobot(config, clock, LocalTopics(wire), wait_s=60)
        assert robot.spec == twin.spec
        seen = robot.read().state
        robot.close()
    finally:
        over.set()
        thread.join()
        server.close()
    for name, value in twin.observed_state().items():
        if name not in ("dq", "cue", "go"):  # of a moment
            loose = 0.03 if name == "q" else 2e-3  # the servo goes on towards its posture, with the tool where it is
            np.testing.assert_allclose(seen[name], value, atol=loose, err_msg=name)
