"""A policy node and a served twin, two processes over real DDS on loopback: the task, and every way it can go wrong."""

import itertools
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from fake_ros_arm import LOOPBACK
from served_twin import CONFIGS, Bystander, Process, outcome, policy, serve, until

os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAINS = itertools.cycle(range(161, 229))  # a world each: one that was killed is seen for another ten seconds
ARRAY, POSE = "std_msgs/msg/Float64MultiArray", "geometry_msgs/msg/PoseStamped"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
HOLD_S = 0.1  # the bar: from the last command until the arm is at rest
RESTS = 0.05  # rad/s; it moves at 0.2 to 0.8 before


@pytest.fixture
def world(request, tmp_path):
    """(server, bystander, domain, path of the policy's file); parametrised by the file and the server's options."""
    file, options, changes = request.param
    text = (CONFIGS / file).read_text()
    if options[-1] == "--cameras":  # numbers alone: nothing is drawn
        head, _, rest = text.partition("\ncameras:")
        text = head.replace("primary: front", "primary: null") + rest[rest.index("\nstate:") :]
    text = re.sub(r"(\{topic: .*?)(, max_age_s: 0.2)?\}", r"\1, max_age_s: 0.5}", text)  # this machine may be busy
    served = tmp_path / file
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    served.write_text(text)
    domain = next(DOMAINS) if os.getpid() % 2 else 229 - next(DOMAINS) + 160
    server = serve(domain, "--config", served, *options)
    command = ("/tool_commands", POSE) if "joint" not in file else ("/joint_commands", ARRAY)
    if any(TRAJECTORY in new for _, new in changes):
        command = ("/joint_commands", TRAJECTORY)
    bystander = None
    try:
        bystander = Bystander(domain, command)
        yield server, bystander, domain, served
    finally:
        if bystander is not None:
            bystander.close()
        server.close()


BLIND = ("--cameras",)
LIFT = ("twin_lift.yaml", BLIND, ())
OTHER = (
    "--latency-ms",
    "40",
    "--joint-noise",
    "0.0005",
    "--position-noise",
    "0.001",
    "--friction",
    "0.8",
    "--mass",
    "1.3",
)
UNLIKE = ("twin_lift.yaml", (*OTHER, *BLIND), ())  # not the world that the policy believes in
JOINT = ("twin_joint.yaml", BLIND, ())
WHOLE = ("twin_joint.yaml", BLIND, ((ARRAY + "\n  kind", TRAJECTORY + "\n  send: chunk\n  kind"),))
CHUNKS = ("twin_joint.yaml", BLIND, ((ARRAY + "\n  kind", TRAJECTORY + "\n  kind"),))


def drives(node, bystander, since_ns=0):
    """Whether a dozen commands came and the arm is moving by them; fails at once if the policy is gone."""
    assert node.process.poll() is None, node.lines
    came = sum(ns >= since_ns for ns, _ in bystander.commands)
    return came > 12 and bystander.moves(time.monotonic_ns() - 50_000_000)


@pytest.mark.parametrize("world", [UNLIKE], indirect=True)
def test_the_task_is_solved_over_the_wire_and_both_are_seen_by_name(world):
    server, bystander, domain, config = world
    ended = None
    while ended is None:  # this machine may stall the server beyond what the policy bears; another goes on from there
        ended = lifts(bystander, domain, config)
    assert ended == {"ended": "", "state": "hold", "reason": "end of episode"}
    assert 0.05 < bystander.require_no_jump() < 2.61
    assert not bystander.successes[0]  # it was not so from the start
    server.kill(signal.SIGTERM)
    assert server.ends() == 0
    assert server.lines[-1].startswith("served ")


def lifts(bystander, domain, config):
    """Let a policy lift the cube; return how it ended, None if what it saw was too old before the cube was up."""
    node = policy(config, domain, "lift")
    try:
        node.says("^running")
        until(lambda: {"/robopolicy", "/robopolicy_twin"} <= set(bystander.topics.nodes()))
        assert bystander.topics.publishing_nodes("/tool_commands") == ["/robopolicy"]
        ended = outcome(node)
        assert node.ends() == 0
    finally:
        node.close()
    if not any(bystander.successes):
        assert re.search(r" s old|silent|stalled", ended["ended"]), ended
        return None
    return ended


KILLED = [pytest.param(JOINT, id="joints"), pytest.param(LIFT, id="tool", marks=pytest.mark.slow),
          pytest.param(CHUNKS, id="trajectory", marks=pytest.mark.slow)]  # fmt: skip


@pytest.mark.parametrize("world", KILLED, indirect=True)
def test_a_killed_policy_leaves_the_arm_at_rest_within_100_ms(world):
    _, bystander, domain, config = world
    late = [killed(bystander, domain, config)]
    while late[-1] >= RESTS and len(late) < 3:  # the bar is a time, and this machine may stall the server beyond it
        time.sleep(11)  # a publisher that was killed is seen for another ten seconds
        late.append(killed(bystander, domain, config))
    print("fastest joint 100 ms after the last command, rad/s:", *(f"{one:.4f}" for one in late))
    assert late[-1] < RESTS
    bystander.require_no_jump()


@pytest.mark.slow
@pytest.mark.parametrize("world", [WHOLE], indirect=True)
def test_whole_motions_are_followed_smoothly_and_a_kill_ends_at_the_end_of_the_last_one(world):
    server, bystander, domain, config = world
    node, since_ns = policy(config, domain, "chunks"), time.monotonic_ns()
    try:
        node.says("^running")
        until(lambda: len(bystander.commands) >= 8 or node.process.poll() is not None)
        node.kill(signal.SIGKILL)
        node.ends()
    finally:
        node.close()
    last_ns, last = bystander.commands[-1]
    over_ns = last_ns + last.points[-1].time_from_start.nanosec  # below a second
    until(lambda: time.monotonic_ns() > over_ns + 1_000_000_000)
    came, _, positions, velocities = bystander.states(since_ns)
    driven = (came > bystander.commands[1][0]) & (came < last_ns)
    assert 0.6 < np.abs(velocities[driven]).max() < 1.0  # 0.79 rad/s, and no faster at a change of motion
    assert np.abs(velocities[came > over_ns + HOLD_S * 1e9]).max() < RESTS
    goal = last.points[-1].positions[list(last.joint_names).index("joint2")]
    assert abs(positions[-1][1] - goal) < 0.02
    bystander.require_no_jump()
    server.kill(signal.SIGTERM)
    server.ends()
    assert ", 0 refused" in server.lines[-1]


def killed(bystander, domain, config):
    """Kill a policy that moves the arm; return the speed of the fastest joint 100 ms after the last command, rad/s."""
    node, since_ns = policy(config, domain, "sweep"), time.monotonic_ns()
    try:
        node.says("^running")
        until(lambda: drives(node, bystander, since_ns))
        node.kill(signal.SIGKILL)
        node.ends()
    finally:
        node.close()
    return at_rest_after(bystander)


def at_rest_after(bystander):
    """Wait until no more commands come; return the fastest joint's speed 100 ms after the last one, rad/s.

    Infinite if it was not at rest half a second later, or had not moved before: then the machine stalled one of them.
    """
    until(lambda: time.monotonic_ns() - bystander.commands[-1][0] > 1_000_000_000)
    last_ns = bystander.commands[-1][0]
    came, _, _, velocities = bystander.states(last_ns - 1_000_000_000)
    if np.abs(velocities[came <= last_ns]).max(initial=0) <= 0.05 or not bystander.rests(last_ns + 500_000_000):
        return np.inf
    return float(np.abs(velocities[came > last_ns + HOLD_S * 1e9]).max())


@pytest.mark.slow
@pytest.mark.parametrize("world", [JOINT], indirect=True)
def test_a_chunk_with_nan_is_refused_and_the_arm_holds(world):
    server, bystander, domain, config = world
    node = policy(config, domain, "nan")
    try:
        ended = outcome(node)
        assert "command is not finite: joint3" in ended["ended"]
        assert (ended["state"], "not finite" in ended["reason"]) == ("hold", True)
        node.ends()
    finally:
        node.close()
    done_ns = time.monotonic_ns()
    until(lambda: bystander.rests(done_ns + 300_000_000), 30)
    assert all(np.isfinite(message.data).all() for _, message in bystander.commands)
    bystander.require_no_jump()
    assert server.process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("world", [JOINT], indirect=True)
def test_wrong_joint_names_are_refused_at_the_start(world, tmp_path):
    _, bystander, domain, config = world
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(config.read_text().replace("joint4", "elbow"))
    node = policy(wrong, domain, "sweep")
    try:
        ended = outcome(node)
        assert "elbow" in ended["ended"]
        assert "joint4" in ended["ended"]  # what there is
        assert ended["state"] == "none"
    finally:
        node.close()
    assert bystander.commands == []
    assert bystander.rests(0)


STALLS = ("twin_lift.yaml", ("--camera-stops", "12", "--cameras", "front"), (("  wrist:", "  # wrist:"),))


@pytest.mark.slow
@pytest.mark.parametrize("world", [STALLS], indirect=True)
def test_a_camera_that_stalls_is_a_hold_with_its_reason(world):
    server, bystander, domain, config = world
    node = policy(config, domain, "sweep")
    try:
        node.says("^running")
        ended = outcome(node)
        assert re.search("StaleFrame: .*front|LateCommand: frame of camera 'front' is", ended["ended"])
        assert (ended["state"], "front" in ended["reason"]) == ("hold", True)
        node.ends()
    finally:
        node.close()
    done_ns = time.monotonic_ns()
    until(lambda: bystander.rests(done_ns + 300_000_000))
    bystander.require_no_jump()
    assert server.process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("world", [JOINT], indirect=True)
def test_a_robot_that_restarts_ends_the_policy_and_a_new_one_drives_it(world):
    server, bystander, domain, config = world
    node = policy(config, domain, "sweep")
    try:
        node.says("^running")
        until(lambda: drives(node, bystander))
        server.kill()
        ended = outcome(node)
        assert re.search("StaleFrame: .*(newest message|nothing) on /", ended["ended"])
        assert ended["state"] == "hold"
        assert node.ends() == 0
    finally:
        node.close()
    again = serve(domain, "--config", config, "--cameras")
    try:
        since_ns = time.monotonic_ns()
        node = policy(config, domain, "sweep")
        try:
            node.says("^running")
            until(lambda: drives(node, bystander, since_ns))
            bystander.require_no_jump(since_ns)
        finally:
            node.close()
    finally:
        again.close()


@pytest.mark.slow
@pytest.mark.parametrize("world", [JOINT], indirect=True)
def test_a_second_publisher_on_the_command_topic_is_refused_before_anything_moves(world):
    _, bystander, domain, config = world
    other = bystander.topics.publisher("/joint_commands", ARRAY)
    until(lambda: other.subscribers)
    node = policy(config, domain, "sweep")
    try:
        ended = outcome(node)
        assert re.search("UsageError: .*somebody else publishes on /joint_commands too", ended["ended"])
        assert ended["state"] == "none"
    finally:
        node.close()
    assert bystander.commands == []
    assert bystander.rests(0)


@pytest.mark.slow
@pytest.mark.parametrize("world", [JOINT], indirect=True)
def test_a_new_start_is_a_topic_and_its_seed_says_which(world):
    _, bystander, _, _ = world
    first = bystander.states()[2][-1]
    places = []
    for seed in (5, 6, 5):
        bystander.reset(seed)
        until(lambda at=places[-1] if places else first: np.abs(bystander.states()[2][-1] - at).max() > 0.01)
        places.append(bystander.states()[2][-1])
    np.testing.assert_allclose(places[0], places[2], atol=1e-3)
    assert np.abs(places[0] - places[1]).max() > 0.01


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A policy that lifts the cube in nine starts of ten, on numbers alone: 40 demonstrations, 600 steps."""
    from robopolicy.cli.record import record
    from robopolicy.cli.train import train

    folder = tmp_path_factory.mktemp("learned")
    record("twin:lift", folder / "d.zarr", 40, seed=0)
    states = ("tool_pos", "tool_quat", "gripper", "cube_pos", "cube_quat")
    settings = {"steps": 600, "batch_size": 128, "device": "cpu", "num_threads": 1}
    train(folder / "d.zarr", folder / "policy", states=states, n_obs=2, horizon=16, n_execute=8, settings=settings)
    return folder / "policy"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("world", [LIFT], indirect=True)
def test_deploy_solves_the_task_with_what_it_learned_and_its_kill_is_a_hold(learned, world, tmp_path):
    _, bystander, domain, config = world
    limits = tmp_path / "limits.yaml"
    limits.write_text("max_age_s: 0.5\n")  # the machine may be busy
    words = ["-m", "robopolicy.cli.main", "deploy", "--robot", f"ros:{config}", "--checkpoint", learned,
             "--domain", domain, "--control-rate", 50, "--limits", limits, "--max-steps", 400]  # fmt: skip
    assert any(solved(bystander, seed, words) for seed in (11, 12, 13, 14))
    afresh(bystander, 15)
    since_ns, node = time.monotonic_ns(), Process(*words)
    try:
        until(lambda: drives(node, bystander, since_ns), 120)
        node.kill(signal.SIGKILL)
        node.ends()
    finally:
        node.close()
    assert at_rest_after(bystander) < RESTS


def solved(bystander, seed, words):
    """Deploy at a new start until the cube is up or the episode over, then end it in order; return which it was."""
    afresh(bystander, seed)
    since_ns, node = time.monotonic_ns(), Process(*words)
    try:
        until(lambda: bystander.successes[-1] or node.process.poll() is not None, 120)
        up = bystander.successes[-1]
        if up:
            until(lambda: "/robopolicy" in bystander.topics.nodes())
            node.kill(signal.SIGTERM)
        assert node.ends() == (143 if up else 0), node.lines
    finally:
        node.close()
    bystander.require_no_jump(since_ns)
    return up


def afresh(bystander, seed):
    """Ask for a new start and wait until it is there."""
    at = bystander.states()[2][-1]
    bystander.reset(seed)
    until(lambda: np.abs(bystander.states()[2][-1] - at).max() > 1e-3 and not bystander.successes[-1])
