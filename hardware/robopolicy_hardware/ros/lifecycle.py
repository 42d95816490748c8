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
from robopolicy_hardware.ros.node_parameters import DESCRIPTIONS, Parameters
from robopolicy_hardware.ros.rclpy_topics import RclpyTopics

THREADS = 4  # transitions wait for the robot's first messages, which another thread receives
OPENED = "use_sim_time"  # a parameter that every node has already

OpenRig = Callable[[Parameters, Any, str], Rig]


class PolicyNode(LifecycleNode):
    """Transitions open robot and policy, let episodes start, hold, and release.

    ``~/start``, ``~/stop`` and ``~/reset`` are ``std_srvs/Trigger`` services; a stop is served whatever else is.

    Args:
        told: values of the parameters where ROS says no other.
        open_rig: opens what the node drives: of (parameters, transport, full name).
        name: of the node.
        namespace: of the node.
        context: of rclpy.
    """

    def __init__(self, told: Parameters, open_rig: OpenRig, *, name: str, namespace: str, context: Any) -> None:
        super().__init__(name, namespace=namespace or None, context=context)
        for field in fields(Parameters):
            if field.name != OPENED:
                # ROS would refuse 100 where 0.0 is the default; what a value may be is checked when it is used
                descriptor = ParameterDescriptor(description=DESCRIPTIONS[field.name], dynamic_typing=True)
                self.declare_parameter(field.name, getattr(told, field.name), descriptor)
        self.topics = RclpyTopics(self, group=MutuallyExclusiveCallbackGroup())
        self.driven = RobotNode(
            lambda: open_rig(self.told(), self.topics, self.get_fully_qualified_name()), self._log
        )  # fmt: skip
        whenever = ReentrantCallbackGroup()
        for word, act in {
            "start": self.driven.start, "stop": lambda: self.driven.stop("asked by ~/stop"), "reset": self.driven.reset
        }.items():  # fmt: skip
            self.create_service(Trigger, f"~/{word}", _answer(act), callback_group=whenever)

    def told(self) -> Parameters:
        """Return the parameters as they are now; raises ContractError or UnknownName if one makes no sense."""
        values = {field.name: self.get_parameter(field.name).value for field in fields(Parameters)}
        return Parameters(**keys(values, Parameters, "the parameters", prefix=""))

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Open the robot and load its policy; if that fails the log says why, and the node stays unconfigured."""
        return self._transition("configure", self.driven.configure)

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
        for step in (self.trigger_configure, self.trigger_activate):
            if step() != TransitionCallbackReturn.SUCCESS:
                return
        try:
            self._log(f"start: {self.driven.start()}")
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


def _answer(act: Callable[[], str]) -> Callable[[Any, Any], Any]:
    """Return the callback of a Trigger service: success, and in one line what came of it."""

    def serve(request: Any, response: Any) -> Any:
        try:
            response.success, response.message = True, act()
        except RobopolicyError as error:
            response.success, response.message = False, str(error)
        return response

    return serve
