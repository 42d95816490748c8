"""Are inserted segments found, does dropping them help? python tests/benchmarks/bench_extraneous.py [--pusht D.zarr].

Lift demonstrations that wander off for a while, by construction known where; and, if given diffusion_policy's Push-T
demonstrations as a robopolicy dataset, those with detours inserted. Prints precision and recall of the marks, and how
well each half of the score separates by itself; then the success of policies trained with all steps, without those that
were marked, and without those that truly wander, for the same number of gradient steps, on the same starts.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demonstrations import STATES, record
from policies import arm, compare
from wandering import compare_marks, insert_detours, separation, spans_to_rows

from robopolicy.quality.extraneous import find_extraneous
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import load_arrays

SETS = {
    "no one wanders": [("expert", 40)],
    "half wander": [("expert", 20), ("wandering", 20)],
    "all wander": [("wandering", 40)],
}


def marks(name: str, arrays: Any, spec: Any, truth: np.ndarray) -> np.ndarray:
    """Find, print against the truth (N,) bool, and return the marks."""
    begin_s = time.process_time()
    found = find_extraneous(arrays, spec)
    took_s = time.process_time() - begin_s
    print(f"{name}: {len(arrays.episode_ends)} demonstrations, {truth.mean():.1%} of the steps inserted")
    print(f"  {compare_marks(found.marked, truth)}; {took_s:.0f} CPU s")
    if truth.any():
        parts = {"score": found.score, "distance alone": found.far, "votes alone": found.unknown}
        areas = ", ".join(f"{part} {separation(values, truth):.3f}" for part, values in parts.items())
        print(f"  area under the ROC curve: {areas}", flush=True)
    return found.marked


def lift(out: Path, seed: int) -> tuple[Path, np.ndarray, np.ndarray]:
    """Return the dataset in which all wander, its marks and the truth, after trying every set."""
    for name, parts in SETS.items():
        data = out / f"{name.replace(' ', '-')}.zarr"
        record(data, parts, seed)
        dataset = Dataset(data)
        arrays = load_arrays(dataset, cameras=(), states=STATES)
        truth = spans_to_rows([episode.meta.extra["spans"] for episode in dataset], arrays.episode_ends)
        marked = marks(f"lift, {name}", arrays, dataset.spec.select(cameras=(), state=STATES), truth)
    return data, marked, truth


def pusht(path: Path, seed: int) -> None:
    """Try human demonstrations as they are, and with detours."""
    dataset = Dataset(path)
    arrays = load_arrays(dataset, cameras=(), states=("state",))
    spec = dataset.spec.select(cameras=(), state=("state",))
    marks("Push-T as recorded", arrays, spec, np.zeros(len(arrays.action), bool))
    marks("Push-T with detours", *_with(spec, insert_detours(arrays, np.random.default_rng(seed))))


def _with(spec: Any, inserted: tuple[Any, np.ndarray]) -> tuple[Any, Any, np.ndarray]:
    return inserted[0], spec, inserted[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pusht", type=Path, metavar="D.zarr", help="made by: robopolicy data import diffusion-policy")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--trainings", type=int, default=1, help="of each arm, from different seeds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--marks-only", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, help="keep datasets and checkpoints here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = args.out or Path(tempfile.mkdtemp())
    if args.pusht is not None:
        pusht(args.pusht, args.seed)
    data, marked, truth = lift(out, args.seed)
    if args.marks_only:
        return
    seeds, how = range(100_000, 100_000 + args.starts), {"steps": args.steps, "trainings": args.trainings}
    every = arm("all steps", data, out, seeds, **how)
    dropped = arm("without the marked", data, out, seeds, skip=marked, **how)
    oracle = arm("without the truly extraneous", data, out, seeds, skip=truth, **how)
    print("  " + compare("marked dropped against all", dropped, every))
    print("  " + compare("truth dropped against all", oracle, every))


if __name__ == "__main__":
    main()
