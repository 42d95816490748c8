"""What shows a twin where the objects are, and what the robot's arm is like: options of `twin follow` and `deploy`."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import positive, rate
from robopolicy.errors import SpecMismatch, UnknownCamera, UsageError


@dataclass(frozen=True)
class Seeing:
    """The options, as they were given."""

    pose: tuple[str, ...] = ()  # OBJECT=TOPIC
    markers: Path | None = None
    noise: tuple[float, float] = (1.5, 1.5)  # mm, degrees
    pose_hz: float = 30.0
    unseen: float = 5.0  # s: before a robot; a hand covers what it grasps, and physics carries it
    parameters: Path | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Seeing":
        """Return what the command line says."""
        return cls(tuple(args.pose), args.markers, tuple(args.noise), args.pose_hz, args.unseen, args.parameters)


def add_seeing(parser: Any, *, unseen_s: float) -> None:
    """Add the options to a parser, or to a group of one; ``unseen_s`` is the default of ``--unseen``."""
    parser.add_argument(
        "--pose", nargs="+", default=[], metavar="OBJECT=TOPIC", help="objects' poses on PoseStamped topics"
    )
    parser.add_argument("--markers", type=Path, metavar="FILE.yaml", help="tags on the objects, seen by the cameras")
    parser.add_argument(
        "--noise", nargs=2, type=positive, default=(1.5, 1.5), metavar=("MM", "DEG"),
        help="standard deviation of objects' poses, each axis (default 1.5 1.5)",
    )  # fmt: skip
    parser.add_argument("--pose-hz", type=rate, default=30.0, metavar="HZ", help="of objects' poses (default 30)")
    parser.add_argument(
        "--unseen", type=positive, default=unseen_s, metavar="S",
        help=f"that an object may go unseen before the twin is called diverged (default {unseen_s:g})",
    )  # fmt: skip
    parser.add_argument("--parameters", type=Path, metavar="FILE.json", help="as `twin identify` wrote them")


def groups_of(
    config: Any, objects: Any, poses: Sequence[str], cameras: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return which streams are read together, and those that the file does not have."""
    from robopolicy.topics.config import NumbersTopic
    from sim_envs.tracked import find_tracked

    if "q" not in config.state:
        raise SpecMismatch(f"a twin follows joints: the file wants a state q; it has {', '.join(config.state)}")
    groups = {"arm": [f"state {name}" for name in ("q", "dq", "gripper") if name in config.state]}
    extra = {}
    for text in poses:
        name, _, topic = text.partition("=")
        find_tracked(objects, name)
        if not topic:
            raise UsageError(f"--pose {text!r}: want OBJECT=TOPIC, as in cube=/cube_pose")
        extra[f"state {name} pose"] = NumbersTopic(topic, "geometry_msgs/msg/PoseStamped", "pose")
        groups[name] = [f"state {name} pose"]
    for one in objects:
        if one.name not in groups and all(name in config.state for name in one.states):
            groups[one.name] = [f"state {name}" for name in one.states]
    groups |= {name: [name] for name in tags(cameras)}
    return groups, extra


def tags(cameras: Sequence[str]) -> list[str]:
    """Return the names of the groups, and streams, of the cameras that see tags."""
    return [f"camera {name}" for name in cameras]


def prepared(path: Path | None) -> dict[str, Any]:
    """Return what makes an `AlignedTwin` have identified parameters."""
    if path is None:
        return {}
    from sim_envs.parameters import apply, load

    parameters = load(path)
    return {"prepare": lambda model: apply(parameters, model), "delay_s": parameters.delay_s}


def settings_of(seeing: Seeing) -> Any:
    """Return the `ObserverSettings`."""
    from dataclasses import replace
    from math import radians

    from sim_envs.observer import POSITION, TURN, ObserverSettings

    millimetres, degrees = seeing.noise
    position, turn = replace(POSITION, measured=millimetres / 1e3), replace(TURN, measured=radians(degrees))
    return ObserverSettings(position, turn, rate_hz=seeing.pose_hz, silence_s=seeing.unseen)


def finders_of(path: Path | None, cameras: Mapping[str, Any], objects: Any) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Return what finds the tags, and in which cameras; raises UnknownName if the files do not fit together."""
    if path is None:
        return (), ()
    from sim_envs.markers import MarkerFinder, load_markers
    from sim_envs.tracked import find_tracked

    settings = load_markers(path)
    for marker in settings.markers:
        find_tracked(objects, marker.object)
    for name in settings.cameras:
        if name not in cameras:
            raise UnknownCamera(f"camera of {path}", name, cameras)
    return (MarkerFinder(settings),), tuple(settings.cameras)
