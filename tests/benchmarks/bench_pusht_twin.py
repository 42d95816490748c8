"""Does the twin predict the world? The same checkpoints on the same starts in gym-pusht and in planar:pusht.

    python tests/benchmarks/bench_pusht_twin.py --data pusht.zarr                 # trains its own ladder first
    python tests/benchmarks/bench_pusht_twin.py --checkpoints A B C@1 D ...       # @1: at one solver step

gym-pusht is pymunk's and plays the real world; the twin is MuJoCo's, and knows of it only what pushes recorded there
tell. First those parameters are identified again from such pushes, and the open-loop error over a second on held-out
ones is printed: before, as shipped, and as found now. Then each checkpoint plays every start in gym-pusht, in the twin
as shipped, and in the twin before identification. The ladder is one training in parts, each of which leaves a
checkpoint, so that they differ in quality. Success is more than 95 % of the goal covered, score best coverage / .95.
With the same --work it goes on where it was; --png draws both worlds' success against each other.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from robopolicy.cli.evaluate import Subject
from robopolicy.cli.running import Choice
from robopolicy.cli.worlds import make_safety
from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, EvaluationError
from robopolicy.evaluation.agreement import agreement
from robopolicy.evaluation.rollouts import evaluate
from robopolicy.evaluation.statistics import Rate, success_rate
from robopolicy.policies.config import preset
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.training.config import TrainConfig
from robopolicy.training.resume import RESUME
from robopolicy.training.trainer import train
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import WindowSampler, load_arrays
from sim_envs.planar_push import PlanarPushT
from sim_envs.planar_push_identify import Recording, identify, open_loop_error, record
from sim_envs.planar_push_physics import IDENTIFIED, NOMINAL
from sim_envs.worlds import make_world

REAL, TWIN = "gymnasium:gym_pusht/PushT-v0", "planar:pusht"
TARGET = 0.9  # of Pearson's r, between success in gym-pusht and in the twin
ENOUGH = 8  # checkpoints, for the bar
NOT_IDENTIFIED = f"{'nominal':>9}{'score':>7}"
FIRST_START = 100_000  # evaluations begin here; recordings have seeds far below it


@dataclass(frozen=True)
class Played:
    """What checkpoints did in one world."""

    successes: np.ndarray  # (P, N) bool
    scores: np.ndarray  # (P, N) best coverage / .95

    def rate(self, row: int) -> Rate:
        """Of one checkpoint."""
        return success_rate(int(self.successes[row].sum()), self.successes.shape[1])


def recordings(seeds: Sequence[int], steps: int) -> list[Recording]:
    """Push the T about in gym-pusht."""
    clock = SimClock()
    world = make_world(REAL, clock)
    return [record(world, clock, seed, steps) for seed in seeds]


def print_identification(episodes: int) -> None:
    """Identify the twin anew from ``episodes`` of 10 s; print what was found and its error on as many held-out ones."""
    taken, held_out = recordings(range(episodes), 100), recordings(range(1000, 1000 + episodes), 100)
    found = identify(taken)
    for label, physics in (("nominal", NOMINAL), ("as shipped", IDENTIFIED), ("as found now", found.physics)):
        print(f"T after 1 s open loop, {label}: {open_loop_error(physics, held_out)}")
    print(f"found from {found.windows} windows of .5 s:", found.physics)
    spread = ", ".join(f"{name} {value:.2g}" for name, value in found.spread.items())
    print(f"standard errors, were the noise all there is: {spread}", flush=True)


def ladder(data: Path, folder: Path, steps: int, count: int) -> list[Path]:
    """Train in ``count`` parts, the learning rate annealed at the end of each; return a checkpoint of every one."""
    dataset = Dataset(data)
    spec = replace(dataset.spec.select((), ("state",)), n_obs=2, horizon=16, n_execute=8)
    sampler = WindowSampler(load_arrays(dataset, cameras=(), states=("state",)), 2, 16, n_execute=8)
    rungs, training = [folder / f"rung-{k}" for k in range(1, count + 1)], folder / "training"
    for k, rung in enumerate(rungs, 1):
        if rung.exists():
            continue
        torch.manual_seed(0)
        config = TrainConfig(steps=-(-steps * k // count), batch_size=128, num_threads=1, save_every_s=1e9)
        policy = DiffusionPolicy(spec, preset("mlp"))
        train(policy, sampler, training, config, resume=(training / RESUME).exists())
        whole = shutil.copytree(training, rung.with_suffix(".part"), dirs_exist_ok=True)
        Path(whole).rename(rung)
    return rungs


def play(names: Sequence[str], world: str, seeds: Sequence[int], work: Path, *, nominal: bool = False) -> Played:
    """Let every checkpoint play every start in ``world``; ``nominal`` takes the twin before it was identified."""
    successes, scores = [], []
    for name in names:
        folder, _, steps = name.partition("@")
        subject = Subject.of(Path(folder), world, choice=Choice(steps=int(steps) if steps else None))
        make = partial(PlanarPushT, physics=NOMINAL) if nominal else subject.make_world
        physics = {"planar": repr(NOMINAL if nominal else IDENTIFIED)}.get(world.partition(":")[0], "")
        outcomes = evaluate(
            make, subject.make_agent, seeds, make_safety=make_safety, jobs=1, out=work / "outcomes",
            identity=subject.identity + physics,
        )  # fmt: skip
        wrong = [outcome.error for outcome in outcomes if outcome.error]
        if wrong:
            raise EvaluationError(f"{name} in {world}: {wrong[0]}")
        successes.append([outcome.success for outcome in outcomes])
        scores.append([outcome.score for outcome in outcomes])
    return Played(np.array(successes, dtype=bool), np.array(scores))


def compare(label: str, twin: Played, real: Played) -> float:
    """Print how the twin predicts success, and the score; return Pearson's r of success, NaN where there is none."""
    r = []
    for what in ("successes", "scores"):
        sim, world = (np.asarray(getattr(played, what), dtype=float) for played in (twin, real))
        try:
            found = agreement(sim=sim, real=world, rng=np.random.default_rng(0))
        except ContractError as error:  # of checkpoints that all fail, or all succeed
            print(f"{label}, {what}: {error}")
            r.append(float("nan"))
        else:
            print(f"{label}, {what}: {found.headline()}")
            r.append(found.pearson.value)
    return r[0]


def print_table(names: Sequence[str], real: Played, twin: Played, nominal: Played | None) -> None:
    """Print a row a checkpoint: success and score in the world, in the twin, in the twin before identification."""
    worlds = ["gym-pusht", "planar:pusht"]
    heading = "".join(f"{world:>30}{'score':>7}" for world in worlds) + (NOT_IDENTIFIED if nominal else "")
    print(f"\n{'checkpoint':24}{heading}")
    for i in np.argsort(real.successes.mean(axis=1), kind="stable"):
        before = f"{nominal.rate(i).value:9.0%}{nominal.scores[i].mean():7.3f}" if nominal else ""
        print(
            f"{_short(names[i]):24}{real.rate(i)!s:>30}{real.scores[i].mean():7.3f}{twin.rate(i)!s:>30}"
            f"{twin.scores[i].mean():7.3f}{before}"
        )


def draw(path: Path, real: Played, twin: Played, nominal: Played | None) -> None:
    """Write a picture of success: gym-pusht to the right, the twin upwards, with exact intervals; nominal is hollow."""
    size, margin = 480, 40
    picture = np.full((size + 2 * margin, size + 2 * margin, 3), 255, np.uint8)

    def at(x: float, y: float) -> tuple[int, int]:
        return round(margin + x * size), round(margin + (1 - y) * size)

    cv2.rectangle(picture, at(0, 0), at(1, 1), (160, 160, 160), 1)
    cv2.line(picture, at(0, 0), at(1, 1), (160, 160, 160), 1, cv2.LINE_AA)
    for i in range(len(real.successes)):
        x, y = real.rate(i), twin.rate(i)
        cv2.line(picture, at(x.low, y.value), at(x.high, y.value), (200, 170, 120), 1)
        cv2.line(picture, at(x.value, y.low), at(x.value, y.high), (200, 170, 120), 1)
        if nominal:
            cv2.circle(picture, at(x.value, nominal.rate(i).value), 5, (60, 60, 220), 1, cv2.LINE_AA)
        cv2.circle(picture, at(x.value, y.value), 5, (180, 90, 20), -1, cv2.LINE_AA)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, "success in gym-pusht, 0 to 1", (margin, size + 2 * margin - 12), font, 0.5, (0, 0, 0), 1)
    cv2.putText(picture, "in the twin (hollow: not identified)", (margin, margin - 12), font, 0.5, (0, 0, 0), 1)
    cv2.imwrite(str(path), picture)


def run(args: argparse.Namespace, work: Path) -> bool:
    """Do all of it; return whether the bar is met."""
    if args.identify:
        print_identification(args.identify)
    names = args.checkpoints or [str(path) for path in ladder(args.data, work / "ladder", args.steps, args.rungs)]
    seeds = range(FIRST_START, FIRST_START + args.episodes)
    real, twin = (play(names, world, seeds, work) for world in (REAL, TWIN))
    nominal = play(names, TWIN, seeds, work, nominal=True) if args.nominal else None
    print_table(names, real, twin, nominal)
    if args.png:
        draw(args.png, real, twin, nominal)
    print()
    r = compare("twin", twin, real)
    if nominal:
        compare("nominal", nominal, real)
    met = r >= TARGET and len(names) >= ENOUGH
    print(f"\nPearson r of success, twin and gym-pusht: {r:.3f} of {len(names)} checkpoints; ", end="")
    print(f"target >= {TARGET:g} of {ENOUGH} or more  {'yes' if met else 'NO'}")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoints", nargs="+", metavar="FOLDER[@STEPS]")
    what.add_argument("--data", type=Path, help="human Push-T, to train a ladder of checkpoints on")
    parser.add_argument("--steps", type=int, default=16000, help="of the ladder's training")
    parser.add_argument("--rungs", type=int, default=ENOUGH, help="of the ladder")
    parser.add_argument("--episodes", type=int, default=50, help="starts, each played in every world")
    parser.add_argument("--identify", type=int, default=20, metavar="N", help="from so many recordings; 0: not again")
    parser.add_argument("--no-nominal", dest="nominal", action="store_false", help="only the twin as shipped")
    parser.add_argument("--work", type=Path, help="folder that keeps checkpoints and outcomes")
    parser.add_argument("--png", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run(args, args.work or Path(folder))


def _short(name: str) -> str:
    return name if len(name) <= 22 else "~" + name[-21:]


if __name__ == "__main__":
    main()
