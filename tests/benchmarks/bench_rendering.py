"""Frames a second through our camera path against bare mujoco.Renderer at the same size, and what many frames leave.

    python tests/benchmarks/bench_rendering.py [--seconds 5] [--frames 2000]
    python tests/benchmarks/bench_rendering.py --frames 100000    # the bar of no leak; some minutes

Both draw the same scene, low-poly and without multisampling, take turns, and hand over a fresh array a frame; time is
that of the process, so that a busy machine slows both alike. Bar: 95 % of the bare renderer without shadows and
reflections, which our cameras do not draw either; as it comes it draws them. The leak is the slope of the resident
memory over the frames, the first tenth left out, and the growth of open files.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.clock import SimClock
from sim_envs.rendering import Painter
from sim_envs.worlds import make_world

SIZES = ((84, 84), (96, 96), (240, 320))
CAMERAS = ("front", "wrist")


def frames_a_second(draws: dict[str, Callable[[int], np.ndarray]], seconds: float) -> dict[str, float]:
    """Return CPU frames a second of each: the median of turns of ten frames."""
    turns: dict[str, list[float]] = {name: [] for name in draws}
    for draw in draws.values():
        draw(0)
    while sum(map(sum, turns.values())) < seconds:
        for name, draw in draws.items():
            begin_s = time.process_time()
            for k in range(10):
                draw(k)
            turns[name].append(time.process_time() - begin_s)
    return {name: 10 / float(np.median(took_s)) for name, took_s in turns.items()}


def compare(seconds: float) -> None:
    """Print frames a second of both at each size."""
    import mujoco  # once sim_envs has chosen what draws

    world = make_world("twin:lift", SimClock(), cameras=())
    world.reset(0)
    model, data = world.model, world.data
    painter = Painter(model)
    painter.draw(data, "front", 96, 96)  # which sets the model's samples to none: for both
    for height, width in SIZES:
        renderers = [mujoco.Renderer(model, height, width) for _ in range(2)]
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderers[1].scene.flags[flag.value] = False

        def bare(k: int, renderer: Any = renderers[1]) -> np.ndarray:
            renderer.update_scene(data, CAMERAS[k % 2])
            return renderer.render()

        def ours(k: int, height: int = height, width: int = width) -> np.ndarray:
            return painter.draw(data, CAMERAS[k % 2], height, width)

        assert np.array_equal(ours(0), bare(0)), "the same picture"
        found = frames_a_second(
            {"ours": ours, "bare": bare, "as it comes": partial(bare, renderer=renderers[0])}, seconds
        )
        share = found["ours"] / found["bare"]
        met = "yes" if share >= 0.95 else "NO"
        print(
            f"{height}x{width}: {found['ours']:6.0f} frames/s through our camera path, {found['bare']:6.0f} of bare "
            f"mujoco.Renderer ({found['as it comes']:.0f} as it comes): {share:.0%}; bar 95 %: {met}  "
            f"({painter.gl_renderer})",
            flush=True,
        )
        for renderer in renderers:
            renderer.close()
    painter.close()
    world.close()


def leak(frames: int) -> tuple[float, int]:
    """Return bytes of resident memory a frame and newly open files, over ``frames`` drawn by a twin that is read."""
    clock = SimClock()
    world = make_world("twin:lift", clock, cameras=CAMERAS)
    at, held, files = [], [], 0
    for k in range(frames // len(CAMERAS)):
        if k % 200 == 0:
            world.reset(k)
        clock.sleep_until(clock.now_ns() + 2_000_000)
        world.read()
        drawn = (k + 1) * len(CAMERAS)
        if drawn >= frames // 10:
            files = files or open_files()
            if drawn % max(frames // 200, 2) == 0:
                at.append(drawn)
                held.append(resident())
    grown = open_files() - files
    world.close()
    return float(np.polyfit(at, held, 1)[0]), grown


def resident() -> int:
    """Return this process' resident memory, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def open_files() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each size")
    parser.add_argument("--frames", type=int, default=2000)
    args = parser.parse_args()
    compare(args.seconds)
    slope, files = leak(args.frames)
    print(
        f"{args.frames} frames of a twin's two cameras: {slope:+.1f} bytes a frame, {slope * 1e5 / 2**20:+.2f} MiB "
        f"over 10^5; {files:+d} open files"
    )


if __name__ == "__main__":
    main()
