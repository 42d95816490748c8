"""Views drawn together against views drawn each alone: python tests/benchmarks/bench_joint_sampling.py --work DIR

One policy, trained on demonstrations that open either of two drawers, draws the same candidates four ways at the same
moments of demonstrations it was not trained on; then each way opens drawers. Whatever DIR does not hold is made.

Printed of the points of all candidates, in px of the pictures recorded: how far what is executed is off where all views
together see it (the bar: half of what views drawn each alone have), and how far off each view was by its own last
guess, before it was drawn to the others: with an agreement of 1 the first is 0 by construction, the second is not.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import SHOWN, TRACKS, recorded, trained, tried

from robopolicy.evaluation.outcomes import load_outcomes
from robopolicy.evaluation.statistics import success_rate
from robopolicy.policies.track_config import ViewsConfig
from robopolicy.training.checkpoint import load_policy, read_train, save_checkpoint
from robopolicy_data.reader import Dataset
from robopolicy_data.tracked import TrackedDataset

WAYS = {
    "each alone": ViewsConfig(together=False, agreement=0.0),
    "the same noise": ViewsConfig(together=True, agreement=0.0),
    "agreement": ViewsConfig(together=False, agreement=1.0),
    "both": ViewsConfig(together=True, agreement=1.0),
}
WORLD, TRIED, HELD_OUT = "twin:turned_drawer", 500_000, 400_000


def measure(policy: Any, data: Path, candidates: int, moments: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what is executed off what all views see, and what each said by itself, px, of all candidates and rows.

    Args:
        policy: a `MotionTrackPolicy`.
        data: demonstrations of the robot.
        candidates: drawn at each moment.
        moments: at the start of each episode and every ``n_execute`` rows on; so many of an episode.
    """
    net = policy.tracks
    tracked = TrackedDataset(Dataset(data), net.views, policy.config.gripper)
    executed, alone = [], []
    for number, episode in enumerate(tracked):
        views = policy._views[0]
        rows = np.arange(moments) * policy.spec.n_execute
        state = {name: torch.from_numpy(episode.state(name)[rows])[:, None] for name in net.spec.state}
        images = {
            view: torch.from_numpy(np.asarray(episode.images(view)[: rows[-1] + 1])[rows])[:, None]
            for view in net.views
        }
        with torch.inference_mode():
            cond, now = net.condition(state, images)
            for k, seen in enumerate(cond.unflatten(0, (-1, len(net.views)))):
                noise = net.draw_noise(candidates, torch.Generator().manual_seed(1000 * number + k))
                drawn = net.sample(seen, now[k], noise, views)
                off = views.agreed(drawn.shares.transpose(1, 2))[1]  # (N, H, V, 5)
                executed.append(off.square().mean((-2, -1)).sqrt().numpy())
                alone.append(drawn.apart.square().mean(-1).sqrt().numpy())
    return np.concatenate(executed), np.concatenate(alone)


def main() -> None:
    """Print how far views are apart, and what it is worth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--episodes", type=int, default=50)
    asked = parser.parse_args()
    work: Path = asked.work
    work.mkdir(parents=True, exist_ok=True)
    data = recorded(work / "shown.zarr", WORLD, 60, *SHOWN)
    held_out = recorded(work / "held-out.zarr", WORLD, 20, *SHOWN, "--seed", str(HELD_OUT))
    checkpoint = trained(work / "tracks", [data], *TRACKS, "--steps", str(asked.steps))
    torch.set_num_threads(1)
    base = None
    print(f"{'':16} executed: median, 90 %    by itself: median, 90 %   px;  success in {WORLD}")
    for name, views in WAYS.items():
        policy = load_policy(checkpoint)
        policy.tracks.config = replace(policy.config, views=views)
        executed, alone = measure(policy, held_out, asked.candidates, moments=5)
        folder = work / name.replace(" ", "-")
        save_checkpoint(folder, policy, train=read_train(checkpoint))
        outcomes = load_outcomes(tried(work / f"{folder.name}-in", folder, WORLD, range(TRIED, TRIED + asked.episodes)))
        rate = success_rate(sum(outcome.success for outcome in outcomes), len(outcomes))
        base = base or (float(np.median(executed)), float(np.median(alone)))
        found = [
            (np.median(each), np.quantile(each, 0.9), np.median(each) / was)
            for each, was in zip((executed, alone), base, strict=True)
        ]
        cells = "   ".join(f"{median:5.2f} {most:6.2f} ({ratio:4.0%})" for median, most, ratio in found)
        print(f"{name:16} {cells}   {rate}", flush=True)


if __name__ == "__main__":
    main()
