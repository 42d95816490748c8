"""Time of drawing motion tracks: of one view, of both in one batch, of one after the other; and of whole plans.

    python tests/benchmarks/bench_track_speed.py                    # CPU, one thread and two
    python tests/benchmarks/bench_track_speed.py --device cuda      # bar: both views in one batch <= 1.3x one view
    python tests/benchmarks/bench_track_speed.py --processor-time --threads 1    # beside other programs

Drawing is all from pictures to tracks: the encoder, the solver with its network and, of two views, their agreement. A
network sees one view or both, with the same weights, which are random. All ways take turns, so that a busy machine
slows all alike; ratios are medians of the turns' own. Of a plan, lifting is the way from tracks to poses of the tool.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from robopolicy.geometry.cameras import Camera
from robopolicy.policies import motion_track
from robopolicy.policies.latency import device_name
from robopolicy.policies.motion_track import MotionTrackPolicy
from robopolicy.policies.track_config import MotionTrackConfig
from robopolicy.policies.track_net import ROW, XY, TrackNet
from robopolicy.policies.track_views import Views
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.spec import TOOL_POSE, ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation

VIEWS = ("front", "side")
LENS = (-0.21, 0.07, 0.001, -0.002)
DEFAULT = MotionTrackConfig()
LARGE = replace(DEFAULT, net=UnetConfig(), vision=replace(DEFAULT.vision, width=64))
CASES = {
    "default, 96x96": (DEFAULT, 96, ()),
    "default, 96x96, lenses": (DEFAULT, 96, LENS),
    "default, 128x128": (DEFAULT, 128, ()),
    "unet1d and width 64, 96x96": (LARGE, 96, ()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, metavar="CASE")
    parser.add_argument(
        "--processor-time", action="store_true", help="in place of the clock's; that of threads adds up"
    )
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--plans", type=int, default=100, help="whole plans to measure")
    args = parser.parse_args()
    clock = Clock(args.device, args.processor_time)
    threads = args.threads if args.device == "cpu" else args.threads[:1]
    print(f"{device_name(torch.device(args.device))}; medians of {args.turns} turns, ms (encoder + solver); bar 1.3x")
    print(
        f"{'':<28}{'threads':>8}{'one view':>22}{'both, one batch':>22}{'one after the other':>22}"
        f"{'both / one':>12}{'encoder':>9}{'solver':>8}{'unagreed':>10}"
    )
    for name in args.cases:
        ways = drawing(*CASES[name], args.device)
        for count in threads:
            torch.set_num_threads(count)
            took = turns(ways, args.turns, clock)
            print(f"{name:<28}{count:>8}{row(took)}", flush=True)
    print(f"\nwhole plans of both views, ms\n{'':<28}{'threads':>8}{'candidates':>12}{'p50':>8}{'p99':>8}", end="")
    print(f"{'encoder':>9}{'solver':>9}{'lifting':>9}{'rest':>7}")
    for name in args.cases:
        policy = make(*CASES[name], args.device)
        for count in threads:
            torch.set_num_threads(count)
            for n in (1, 32):
                print(f"{name:<28}{count:>8}{n:>12}{whole(policy, n, args.plans, clock)}", flush=True)


def drawing(config: MotionTrackConfig, side: int, lens, device: str) -> dict[str, list[Callable[[], float]]]:
    """Return each way as its parts, one after the other."""
    both, one = network(VIEWS, config, side).to(device), network(VIEWS[:1], config, side).to(device)
    one.load_state_dict(both.state_dict())
    for net in (both, one):
        net.eval().camera.net.to(memory_format=torch.channels_last)  # as a policy does before it plans
    cameras = rig(side, lens)
    views = Views(list(cameras.values()), [(side, side)] * len(cameras)).to(device)
    generator = torch.Generator().manual_seed(0)
    images = {v: torch.randint(0, 256, (1, 1, side, side, 3), dtype=torch.uint8, generator=generator) for v in VIEWS}
    state = {f"keypoints_{v}": side * torch.rand((1, 1, XY), generator=generator) for v in VIEWS}
    state["grasp"] = torch.zeros(1, 1, 1)
    images, state = ({k: v.to(device) for k, v in each.items()} for each in (images, state))

    def parts(net: TrackNet, agreed: Views | None) -> list[Callable[[], float]]:
        noise = net.draw_noise(1, torch.Generator().manual_seed(0)).to(device)
        told: list[torch.Tensor] = []

        def look() -> None:
            told[:] = net.condition(state, images)

        def draw() -> None:
            net.sample(told[0], told[1][0], noise, agreed)

        return [look, draw]

    alone = parts(one, None)
    return {
        "one": alone, "both": parts(both, views), "unagreed": parts(both, None), "after": [*alone, *alone]
    }  # fmt: skip


def turns(ways: dict[str, list[Callable]], count: int, clock: "Clock") -> dict[str, np.ndarray]:
    """Return the times of each way's parts (turns, parts), ms."""
    took = defaultdict(list)
    with torch.inference_mode():
        for turn in range(-3, count):
            for name, parts in ways.items():
                stamps = [clock()]
                for part in parts:
                    part()
                    stamps.append(clock())
                if turn >= 0:  # the first ones warm it up
                    took[name].append([1e3 * (b - a) for a, b in pairwise(stamps)])
    return {name: np.array(rows) for name, rows in took.items()}


def row(took: dict[str, np.ndarray]) -> str:
    whole = {name: rows.sum(-1) for name, rows in took.items()}
    shown = {name: (rows[:, ::2].sum(-1), rows[:, 1::2].sum(-1)) for name, rows in took.items()}
    cells = "".join(
        f"{np.median(whole[name]):>8.2f} ({np.median(shown[name][0]):>5.2f}+{np.median(shown[name][1]):>6.2f})"
        for name in ("one", "both", "after")
    )
    encoder, solver = (np.median(b / a) for a, b in zip(shown["one"], shown["both"], strict=True))
    ratio, unagreed = (np.median(whole[name] / whole["one"]) for name in ("both", "unagreed"))
    return f"{cells}{ratio:>11.2f}x{encoder:>8.2f}x{solver:>7.2f}x{unagreed:>9.2f}x"


def whole(policy: MotionTrackPolicy, n: int, plans: int, clock: "Clock") -> str:
    """Measure plans of ``n`` candidates, and what of their time goes where."""
    rng, took = np.random.default_rng(0), defaultdict(list)
    windows = [[random_observation(policy, rng)] for _ in range(plans)]
    net, lift = policy.tracks, motion_track.tracks_to_poses
    parts = {"encoder": net.condition, "solver": net.sample, "lifting": lift}
    timed = [stopwatch(function, took[name], clock) for name, function in parts.items()]
    try:
        net.condition, net.sample, motion_track.tracks_to_poses = timed
        for window in [*windows[:2], *windows]:
            stopwatch(policy.plan, took["whole"], clock)(window, n=n, generator=rng)
    finally:
        net.condition, net.sample, motion_track.tracks_to_poses = parts.values()
    all_ms = {name: 1e3 * np.array(times[2:]) for name, times in took.items()}  # the first two warm it up
    rest = all_ms["whole"] - sum(all_ms[name] for name in parts)
    p50, p99 = np.percentile(all_ms["whole"], (50, 99))
    cells = "".join(f"{np.median(all_ms[name]):>9.2f}" for name in parts)
    return f"{p50:>8.1f}{p99:>8.1f}{cells}{np.median(rest):>7.2f}"


def random_observation(policy: MotionTrackPolicy, rng: np.random.Generator) -> Observation:
    cameras = policy.spec.cameras.items()
    return Observation(0, policy.likely, {view: rng.integers(0, 256, c.shape, np.uint8) for view, c in cameras})


def stopwatch(function: Callable, took: list[float], clock: "Clock") -> Callable:
    def timed(*args, **options):
        begin_s = clock()
        made = function(*args, **options)
        took.append(clock() - begin_s)
        return made

    return timed


class Clock:
    """Says what time it is, s, once all is done that was asked of the device."""

    def __init__(self, device: str, processor: bool) -> None:
        self._wait, self._now = device.startswith("cuda"), time.process_time if processor else time.perf_counter

    def __call__(self) -> float:
        if self._wait:
            torch.cuda.synchronize()
        return self._now()


def make(config: MotionTrackConfig, side: int, lens, device: str) -> MotionTrackPolicy:
    """A policy with random weights."""
    spec = PolicySpec(
        cameras={view: CameraSpec(side, side) for view in VIEWS},
        state={name: StateSpec(size, (unit,)) for name, size, unit in
               (("tool_pos", 3, "m"), ("tool_quat", 4, "quat"), ("gripper", 1, "open"))},
        action=TOOL_POSE, rate_hz=20.0, horizon=16, n_execute=8,
    )  # fmt: skip
    cameras = {view: camera.to_json() for view, camera in rig(side, lens).items()}
    return MotionTrackPolicy(network(VIEWS, config, side).to(device), spec, cameras).eval()


def network(views: tuple[str, ...], config: MotionTrackConfig, side: int) -> TrackNet:
    states = {f"keypoints_{view}": StateSpec(XY, ("px",)) for view in views}
    names = [f"{view}.{i}" for view in views for i in range(XY)]
    spec = PolicySpec(
        cameras={view: CameraSpec(side, side) for view in views},
        state={**states, "grasp": StateSpec(1, ("closed",)), "embodiment": StateSpec(1, ("human",))},
        action=ActionSpec("tracks", (*names, "grasp"), ("1",)), rate_hz=20.0, horizon=16, n_execute=8,
    )  # fmt: skip
    torch.manual_seed(0)
    net = TrackNet(spec, config)
    net.action.fit(0.01 * torch.randn((500, ROW)))
    return net


def rig(side: int, lens) -> dict[str, Camera]:
    """Two cameras at 90 degrees that look at the same place, one metre away."""
    middle = np.array([0.45, 0.0, 0.1])
    cameras = {}
    for view, to in zip(VIEWS, ((0.8, 0.0, 0.6), (0.0, 0.8, 0.6)), strict=True):
        ahead = -np.array(to) / np.linalg.norm(to)
        right = np.cross(ahead, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.column_stack([right, np.cross(ahead, right), ahead, middle + to])
        K = [[side, 0, (side - 1) / 2], [0, side, (side - 1) / 2], [0, 0, 1]]
        cameras[view] = Camera(K, pose, lens, (side, side))
    return cameras


if __name__ == "__main__":
    main()
