"""A policy node as a process of its own: a scripted agent in the loop, with safety layer and watchdogs, over DDS.

    python policy_node.py CONFIG DOMAIN lift|sweep|nan|chunks

``lift`` is the task's expert, ``sweep`` moves to and fro for a minute, ``nan`` does so for a second and then asks for
NaN; ``chunks`` sweeps by whole motions of 0.8 s, one every 0.4 s. It says ``running`` with its first command, and how
it ended as a line of JSON.
"""

import json
import sys
from dataclasses import replace

import numpy as np

from robopolicy.clock import WallClock
from robopolicy.errors import RobopolicyError
from robopolicy.loop import run_episode
from robopolicy.types import ActionChunk, Command, EpisodeMeta
from robopolicy_hardware.ros.robot import make_ros_robot
from robopolicy_hardware.safety import SafetyLayer, limits_for
from robopolicy_hardware.supervisor import Supervised
from sim_envs.experts import make_expert


class Sweep:
    """Half a radian of the second joint, or 8 cm up and down, in two seconds; NaN in between if asked."""

    decision = None

    def __init__(self, spec, fault):
        self._spec, self._fault = spec, fault

    def reset(self, seed=0):
        self._start, self._k = None, 0

    def act(self, observation):
        if self._start is None:
            self._start = start_of(observation, self._spec)
        self._k += 1
        t_s = self._k / self._spec.rate_hz
        action = self._start.copy()
        swing = np.sin(np.pi * t_s)
        action[1 if self._spec.action.kind == "joint" else 2] += swing * (
            0.25 if self._spec.action.kind == "joint" else 0.08
        )
        if self._fault and t_s > 1.0:
            action[2] = np.nan
        return Command(action.astype(np.float32), "policy")


class Announce:
    """A watcher that says when commands begin."""

    def on_start(self, meta, spec):
        self._first = True

    def on_step(self, step):
        if self._first:
            print("running", flush=True)
        self._first = False

    def on_end(self, meta):
        pass


def start_of(observation, spec):
    from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix

    state = observation.state
    if spec.action.kind == "joint":
        return np.concatenate([state["q"], state["gripper"]])
    rotation = matrix_to_rot6d(quat_to_matrix(state["tool_quat"].astype(float)))
    return np.concatenate([state["tool_pos"], rotation, state["gripper"]])


def sweep_by_chunks(robot, clock):
    """The second joint to and fro for a minute; each motion ends at rest, and the next begins halfway."""
    start, begin_ns = start_of(robot.read(), robot.spec), clock.now_ns()
    for k in range(150):
        clock.sleep_until(begin_ns + k * 400_000_000)
        robot.read()
        stamps_ns = clock.now_ns() + np.arange(1, 17) * 50_000_000
        t_s = (stamps_ns - begin_ns) / 1e9
        values, velocities = np.tile(start, (16, 1)), np.zeros((16, len(start)))
        values[:, 1] += 0.25 * np.sin(np.pi * t_s)
        velocities[:-1, 1] = 0.25 * np.pi * np.cos(np.pi * t_s[:-1])
        robot.follow(ActionChunk(stamps_ns, values.astype(np.float32), clock.now_ns()), velocities)
        if k == 0:
            print("running", flush=True)


def main(config, domain, what):
    clock = WallClock()
    ended, robot = "", None
    try:
        if what == "chunks":
            robot = make_ros_robot(config, clock, domain=int(domain))
            return sweep_by_chunks(robot, clock)
        robot = Supervised(make_ros_robot(config, clock, domain=int(domain)))
        agent = make_expert("lift", robot.spec) if what == "lift" else Sweep(robot.spec, what == "nan")
        safety = SafetyLayer(replace(limits_for(robot.spec), max_age_s=0.5), robot.spec)  # the machine may be busy
        steps = 150 if what == "lift" else round(60 * robot.spec.rate_hz)
        done = (lambda o: o.state["cube_pos"][2] > 0.125) if what == "lift" else (lambda o: False)
        run_episode(
            robot, agent, clock, safety, EpisodeMeta(what, "twin"), max_steps=steps, watchers=[Announce()], done=done
        )
    except RobopolicyError as error:
        ended = f"{type(error).__name__}: {error}"
    state, reason = ("none", "") if robot is None else (robot.state, robot.reason)
    print(json.dumps({"ended": ended, "state": state, "reason": reason}), flush=True)
    if robot is not None:
        robot.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
