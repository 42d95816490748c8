"""Cameras at this machine beside the topics of a robot: whoever subscribes to one does not see the difference."""

from collections.abc import Iterable, Mapping
from typing import Any

from robopolicy.topics.config import CameraTopic
from robopolicy_hardware.cameras.uvc import Device, Frame, UvcCamera
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.transport import OnMessage, Publisher, Subscription, Transport


def with_devices(transport: Transport, cameras: Iterable[CameraTopic]) -> Transport:
    """Return the transport, with those of the cameras that are devices of this machine among its topics."""
    devices = {topic.topic: device_of(topic) for topic in cameras if topic.uvc}
    return DeviceTopics(transport, devices) if devices else transport


def device_of(topic: CameraTopic) -> Device:
    """Return what to open for a camera at this machine."""
    return Device(topic.uvc, topic.width, topic.height, topic.fps, topic.fourcc)


class DeviceTopics:
    """A `Transport`: some topics are devices, the others those of another transport.

    Args:
        others: carries them.
        devices: {topic: what to open for it}.
    """

    def __init__(self, others: Transport, devices: Mapping[str, Device]) -> None:
        self._others, self._devices = others, dict(devices)

    def subscribe(self, topic: str, kind: str, on_message: OnMessage | None = None) -> Subscription:
        """Read a topic, as `Transport` says; a device is opened."""
        if topic in self._devices:
            return DeviceSubscription(self._devices[topic], on_message)
        return self._others.subscribe(topic, kind, on_message)

    def publisher(self, topic: str, kind: str, *, latched: bool = False) -> Publisher:
        """Return what publishes on a topic, as `Transport` says."""
        return self._others.publisher(topic, kind, latched=latched)

    def publishers(self, topic: str) -> list[str]:
        """Return the type that each publisher of a topic has, as `Transport` says."""
        return self._others.publishers(topic)

    def publishing_nodes(self, topic: str) -> list[str]:
        """Return the name of the node of each publisher of a topic, as `Transport` says."""
        return self._others.publishing_nodes(topic)

    def close(self) -> None:
        """Leave the network; a device is closed with its subscription."""
        self._others.close()


class DeviceSubscription:
    """Pictures of a device as ``sensor_msgs/msg/Image``; they came when they were captured."""

    def __init__(self, device: Device, on_message: OnMessage | None) -> None:
        self._on_message = on_message
        self._seen_ns = -1
        self._camera = UvcCamera(device, None if on_message is None else self._tell)

    def newest(self) -> tuple[Any, int] | None:
        """Return the newest picture and when it was captured (monotonic ns), or None before the first."""
        frame = self._camera.newest()
        return None if frame is None else (as_message(frame), frame.stamp_ns)

    def unseen(self) -> list[Any]:
        """Return the newest picture if it is another than at the last call."""
        frame = self._camera.newest()
        if frame is None or frame.stamp_ns == self._seen_ns:
            return []
        self._seen_ns = frame.stamp_ns
        return [as_message(frame)]

    @property
    def trouble(self) -> str:
        """Why nothing comes, in one line that stays the same, or nothing."""
        return self._camera.trouble

    def close(self) -> None:
        """Let the device go; idempotent."""
        self._camera.close()

    def _tell(self, frame: Frame) -> None:
        assert self._on_message is not None
        self._on_message(as_message(frame), frame.stamp_ns)


def as_message(frame: Frame) -> Any:
    """Return a picture as an ``Image`` without a stamp: its capture is when it came."""
    time = message("builtin_interfaces/msg/Time")(0, 0)
    header = message("std_msgs/msg/Header")(time, "")
    height, width, _ = frame.image.shape
    return message("sensor_msgs/msg/Image")(header, height, width, "rgb8", 0, 3 * width, frame.image.reshape(-1))
