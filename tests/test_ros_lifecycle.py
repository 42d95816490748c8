"""The lifecycle node, with the fake rclpy; and once through with the real one where ROS is (marker ros2)."""

import importlib
import importlib.util
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from node_parts import Ears, MockRig, until

from robopolicy.cli.main import build_parser, main
from robopolicy.cli.node import ros_args
from robopolicy.errors import StaleFrame, UsageError
from robopolicy_hardware.ros.node_parameters import DESCRIPTIONS, NESTED, Parameters
from robopolicy_hardware.ros.rclpy_topics import RclpyTopics

FAKES = Path(__file__).parent / "fake_rclpy"
OURS = "robopolicy_hardware.ros.lifecycle"
ROS = ("rclpy", "rosidl_runtime_py", "std_srvs", "rcl_interfaces")


def forget():
    for name in [n for n in sys.modules if n.split(".")[0] in ROS or n == OURS]:
        del sys.modules[name]


@pytest.fixture
def lifecycle(monkeypatch):
    """Our module, loaded with the fake rclpy."""
    forget()
    monkeypatch.syspath_prepend(str(FAKES))
    yield importlib.import_module(OURS)
    forget()


class Served:
    """A node that is served in a thread of its own, and another node's ears."""

    def __init__(self, lifecycle, told=None, ros_args=(), namespace="", wrong=None):
        import rclpy
        from rclpy.node import NODES

        self.rigs, self.asked, self.wrong, self.context = [], [], wrong, None
        made = rclpy.Context

        def context():
            self.context = made()
            return self.context

        rclpy.Context = context
        self.thread = threading.Thread(
            target=lifecycle.run_lifecycle_node, args=(told or Parameters(), self.open_rig),
            kwargs={"name": "robopolicy", "namespace": namespace, "domain": None, "ros_args": list(ros_args)},
        )  # fmt: skip
        self.thread.start()
        self.node = until(lambda: next(iter(NODES.values()), None))
        until(lambda: self.node.executor is not None)
        rclpy.Context = made
        self.far = RclpyTopics()
        self.ears = Ears(self.far, self.node.get_fully_qualified_name())

    def open_rig(self, parameters, transport, name):
        self.asked.append((parameters, name))
        if self.wrong is not None:
            raise self.wrong
        self.rigs.append(MockRig(transport, name))
        return self.rigs[-1]

    def call(self, word):
        response = self.node.call(f"{self.node.get_fully_qualified_name()}/{word}")
        return response.success, response.message

    def end(self):
        self.context.try_shutdown()
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.far.close()


@pytest.fixture
def serve(lifecycle):
    made = []

    def start(*args, **options):
        made.append(Served(lifecycle, *args, **options))
        return made[-1]

    yield start
    for one in made:
        one.end()


def test_transitions_open_run_hold_and_release(serve):
    served = serve()
    node, ears = served.node, served.ears
    assert served.call("start") == (False, "start: the node is unconfigured; it must be active")
    assert node.change_state("configure")
    until(lambda: ears.now["state"] == "idle")
    kept = {one.topic: one.qos.durability.name for one in node.mine if hasattr(one, "qos")}
    assert kept["/robopolicy/status"] == "TRANSIENT_LOCAL"
    assert kept["/diagnostics"] == kept["/robopolicy/failure_score"] == "VOLATILE"
    assert served.call("start") == (False, "start: the node is inactive; it must be active")
    assert node.change_state("activate")
    assert served.call("start") == (True, "running")
    until(lambda: ears.now["state"] == "running" and ears.scores)
    assert served.call("stop") == (True, "hold: asked by ~/stop")
    assert served.call("start") == (True, "running")
    assert served.call("start") == (False, "an episode runs already; stop it first")
    assert node.change_state("deactivate")
    (rig,) = served.rigs
    assert (rig.robot.state, rig.robot.reason, rig.closed) == ("hold", "deactivated", 0)
    assert node.change_state("cleanup")
    assert (rig.closed, node.current_state) == (1, "unconfigured")
    assert node.change_state("configure")
    assert len(served.rigs) == 2


def test_a_fault_is_reset_by_the_service(serve):
    served = serve()
    served.node.change_state("configure")
    served.node.change_state("activate")
    served.call("start")
    until(lambda: served.rigs[0].robot.state == "running")
    served.rigs[0].robot.fault("it smells")
    until(lambda: not served.node.driven.running)
    until(lambda: ("info", "the episode is over: fault: it smells; put it right, then reset") in served.node.logged)
    assert served.call("start")[0] is False
    assert served.call("reset") == (True, "idle")
    assert served.call("start") == (True, "running")


def test_an_alarm_is_acknowledged_by_a_service(serve):
    served = serve()
    served.node.change_state("configure")
    served.node.change_state("activate")
    assert served.call("acknowledge") == (False, "no episode runs: there is no alarm to acknowledge")
    served.call("start")
    well, says = served.call("acknowledge")
    assert (well, says) == (True, "at its next step the monitor is armed again, and the policy plans anew")


def test_what_does_not_open_is_logged_in_one_line_and_stays_unconfigured(serve):
    served = serve(wrong=StaleFrame("camera front: nothing comes"))
    assert not served.node.change_state("configure")
    assert served.node.current_state == "unconfigured"
    assert served.node.logged == [("error", "configure: camera front: nothing comes")]
    served.wrong = ZeroDivisionError("oh")
    assert not served.node.change_state("configure")
    assert served.node.logged[-1] == ("error", "configure: unexpected ZeroDivisionError: oh")
    served.wrong = None
    assert served.node.change_state("configure")


def test_parameters_come_from_the_command_line_from_a_file_and_from_ros_in_that_order(serve, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("/**: {ros__parameters: {monitor: m, control_rate: 100, use_sim_time: true}}\n")
    told = Parameters(robot="mock", checkpoint="c", monitor="other", seed=7)
    args = ["--ros-args", "-r", "__ns:=/left", "--params-file", str(file), "-p", "threads:=2"]
    served = serve(told, args)
    served.node.change_state("configure")
    want = Parameters("mock", "c", "m", control_rate=100.0, seed=7, threads=2, use_sim_time=True)
    assert served.asked == [(want, "/left/robopolicy")]
    until(lambda: served.ears.now["state"] == "idle")
    served.node.change_state("cleanup")
    served.node.set_parameter("seed", -1)
    assert not served.node.change_state("configure")
    assert served.node.logged[-1][1].startswith("configure: seed is '-1'; want a number from 0")
    served.node.set_parameter("seed", 8)
    assert served.node.change_state("configure")
    assert served.asked[-1][0].seed == 8


def test_autostart_runs_an_episode_and_a_shutdown_of_ros_holds_and_releases(serve):
    served = serve(Parameters(robot="mock", checkpoint="c", autostart=True))
    until(lambda: served.rigs and served.rigs[0].robot.state == "running")
    until(lambda: ("info", "start: running") in served.node.logged)
    (rig,) = served.rigs
    served.context.try_shutdown()
    served.thread.join(30)
    assert rig.closed == 1
    assert (rig.robot.state, rig.robot.reason) == ("hold", "the node ends")


def test_every_parameter_is_described(serve):
    assert set(DESCRIPTIONS) == set(Parameters.__dataclass_fields__)
    assert set(serve().node._parameters) == set(DESCRIPTIONS) - set(NESTED)


def test_keys_of_the_files_are_parameters_that_can_be_said_otherwise(serve, tmp_path):
    arm, limits, file = tmp_path / "arm.yaml", tmp_path / "limits.yaml", tmp_path / "p.yaml"
    arm.write_text(
        "{rate_hz: 20, state: {q: {topic: /q, joints: [a, b]}}, action: {topic: /c, kind: joint}, task: null}"
    )
    limits.write_text("{max_rate: [1, 0.5], watchdogs: {silent_s: 0.2}}")
    file.write_text("/**: {ros__parameters: {safety: {max_rate: [0.1, 0.2]}, topics: {action: {topic: /other}}}}")
    told = Parameters(robot=f"ros:{arm}", checkpoint="c", limits=str(limits))
    served = serve(told, ["--ros-args", "--params-file", str(file), "-p", "topics.stat.q:=x"])
    node = served.node
    assert node.change_state("configure")
    assert served.asked[-1][0].topics == {"action.topic": "/other", "stat.q": "x"}  # the rig's loader refuses it
    assert served.asked[-1][0].safety == {"max_rate": [0.1, 0.2]}
    assert node.get_parameter("topics.state.q.joints").value == ["a", "b"]
    assert node.get_parameter("topics.action.topic").value == "/other"
    assert node.get_parameter("safety.watchdogs.silent_s").value == 0.2
    assert node.get_parameter("topics.rate_hz").value == 20
    node.set_parameter("topics.state.q.topic", "/mine")
    node.change_state("cleanup")
    arm.write_text("{rate_hz: 30, state: {q: {topic: /q, joints: [a, b]}}, action: {topic: /c, kind: joint}}")
    assert node.change_state("configure")
    said = {"action.topic": "/other", "stat.q": "x", "state.q.topic": "/mine"}
    assert served.asked[-1][0].topics == said  # what was set, and not what the file said before
    assert node.get_parameter("topics.rate_hz").value == 30


def test_without_rclpy_it_is_one_line(capsys, monkeypatch):
    if importlib.util.find_spec("rclpy") is not None:
        pytest.skip("rclpy is here")
    forget()
    assert main(["node", "--robot", "mock", "--checkpoint", "c"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no rclpy here" in said
    assert "--transport dds" in said


def test_options_win_over_the_file_and_ros_over_both(serve, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("/**: {ros__parameters: {robot: mock, checkpoint: a, seed: 1, threads: 1}}\n")
    words = ["node", "--params-file", str(file), "--checkpoint", "b: 1", "--seed", "2", "--threads", "2"]
    args = build_parser().parse_args([*words, "--ros-args", "-p", "threads:=3"])
    served = serve(Parameters(), ros_args(args))
    assert served.node.change_state("configure")
    assert served.asked[0][0] == Parameters("mock", "b: 1", seed=2, threads=3)
    args.transport = "dds"
    with pytest.raises(UsageError, match="--ros-args are for rclpy"):
        args.run(args)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--transport", "dds"], "the node has no robot: --robot ros:fr3.yaml, or robot:=ros:fr3.yaml as a param"),
        (["--transport", "dds", "--robot", "mock"], "the node has no checkpoint: --checkpoint runs/lift, or "),
        (["--namespace", "a b"], "'/a b/robopolicy' is no node's name"),
        (["--transport", "dds", "--params-file", "no.yaml"], "no.yaml: No such file or directory; want a ROS 2 param"),
    ],
)
def test_what_the_command_lacks_is_one_line(capsys, words, says):
    assert main(["node", *words]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.ros2
@pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="rclpy is not installed")
def test_with_real_rclpy_transitions_and_services_do_what_they_do_with_the_fake():
    import rclpy
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState
    from std_srvs.srv import Trigger

    lifecycle = importlib.import_module(OURS)
    rigs, contexts, made = [], [], rclpy.Context

    def open_rig(parameters, transport, name):
        rigs.append(MockRig(transport, name))
        return rigs[-1]

    def context():
        contexts.append(made())
        return contexts[-1]

    lifecycle.rclpy.Context = context
    args = {"name": "policy", "namespace": "", "domain": None, "ros_args": ["--ros-args", "-p", "control_rate:=100"]}
    thread = threading.Thread(target=lifecycle.run_lifecycle_node, args=(Parameters(), open_rig), kwargs=args)
    thread.start()
    until(lambda: contexts)
    lifecycle.rclpy.Context = made
    far = RclpyTopics()
    try:
        ears = Ears(far, "/policy")

        def call(kind, name, request):
            client = far.node.create_client(kind, f"/policy/{name}")
            assert client.wait_for_service(timeout_sec=30)
            future = client.call_async(request)
            until(future.done, 60)
            return future.result()

        def change(transition):
            request = ChangeState.Request()
            request.transition.id = transition
            return call(ChangeState, "change_state", request).success

        assert change(Transition.TRANSITION_CONFIGURE)
        assert change(Transition.TRANSITION_ACTIVATE)
        assert call(Trigger, "start", Trigger.Request()).success
        until(lambda: ears.now["state"] == "running" and ears.scores)
        told = call(Trigger, "stop", Trigger.Request())
        assert (told.success, told.message) == (True, "hold: asked by ~/stop")
        assert change(Transition.TRANSITION_DEACTIVATE)
        assert change(Transition.TRANSITION_CLEANUP)
        assert [rig.closed for rig in rigs] == [1]
    finally:
        far.close()
        contexts[0].try_shutdown()
        thread.join(60)
    assert not thread.is_alive()
