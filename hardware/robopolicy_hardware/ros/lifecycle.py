"""The node as rclpy has it: a lifecycle node with parameters and Trigger services; importing this needs rclpy."""

import threading
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_srvs.srv import Trigger

from robopolicy.errors import RobopolicyError
from robopolicy.settings import keys
from robopolicy_hardware.ros.node import Rig, RobotNode
from robopolicy_hardware.ros.node_overrides import leaves, raw
from robopolicy_hardware.ros.node_parameters import DESCRIPTIONS, NESTED, Parameters
from robopolicy_hardware.ros.rclpy_topics import RclpyTopics

THREADS = 4  # transitions wait for the robot's first messages, which another thread receives

OpenRig = Callable[[Parameters, Any, str], Rig]


class PolicyNode(LifecycleNode):
    """Transitions open robot and policy, let episodes start, hold, and release.

    ``~/start``, ``~/stop``, ``~/reset`` and ``~/acknowledge`` are ``std_srvs/Trigger`` services; a stop is served
    whatever else is.

    Args:
        told: values of the parameters where ROS says no other.
        open_rig: opens what the node drives: of (parameters, transport, full name).
        name: of the node.
        namespace: of the node.
        context: of rclpy.
    """

    def __init__(self, told: Parameters, open_rig: OpenRig, *, name: str, namespace: str, context: Any) -> None:
        # What is said of a key that no file has shall be refused, so it must be seen: all that is said is declared.
        super().__init__(
            name, namespace=namespace or None, context=context, automatically_declare_parameters_from_overrides=True
        )
        self._of_files: dict[str, Any] = {}  # parameters that say what a file says
        for field in fields(Parameters):
            if field.name not in NESTED:
                self._show(field.name, getattr(told, field.name), DESCRIPTIONS[field.name])
        self.topics = RclpyTopics(self, group=MutuallyExclusiveCallbackGroup())
        self.driven = RobotNode(
            lambda: open_rig(self.told(), self.topics, self.get_fully_qualified_name()), self._log
        )  # fmt: skip
        whenever = ReentrantCallbackGroup()
        for word, act in {
            "start": self.driven.start, "stop": lambda: self.driven.stop("asked by ~/stop"),
            "reset": self.driven.reset, "acknowledge": self.driven.acknowledge,
        }.items():  # fmt: skip
            self.create_service(Trigger, f"~/{word}", _answer(act), callback_group=whenever)

    def told(self) -> Parameters:
        """Return the parameters as they are now; raises ContractError or UnknownName if one makes no sense."""
        plain = [field.name for field in fields(Parameters) if field.name not in NESTED]
        values: dict[str, Any] = {name: self.get_parameter(name).value for name in plain}
        for part in NESTED:
            found = {name: _plain(one.value) for name, one in self.get_parameters_by_prefix(part).items()}
            values[part] = {
                name: value for name, value in found.items() if self._of_files.get(f"{part}.{name}") != value
            }
        return Parameters(**keys(values, Parameters, "the parameters", prefix=""))

    def _configured(self) -> None:
        told = self.told()
        for name in self._of_files:
            if self.has_parameter(name) and _plain(self.get_parameter(name).value) == self._of_files[name]:
                self.undeclare_parameter(name)  # perhaps it is another file now
        path = told.robot.removeprefix("ros:") if told.robot.startswith("ros:") else ""
        self._of_files = {
            f"{part}.{key}": value
            for part, file in (("topics", path), ("safety", told.limits))
            for key, value in (leaves(raw(file, "a file of the node")).items() if file else ())
        }
        self.driven.configure()
        for name, value in self._of_files.items():
            self._show(name, value, "as the file has it")

    def _show(self, name: str, value: Any, description: str) -> None:
        """Declare a parameter. ROS would refuse 100 where 0.0 is the default: what it may be is checked when used."""
        if not self.has_parameter(name):
            self.declare_parameter(name, value, ParameterDescriptor(description=description, dynamic_typing=True))

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Open the robot and load its policy; if that fails the log says why, and the node stays unconfigured."""
        return self._transition("configure", self._configured)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Let episodes start; nothing moves yet."""
        return self._transition("activate", self.driven.activate)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Hold, and end the episode."""
        return self._transition("deactivate", self.driven.deactivate)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Release the robot and the policy."""
        return self._transition("cleanup", self.driven.cleanup)

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Hold and release."""
        return self._transition("shutdown", self.driven.cleanup)

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        """Hold and release: the node is unconfigured then."""
        return self._transition("error", self.driven.cleanup)

    def begin(self) -> None:
        """Configure, activate and start an episode, as the parameter ``autostart`` asks for."""
        stops = self.driven.stops
        for step in (self.trigger_configure, self.trigger_activate):
            if step() != TransitionCallbackReturn.SUCCESS:
                return
        try:
            self._log(f"start: {self.driven.start(stops)}")
        except RobopolicyError as error:
            self.get_logger().error(f"start refused: {error}")

    def release(self) -> None:
        """Hold, and leave ROS; idempotent."""
        self.driven.close()
        self.topics.close()

    def _transition(self, what: str, act: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            act()
        except Exception as error:  # rclpy would call it an error without a word of why
            known = isinstance(error, RobopolicyError)
            self.get_logger().error(f"{what}: {error if known else f'unexpected {type(error).__name__}: {error}'}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _log(self, line: str) -> None:
        self.get_logger().info(line)


def run_lifecycle_node(
    told: Parameters, open_rig: OpenRig, *, name: str, namespace: str, domain: int | None, ros_args: list[str]
) -> None:
    """Serve the node until the process is interrupted or ROS shuts down; whichever it is, the robot holds.

    Args:
        told: parameters as the command line has them.
        open_rig: as of `PolicyNode`.
        name: of the node.
        namespace: of the node.
        domain: None takes ``ROS_DOMAIN_ID``.
        ros_args: ``["--ros-args", ...]``, or nothing.
    """
    context = rclpy.Context()  # not the default one: signals stay ours, and end in one stop
    rclpy.init(args=ros_args, context=context, domain_id=domain)
    executor = MultiThreadedExecutor(THREADS, context=context)
    node = PolicyNode(told, open_rig, name=name, namespace=namespace, context=context)
    executor.add_node(node)

    over = threading.Event()

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
        finally:
            over.set()

    thread = threading.Thread(target=spin, name="rclpy", daemon=True)
    thread.start()
    try:
        if node.told().autostart:
            node.begin()
        over.wait()
    finally:
        node.release()
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _plain(value: Any) -> Any:
    """Return a parameter's value with arrays as lists."""
    return value if isinstance(value, str | bool | int | float) or value is None else list(value)


def _answer(act: Callable[[], str]) -> Callable[[Any, Any], Any]:
    """Return the callback of a Trigger service: success, and in one line what came of it."""

    def serve(request: Any, response: Any) -> Any:
        try:
            response.success, response.message = True, act()
        except RobopolicyError as error:
            response.success, response.message = False, str(error)
        return response

    return serve
