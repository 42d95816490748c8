"""`robopolicy doctor --ros`: what is on the ROS 2 network, and what of a robot's file is not."""

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robopolicy.cli.doctor_findings import Finding
from robopolicy.errors import RobopolicyError, UsageError

LISTEN_S = 3.0
CLOCK_S = 0.1  # stamps this far off are another clock's
VARIABLES = ("RMW_IMPLEMENTATION", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS")
RESTART = "look at ROS_DOMAIN_ID, CYCLONEDDS_URI and the firewall of both machines"


def examine_ros(domain: int | None, robot: str | None, seconds: float) -> Iterator[Finding]:
    """Listen for a while and yield one finding after the other.

    Args:
        domain: None takes ``ROS_DOMAIN_ID``, or 0.
        robot: ``ros:FILE.yaml``, or None: no file is compared.
        seconds: to listen.

    Raises:
        MissingExtra: without the extra ``ros``.
        UsageError, ConfigError: if the robot is none behind topics, or its file makes no sense.
    """
    from robopolicy_hardware.ros.survey import Survey

    config = None if robot is None else _config(robot)
    yield from _transport()
    commanded = [] if config is None else [topic.topic for topic in _commands(config).values()]
    survey = Survey(domain, tuple(commanded))
    try:
        yield Finding("domain", "ok", f"{survey.domain}{' (ROS_DOMAIN_ID)' if _by_variable(domain) else ''}")
        yield from _interface()
        survey.listen(seconds)
        publishers, subscribers = survey.publishers(), survey.subscribers()
        nodes = survey.nodes()
        yield Finding("nodes", "ok" if nodes else "note", ", ".join(nodes) or "none says its name")
        if not publishers:
            yield Finding("topics", "note", f"nobody publishes anything within {seconds:g} s", RESTART)
        for topic in sorted({one.topic for one in publishers}):
            yield of_topic(topic, [one for one in publishers if one.topic == topic], survey.heard.get(topic))
        if config is not None:
            yield from _of_robot(config, publishers, subscribers, survey.heard)
    finally:
        survey.close()


def of_topic(topic: str, publishers: Sequence[Any], heard: Any) -> Finding:
    """Return what is known of a topic: type, rate, QoS, age, clock, and who publishes."""
    kinds = sorted({one.kind for one in publishers})
    parts = [" and ".join(kinds)]
    if heard is not None and not heard.trouble:
        rate_hz, age_s = heard.rate_hz, heard.age_s()
        parts.append("nothing came" if age_s is None else f"{rate_hz:.1f} Hz" if rate_hz else "one message")
        if age_s is not None:
            parts.append(f"newest {age_s * 1e3:.0f} ms ago")
        if heard.zero:
            parts.append("stamps are 0")
        elif heard.offset_s is not None:
            parts.append(f"stamps {abs(heard.offset_s) * 1e3:.1f} ms {'behind' if heard.offset_s >= 0 else 'ahead'}")
    elif heard is not None:
        parts.append(heard.trouble)
    parts.append("; ".join(sorted({one.qos for one in publishers})))
    parts.append("by " + ", ".join(one.node for one in publishers))
    if len(kinds) > 1:
        return Finding(topic, "problem", ", ".join(parts), "one topic has one type: stop one of them")
    named = [one.node for one in publishers]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        remedy = f"{twice[0]} publishes it twice: was it started twice? (one that was killed is seen for another 10 s)"
        return Finding(topic, "note", ", ".join(parts), remedy)
    if heard is not None and heard.offset_s is not None and not -CLOCK_S < heard.offset_s < CLOCK_S:
        return Finding(topic, "note", ", ".join(parts), "another clock: synchronise it (chrony), or set stamp: bag")
    return Finding(topic, "ok", ", ".join(parts))


def _transport() -> Iterator[Finding]:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("cyclonedds", "rosbags")]
    rclpy = "rclpy is here too" if importlib.util.find_spec("rclpy") else "no rclpy here, and none is needed"
    told = [f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)]
    yield Finding("transport", "ok", "; ".join([", ".join(versions), rclpy, *told]))


def _by_variable(domain: int | None) -> bool:
    return domain is None and bool(os.environ.get("ROS_DOMAIN_ID"))


def _interface() -> Iterator[Finding]:
    uri = os.environ.get("CYCLONEDDS_URI", "")
    text = uri
    if uri.startswith("file://") and Path(uri.removeprefix("file://")).is_file():
        text = Path(uri.removeprefix("file://")).read_text()
    names = re.findall(r"<NetworkInterface[^>]*\b(?:name|address)=['\"]([^'\"]+)", text)
    alone = re.search(r"<AllowMulticast>\s*false", text, re.IGNORECASE) is not None
    if not uri:
        yield Finding("interface", "ok", "CycloneDDS chooses (CYCLONEDDS_URI is not set)")
        return
    told = [", ".join(names) or "CycloneDDS chooses", *(["no multicast"] if alone else [])]
    yield Finding("interface", "ok", f"{', '.join(told)} (CYCLONEDDS_URI)")


def _config(robot: str) -> Any:
    from robopolicy.topics.config import load_config

    kind, _, path = robot.partition(":")
    if kind != "ros" or not path:
        raise UsageError(f"--robot {robot}: only a robot behind topics has any; want ros:FILE.yaml")
    return load_config(path)


def _commands(config: Any) -> dict[str, Any]:
    return {name: topic for name, topic in config.streams().items() if name.startswith("action")}


def _of_robot(
    config: Any, publishers: Sequence[Any], subscribers: Sequence[Any], heard: Mapping[str, Any]
) -> Iterator[Finding]:
    """Compare the file with what was seen."""
    from robopolicy_hardware.ros.streams import type_of

    for what, topic in config.observed().items():
        if getattr(topic, "uvc", ""):
            yield _of_device(what, topic)
            continue
        name = _full(topic.topic)
        there = [one for one in publishers if one.topic == name]
        yield _of_stream(what, topic, type_of(what, topic), there, heard.get(name))
    for what, topic, kind in _commanded(config):
        name = _full(topic.topic)
        yield from _of_command(
            what, name, kind, [one for one in publishers if one.topic == name],
            [one for one in subscribers if one.topic == name],
        )  # fmt: skip


def _of_device(what: str, topic: Any) -> Finding:
    """Open a camera at this machine and look at its first picture."""
    from robopolicy_hardware.cameras.topics import device_of
    from robopolicy_hardware.cameras.uvc import UvcCamera

    camera = UvcCamera(device_of(topic))
    try:
        frame = camera.first(LISTEN_S)
    finally:
        camera.close()
    if frame is None:
        return Finding(what, "problem", camera.trouble or f"{topic.uvc} gives no picture", "name the right device: uvc")
    height, width, _ = frame.image.shape
    stamped = "stamped by its driver" if frame.by_device else "stamped when it comes: say its latency_s"
    return Finding(what, "ok", f"{topic.uvc}: {width} x {height}, {stamped}")


def _of_stream(what: str, topic: Any, kind: str, there: Sequence[Any], heard: Any) -> Finding:
    name = _full(topic.topic)
    if not there:
        return Finding(what, "problem", f"nobody publishes {name}", "start it, or name the right topic in the file")
    if kind not in {one.kind for one in there}:
        return Finding(what, "problem", f"{name} carries {there[0].kind}, not {kind}", "set its type in the file")
    if heard is None or not heard.count:
        return Finding(what, "problem", f"nothing came on {name}", "somebody is there, and says nothing: " + RESTART)
    if (wrong := _unreadable(what, topic, heard.newest)) is not None:
        return Finding(what, "problem", wrong, "name what is there in the file")
    age_s = heard.age_s()
    allowed_s = max(0.2, topic.max_age_s)
    if age_s > allowed_s:
        return Finding(what, "problem", f"the newest on {name} is {age_s:.2f} s old; {allowed_s:g} s is allowed")
    if topic.stamp == "header" and heard.zero:
        return Finding(what, "problem", f"the header stamps of {name} are 0", "set its stamp: bag in the file")
    if topic.stamp == "header" and heard.offset_s is not None and abs(heard.offset_s) > allowed_s:
        side = "behind" if heard.offset_s > 0 else "ahead of"
        found = f"the stamps of {name} are {abs(heard.offset_s):.2f} s {side} this machine's clock"
        return Finding(what, "problem", found, "synchronise the clocks (chrony), or set its stamp: bag")
    return Finding(what, "ok", f"{name}, {kind}")


def _unreadable(what: str, topic: Any, message: Any) -> str | None:
    """Return why a message does not hold what the file says, or None."""
    from robopolicy.topics.config import CameraTopic
    from robopolicy.topics.messages import numbers, picture

    try:
        if isinstance(topic, CameraTopic):
            picture(message, what)
        else:
            numbers(message, topic, what)
    except RobopolicyError as error:
        return str(error).removeprefix(f"{what}: ")
    return None


def _commanded(config: Any) -> Iterator[tuple[str, Any, str]]:
    from robopolicy_hardware.ros.set_points import of_action, of_gripper

    yield "action", config.action, of_action(config.action, 1.0 / config.rate_hz)[0]
    if config.action.gripper is not None:
        yield "action gripper", config.action.gripper, of_gripper(config.action.gripper)[0]


def _of_command(
    what: str, name: str, kind: str, publishers: Sequence[Any], subscribers: Sequence[Any]
) -> Iterator[Finding]:
    ready = [one for one in subscribers if one.kind == kind and not one.transient_local and not one.watching]
    if not ready:
        watches = {True: ", which only watches", False: ""}
        others = ", ".join(
            sorted({f"{one.node} as {one.kind}, {one.qos}{watches[one.watching]}" for one in subscribers})
        )
        found = f"nobody listens on {name} to {kind}, volatile" + (f"; listening: {others}" if others else "")
        yield Finding(what, "problem", found, "activate the controller, or name its topic and type in the file")
    else:
        yield Finding(what, "ok", f"{name}, {kind}, heard by {', '.join(one.node for one in ready)}")
    if publishers:
        who = ", ".join(f"{one.node} ({one.kind})" for one in publishers)
        yield Finding(what, "problem", f"{who} publishes on {name} too", "two would fight over the robot: stop it")


def _full(topic: str) -> str:
    return "/" + topic.lstrip("/")
