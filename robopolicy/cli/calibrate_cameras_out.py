"""The file that `robopolicy calibrate-cameras` writes: its name, what it held before, and the twin's exact cameras."""

import argparse
from pathlib import Path
from typing import Any

from robopolicy.errors import UsageError

ENDINGS = (".yaml", ".yml", ".json")


def place_of(out: Path | None) -> Path:
    """Return where cameras are written.

    Raises:
        UsageError: if its name does not say in which format.
    """
    out = out or Path("cams.yaml")
    if out.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out {out}: want a name that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    return out


def kept(out: Path) -> dict[str, Any]:
    """Return what a file that is there already holds: cameras that are not calibrated anew stay in it."""
    from robopolicy.geometry.calibrations import read_calibrations

    return read_calibrations(out) if out.exists() else {}


def held(entries: dict[str, Any], kept: dict[str, Any]) -> str:
    """Return in words which cameras are in it now."""
    before = [view for view in kept if view not in entries]
    return ", ".join(entries) + (f" (and, from before, {', '.join(before)})" if before else "")


def write_twin(args: argparse.Namespace) -> None:
    """Write the exact cameras of a simulated world."""
    from robopolicy.cli.progress import say
    from robopolicy.clock import SimClock
    from robopolicy.geometry.calibrations import write_calibrations
    from sim_envs.tasks import make_task
    from sim_envs.twin import OFFERED, Twin

    size = {}
    if args.size is not None:
        height, _, width = args.size.partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) * int(width)):
            raise UsageError(f"--size {args.size}: want HxW, as in 480x640")
        size = {"size": (int(height), int(width))}
    names = OFFERED if args.cameras is None else tuple(args.cameras)
    task = args.twin.removeprefix("twin:")
    twin = Twin(make_task(task), SimClock(), cameras=names, **size)
    try:
        twin.reset(0)
        entries = {}
        for name, told in twin.camera_calibration().items():
            place = "T_tool_cam" if "T_tool_cam" in told else "T_base_cam"
            camera = twin.spec.cameras[name]
            entries[name] = {
                "K": told["K"],
                place: told[place],
                "size": [camera.height, camera.width],
                "calibration": {"exact": f"twin:{task}"},
            }
    finally:
        twin.close()
    out = place_of(args.out)
    before = kept(out)
    write_calibrations(out, {**before, **entries}, f"exact: the cameras of twin:{task}")
    say(f"{out} holds {held(entries, before)}, exact")
