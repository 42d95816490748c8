"""Two processes over DDS on loopback: how late a message arrives, and its cost, beside CycloneDDS's own codec.

    python tests/benchmarks/bench_wire.py [--seconds 5] [--quick]

Bars: JointState p50 < 2 ms, VGA picture p50 < 10 ms, a picture costs at most 2.5 ms of CPU at either end. Latency is
from before a message is encoded until it is decoded in the other process, by the one monotonic clock of the machine.
CPU is all that either process uses from the first message to the last, waiting and discovery among it. The peer is the
IdlStruct codec that comes with cyclonedds, by the same participants, QoS and bytes on the wire.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from fake_ros_arm import LOOPBACK

JOINTS, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
SIZE = (480, 640)
RATES = {JOINTS: 200.0, IMAGE: 30.0}
LAST, WARM_UP = "last", 20  # frame_id of the message that ends a run; messages that are not counted
PATIENCE_S = 30.0


@dataclass
class Row:
    """What one end of one run saw."""

    late_ms: list[float]
    cpu_ms: float  # a message


def peer_types() -> dict[str, Any]:
    """Message types for CycloneDDS's own codec, {kind: class}."""
    from cyclonedds.idl import make_idl_struct, types

    time_ = make_idl_struct("Time_", "builtin_interfaces.msg.dds_.Time_", {"sec": types.int32, "nanosec": types.uint32})
    header = make_idl_struct("Header_", "std_msgs.msg.dds_.Header_", {"stamp": time_, "frame_id": str})
    numbers = types.sequence[types.float64]
    joints = {
        "header": header,
        "name": types.sequence[str],
        "position": numbers,
        "velocity": numbers,
        "effort": numbers,
    }
    image = {"header": header, "height": types.uint32, "width": types.uint32, "encoding": str,
             "is_bigendian": types.uint8, "step": types.uint32, "data": types.sequence[types.uint8]}  # fmt: skip
    return {
        JOINTS: make_idl_struct("JointState_", "sensor_msgs.msg.dds_.JointState_", joints),
        IMAGE: make_idl_struct("Image_", "sensor_msgs.msg.dds_.Image_", image),
        "header": header, "time": time_,
    }  # fmt: skip


class Peer:
    """One topic by CycloneDDS and its own codec."""

    def __init__(self, domain: int, kind: str, on_message: Callable[[Any], None] | None = None) -> None:
        from cyclonedds.domain import DomainParticipant
        from cyclonedds.pub import DataWriter
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.sub import DataReader
        from cyclonedds.topic import Topic
        from cyclonedds.util import duration

        self.types = peer_types()
        self._participant = DomainParticipant(domain)
        topic = Topic(self._participant, "rt/bench", self.types[kind])
        sure = Policy.Reliability.Reliable(duration(milliseconds=100))
        keep = [Policy.Durability.Volatile, Policy.History.KeepLast(5)]
        self._on_message, self._going = on_message, True
        if on_message is None:
            self._writer = DataWriter(self._participant, topic, qos=Qos(sure, *keep))
        else:
            self._reader = DataReader(self._participant, topic, qos=Qos(Policy.Reliability.BestEffort, *keep))
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet

        waiting = WaitSet(self._participant)
        waiting.attach(ReadCondition(self._reader, SampleState.Any | ViewState.Any | InstanceState.Any))
        while True:
            waiting.wait(100_000_000)
            for sample in self._reader.take(N=5):
                if hasattr(sample, "header"):
                    self._on_message(sample)

    def send(self, message: Any) -> None:
        self._writer.write(message)

    @property
    def subscribers(self) -> int:
        return len(self._writer.get_matched_subscriptions())

    def make(self, kind: str, frame: str, stamp_ns: int, pixels: Any) -> Any:
        time_ = self.types["time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        header = self.types["header"](stamp=time_, frame_id=frame)
        if kind == JOINTS:
            seven = [0.1] * 7
            return self.types[kind](header=header, name=NAMES, position=seven, velocity=seven, effort=seven)
        return self.types[kind](header=header, height=SIZE[0], width=SIZE[1], encoding="rgb8", is_bigendian=0,
                                step=3 * SIZE[1], data=pixels)  # fmt: skip


class Ours:
    """One topic as `robopolicy_hardware.ros.dds` carries it."""

    def __init__(self, domain: int, kind: str, on_message: Callable[[Any], None] | None = None) -> None:
        from robopolicy_hardware.ros.dds import Topics

        topics = Topics(domain)
        if on_message is None:
            self._publisher = topics.publisher("/bench", kind)
        else:
            self._subscription = topics.subscribe("/bench", kind, lambda received, _: on_message(received))

    def send(self, message: Any) -> None:
        self._publisher.send(message)

    @property
    def subscribers(self) -> int:
        return self._publisher.subscribers

    def make(self, kind: str, frame: str, stamp_ns: int, pixels: Any) -> Any:
        from robopolicy_hardware.ros.codec import message
        from robopolicy_hardware.ros.set_points import header

        if kind == JOINTS:
            seven = np.full(7, 0.1)
            return message(kind)(header(stamp_ns, frame), NAMES, seven, seven, seven)
        return message(kind)(header(stamp_ns, frame), *SIZE, "rgb8", 0, 3 * SIZE[1], pixels)


NAMES = [f"joint{i}" for i in range(1, 8)]
CODECS = {"ours": Ours, "peer": Peer}


def receive(codec: str, kind: str, domain: int) -> None:
    """Take messages until the last; print what they were."""
    late_ms: list[float] = []
    cpu_s: list[float] = []
    done = threading.Event()

    def take(received: Any) -> None:
        now_ns = time.monotonic_ns()
        stamp = received.header.stamp
        if received.header.frame_id == LAST:
            done.set()
            return
        late_ms.append((now_ns - stamp.sec * 10**9 - stamp.nanosec) / 1e6)
        cpu_s.append(time.process_time())

    kept = CODECS[codec](domain, kind, take)
    print("up", flush=True)
    done.wait(10 * PATIENCE_S)
    counted = max(len(late_ms) - WARM_UP, 1)
    cost_ms = 1e3 * (cpu_s[-1] - cpu_s[min(WARM_UP, len(cpu_s) - 1)]) / counted if cpu_s else 0.0
    print(json.dumps({"late_ms": late_ms[WARM_UP:], "cpu_ms": cost_ms}), flush=True)
    os._exit(0 if kept else 1)  # what the codec's threads hold is the system's to take


def measure(codec: str, kind: str, count: int, domain: int) -> tuple[Row, Row, int]:
    """Return what the publisher and the receiver saw, and how many messages never came."""
    words = [sys.executable, __file__, "--receive", codec, "--kind", kind, "--domain", str(domain)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "up\n"
        sender = CODECS[codec](domain, kind)
        deadline_s = time.monotonic() + PATIENCE_S
        while not sender.subscribers:
            assert time.monotonic() < deadline_s, "the two did not find one another"
            time.sleep(0.02)
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, 3 * SIZE[0] * SIZE[1], np.uint8)
        pixels = image.tolist() if codec == "peer" else image
        period_s, start_s, cpu_s = 1 / RATES[kind], time.monotonic(), 0.0
        for k in range(count + WARM_UP):
            if k == WARM_UP:
                cpu_s = time.process_time()
            time.sleep(max(0.0, start_s + k * period_s - time.monotonic()))
            sender.send(sender.make(kind, "", time.monotonic_ns(), pixels))
        cpu_s = time.process_time() - cpu_s
        while receiver.poll() is None and time.monotonic() < deadline_s + count * period_s + PATIENCE_S:
            sender.send(sender.make(kind, LAST, time.monotonic_ns(), pixels[:0] if kind == IMAGE else pixels))
            time.sleep(0.2)
        told = json.loads(receiver.stdout.readline())
    return Row([], 1e3 * cpu_s / count), Row(**told), count - len(told["late_ms"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each stream")
    parser.add_argument("--quick", action="store_true", help="without the peer")
    parser.add_argument("--domain", type=int, default=100 + os.getpid() % 60, help=argparse.SUPPRESS)
    parser.add_argument("--receive", choices=CODECS, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["CYCLONEDDS_URI"] = LOOPBACK
    if args.receive:
        receive(args.receive, args.kind, args.domain)
    told = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{'':<24}{'n':>6}{'lost':>6}{'p50 ms':>9}{'p90':>8}{'p99':>9}{'CPU ms out':>12}{'in':>7}   {told}")
    median: dict[tuple[str, str], float] = {}
    costs: dict[str, tuple[float, float]] = {}
    for codec in ["ours"] if args.quick else ["ours", "peer"]:
        for kind in (JOINTS, IMAGE):
            count = max(30, round(args.seconds * RATES[kind] * (0.3 if codec == "peer" else 1.0)))
            out, into, lost = measure(codec, kind, count, args.domain)
            p50, p90, p99 = np.percentile(into.late_ms or [np.inf], [50, 90, 99])
            name = f"{codec} {kind.rpartition('/')[2]}"
            median[codec, kind] = p50
            costs[f"{codec} {kind}"] = out.cpu_ms, into.cpu_ms
            print(
                f"{name:<24}{count:>6}{lost:>6}{p50:>9.2f}{p90:>8.2f}{p99:>9.2f}{out.cpu_ms:>12.2f}{into.cpu_ms:>7.2f}"
            )
    cost = max(costs[f"ours {IMAGE}"])
    for name, value, bar in (
        ("JointState p50, ms", median["ours", JOINTS], 2.0), ("VGA picture p50, ms", median["ours", IMAGE], 10.0),
        ("CPU of a picture, either end, ms", cost, 2.5),
    ):  # fmt: skip
        print(f"{name:<34}{value:>8.2f}   < {bar:<6g}{'yes' if value <= bar else 'NO'}")
    if not args.quick:
        ratio = median["peer", IMAGE] / median["ours", IMAGE]
        theirs = " and ".join(
            f"{b / a:.0f}x" for a, b in zip(costs[f"ours {IMAGE}"], costs[f"peer {IMAGE}"], strict=True)
        )
        print(f"CycloneDDS's own codec: {ratio:.0f}x as late for a picture, {theirs} the CPU out and in")


if __name__ == "__main__":
    main()
