"""Frames leave nothing behind; `benchmarks/bench_rendering.py --frames 100000` is the whole of it."""

import multiprocessing
import sys
from pathlib import Path

import pytest

from robopolicy.errors import NoGLBackend
from sim_envs.rendering import Painter

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import bench_rendering as bench

FRAMES = 1200
FRAME = 96 * 96 * 3  # bytes


def measure(keeps):
    """Return (bytes of resident memory a frame, files more), or why nothing can be drawn."""
    kept, draw = [], Painter.draw

    def keeping(self, *given, **options):
        kept.append(draw(self, *given, **options) | 1)
        return kept[-1]

    if keeps:
        Painter.draw = keeping
    try:
        return bench.leak(FRAMES)
    except NoGLBackend as error:
        return str(error)


def in_a_process_of_its_own(keeps):
    """What this one has freed could hold many frames unseen."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(measure, (keeps,))
    if isinstance(found, str):
        pytest.skip(found)
    return found


def test_frames_leave_neither_memory_nor_open_files():
    slope, files = in_a_process_of_its_own(keeps=False)
    assert files == 0
    assert slope < FRAME / 4, "bytes of resident memory a frame"


def test_a_frame_that_is_kept_is_seen():
    slope, _ = in_a_process_of_its_own(keeps=True)
    assert slope > FRAME / 2
