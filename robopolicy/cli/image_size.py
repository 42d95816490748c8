"""Sizes of pictures: `--image-size` of those a network sees, `--camera-size` a simulated camera's, `--size` stored."""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence

from robopolicy.errors import UnknownCamera, UsageError
from robopolicy.spec import CameraSpec

SIZE = re.compile(r"(?:(?P<camera>.+)=)?(?P<height>\d{1,6})x(?P<width>\d{1,6})")


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
    changed = []
    for name, size in read_sizes("--image-size", words, cameras).items():
        have = cameras[name].height, cameras[name].width
        if size == have:
            continue
        if size[0] > have[0] or size[1] > have[1]:
            raise UsageError(f"--image-size {size[0]}x{size[1]}: camera {name} has {have[0]}x{have[1]} px, no more")
        changed.append((name, *size))
    return tuple(changed)


def read_sizes(flag: str, words: Sequence[str], names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return {name: (height, width)} of those of ``names`` that a word speaks of.

    Args:
        flag: whose words they are, for messages.
        words: ``96x96`` for all, ``front=120x160`` for one, which goes before.
        names: of cameras.

    Raises:
        UsageError: if a word is no size, or two are of the same camera.
        UnknownCamera: naming those there are.
    """
    names = tuple(names)
    asked: dict[str | None, tuple[int, int]] = {}
    for word in words:
        named = SIZE.fullmatch(word)
        if named is None or not int(named["height"]) * int(named["width"]):
            raise UsageError(f"{flag} {word!r}: want HEIGHTxWIDTH in px, 96x96, or CAMERA=HEIGHTxWIDTH")
        if named["camera"] is not None and named["camera"] not in names:
            raise UnknownCamera("camera", named["camera"], names)
        if named["camera"] in asked:
            raise UsageError(f"{flag} gives {named['camera'] or 'all cameras'} a second size, {word!r}; want one")
        asked[named["camera"]] = int(named["height"]), int(named["width"])
    return {name: size for name in names if (size := asked.get(name) or asked.get(None)) is not None}


def size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH, px."""
    named = SIZE.fullmatch(text)
    if named is None or named["camera"] is not None or not int(named["height"]) * int(named["width"]):
        raise argparse.ArgumentTypeError(f"{text!r}: want HEIGHTxWIDTH in px, such as 240x320")
    return int(named["height"]), int(named["width"])
