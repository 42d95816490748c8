"""Sizes of pictures: `--image-size`, those that the network sees, `--camera-size`, those a simulated camera gives."""

import argparse
import re
from collections.abc import Mapping, Sequence

from robopolicy.errors import UnknownCamera, UsageError
from robopolicy.spec import CameraSpec

SIZE = re.compile(r"(?:(?P<camera>.+)=)?(?P<height>\d+)x(?P<width>\d+)")


def parse_sizes(words: Sequence[str], cameras: Mapping[str, CameraSpec]) -> tuple[tuple[str, int, int], ...]:
    """Return (camera, height, width) of each camera whose pictures are to be made smaller.

    Args:
        words: ``96x96`` for all cameras, ``front=120x160`` for one, which goes before.
        cameras: those the policy sees, as recorded.

    Raises:
        UsageError: if a word says nothing, or pictures would have to grow.
        UnknownCamera: naming those there are.
    """
    if not cameras:
        raise UsageError("--image-size says nothing to a policy that sees no camera; name them: --cameras front ...")
    asked: dict[str | None, tuple[int, int]] = {}
    for word in words:
        named = SIZE.fullmatch(word)
        if named is None:
            raise UsageError(f"--image-size {word!r}: want HEIGHTxWIDTH in px, 96x96, or CAMERA=HEIGHTxWIDTH")
        if named["camera"] is not None and named["camera"] not in cameras:
            raise UnknownCamera("camera", named["camera"], cameras)
        asked[named["camera"]] = int(named["height"]), int(named["width"])
    sizes = {name: asked.get(name) or asked.get(None) for name in cameras}
    changed = []
    for name, size in sizes.items():
        have = cameras[name].height, cameras[name].width
        if size is None or size == have:
            continue
        if size[0] > have[0] or size[1] > have[1]:
            raise UsageError(f"--image-size {size[0]}x{size[1]}: camera {name} has {have[0]}x{have[1]} px, no more")
        changed.append((name, *size))
    return tuple(changed)


def size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH, px."""
    named = SIZE.fullmatch(text)
    if named is None or named["camera"] is not None or not int(named["height"]) * int(named["width"]):
        raise argparse.ArgumentTypeError(f"{text!r}: want HEIGHTxWIDTH in px, such as 240x320")
    return int(named["height"]), int(named["width"])
