"""`robopolicy doctor`: what this machine can do, each problem with its remedy."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least, positive
from robopolicy.cli.doctor_findings import Finding, report
from robopolicy.cli.doctor_ros import LISTEN_S, examine_ros
from robopolicy.errors import SYSTEM_LIBRARIES, UsageError

EXTRAS = {
    "pusht": ("gymnasium", "gym_pusht"),
    "robosuite": ("robosuite",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "ros": ("cyclonedds", "rosbags"),
    "human": ("mediapipe", "av"),
    "convert": ("h5py", "pyarrow", "av"),
    "teleop": ("viser", "pygame"),
}


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("doctor", parents=[debug], help="what this machine can do, with remedies")
    parser.add_argument("--path", type=Path, default=Path("."), help="folder whose disk is measured")
    ros = parser.add_argument_group("what is on the ROS 2 network, instead of what this machine can do")
    ros.add_argument("--ros", action="store_true", help="topics, rates, QoS, ages, clocks, and who publishes")
    ros.add_argument("--domain", type=at_least(0), help="ROS 2 domain (default: ROS_DOMAIN_ID, or 0)")
    ros.add_argument("--robot", metavar="ros:FILE", help="and what of this file's topics is missing or wrong")
    ros.add_argument("--seconds", type=positive, default=LISTEN_S, metavar="S", help="to listen (default %(default)g)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 if something that is needed is missing."""
    if args.ros:
        return report(examine_ros(args.domain, args.robot, args.seconds))
    if args.robot is not None or args.domain is not None:
        raise UsageError("--robot and --domain are of the ROS 2 network: add --ros")
    return report(examine(args.path))


def examine(path: Path) -> Iterator[Finding]:
    """Yield one finding after the other; a probe that breaks is itself a finding."""
    for what, probe in (
        ("python", _python), ("torch", _torch), ("opencv", _opencv), ("rendering", _rendering),
        ("extras", _extras), ("ros", _ros), ("disk", lambda: _disk(path)), ("codec", _codec),
    ):  # fmt: skip
        yield from _guard(what, probe)


def _guard(what: str, probe: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from probe()
    except Exception as error:  # the doctor reports, whatever it meets
        yield Finding(what, "problem", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")


def _torch() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        yield Finding("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda} on {name}")
    else:
        yield Finding("torch", "ok", f"{torch.__version__}, CPU only ({torch.get_num_threads()} threads)")


def _opencv() -> Iterator[Finding]:
    command = [sys.executable, "-c", "import cv2; print(cv2.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        yield Finding("opencv", "ok", done.stdout.strip())
    else:
        reason = done.stderr.strip().splitlines()[-1]
        yield Finding("opencv", "problem", reason, SYSTEM_LIBRARIES)


def _rendering() -> Iterator[Finding]:
    command = [sys.executable, "-c", "from sim_envs.rendering import probe; print(probe())"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == 0:
        yield Finding("rendering", "ok", done.stdout.strip().splitlines()[-1])
    else:
        last = done.stderr.strip().splitlines()[-1].removeprefix("robopolicy.errors.NoGLBackend: ")
        reason = last.removesuffix(SYSTEM_LIBRARIES).rstrip(" :;")
        yield Finding("rendering", "problem", reason, SYSTEM_LIBRARIES)


def _extras() -> Iterator[Finding]:
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            yield Finding(f"[{extra}]", "note", f"without {', '.join(missing)}", f"pip install 'robopolicy[{extra}]'")
        else:
            yield Finding(f"[{extra}]", "ok", ", ".join(f"{p} {_version(p)}" for p in packages))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "(no version)"


def _ros() -> Iterator[Finding]:
    # `import launch` proves nothing: any folder called launch answers to it.
    command = [sys.executable, "-c", "import rclpy; print(rclpy.__file__)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    distribution = os.environ.get("ROS_DISTRO", "")
    if done.returncode == 0:
        yield Finding("ros", "ok", f"{distribution or 'rclpy'}: {done.stdout.strip()}")
    else:
        remedy = f"source /opt/ros/{distribution}/setup.bash" if distribution else "source /opt/ros/DISTRO/setup.bash"
        yield Finding("ros", "note", "no rclpy; --robot ros:FILE.yaml and --teleop ros need none", remedy)


def _disk(path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path).free / 1e9
    block = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=path) as file:
        start = time.perf_counter()
        for _ in range(64):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        speed = 64 / (time.perf_counter() - start)
    found = f"{free:.0f} GB free, writes {speed:.0f} MB/s with fsync at {path.resolve()}"
    if free < 2:
        yield Finding("disk", "problem", found, "free some space: an hour of two cameras takes about 5 GB")
    else:
        yield Finding("disk", "ok", found)


def _codec() -> Iterator[Finding]:
    import numpy as np
    import simplejpeg

    rows = np.linspace(0, 255, 240)[:, None, None] + np.linspace(0, 64, 320)[None, :, None]
    frame = np.ascontiguousarray(np.broadcast_to(rows, (240, 320, 3)).astype(np.uint8))
    start = time.perf_counter()
    for _ in range(50):
        code = simplejpeg.encode_jpeg(frame, quality=90)
    middle = time.perf_counter()
    for _ in range(50):
        simplejpeg.decode_jpeg(code)
    end = time.perf_counter()
    encode_ms, decode_ms = (middle - start) * 20, (end - middle) * 20
    yield Finding("codec", "ok", f"JPEG 320x240: encode {encode_ms:.2f} ms, decode {decode_ms:.2f} ms a frame")
