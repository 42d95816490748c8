"""Frames leave nothing behind; `benchmarks/bench_rendering.py --frames 100000` is the whole of it."""

import sys
from pathlib import Path

import pytest

from robopolicy.errors import NoGLBackend
from sim_envs.rendering import Painter

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import bench_rendering as bench

FRAMES = 1200
FRAME = 96 * 96 * 3  # bytes


def test_frames_leave_neither_memory_nor_open_files():
    try:
        slope, files = bench.leak(FRAMES)
    except NoGLBackend as error:
        pytest.skip(str(error))
    assert files == 0
    assert slope < FRAME / 4, "bytes of resident memory a frame"


def test_a_frame_that_is_kept_is_seen(monkeypatch):
    kept, draw = [], Painter.draw

    def keeping(self, *given, **options):
        kept.append(draw(self, *given, **options) | 1)
        return kept[-1]

    monkeypatch.setattr(Painter, "draw", keeping)
    try:
        slope, _ = bench.leak(FRAMES)
    except NoGLBackend as error:
        pytest.skip(str(error))
    assert slope > FRAME / 2
