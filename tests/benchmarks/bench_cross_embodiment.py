"""What a robot learns from hands: python tests/benchmarks/bench_cross_embodiment.py --work DIR [--only transfer]

Records, trains and tries out whatever DIR does not hold yet, with the commands that users have; a run that was ended
goes on where it was. Two studies, each with a training a seed on episodes of its own, all tried from the same starts:

- transfer: a few of the robot's lifts, with and without a hand's;
- variation: the robot only ever opened a right drawer, the hand also left ones, which the robot then has to open. That
  it still opens the right one is tried too.

Printed are successes with Clopper and Pearson's interval, each training's, and the difference with a bootstrap over
starts and trainings. Bars: 20 points and intervals apart; 60 % of what only the hand showed, and about none without it.
"""

import argparse
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from commands import SHOWN, TRACKS, recorded, robopolicy, trained, tried
from policies import compare_trainings

from robopolicy.evaluation.outcomes import load_outcomes
from robopolicy.evaluation.statistics import success_rate

TRIED = 500_000  # first seed of the starts; no demonstration is from one of these
APART, WITHIN = 10_000, 1000  # between the first seeds of two trainings' demonstrations, and of what they are made of


@dataclass(frozen=True)
class Study:
    """What is shown by whom, and where the robot is tried.

    Attributes:
        robot: world, and how many episodes of it.
        hand: the same, of each world that the hand shows.
        tried: worlds.
        least: points of success that the hand has to add in the first of them, or reach there if ``unseen``.
        unseen: whether the robot never showed what the first world wants.
    """

    robot: tuple[str, int]
    hand: tuple[tuple[str, int], ...]
    tried: tuple[str, ...]
    least: float
    unseen: bool = False


STUDIES = {
    "transfer": Study(("twin:lift", 3), (("hand:lift", 60),), ("twin:lift",), 0.20),
    "variation": Study(
        ("twin:right_drawer", 20), (("hand:left_drawer", 60), ("hand:right_drawer", 60)),
        ("twin:left_drawer", "twin:right_drawer"), 0.60, unseen=True,
    ),
}  # fmt: skip
ARMS = ("robot", "robot + hand")
ABLATIONS = {  # of the second
    "kl": ("--align.kl", "0.1"),
    "domain": ("--align.domain", "0.1"),
    "blind-points": ("--no-at-points",),
    "offset": ("--step", "offset"),
    "no-jitter": ("--augmentation.jitter", "0"),
    "still": ("--augmentation.shift", "0", "--augmentation.zoom", "0", "--augmentation.turn-deg", "0"),
    "views-alone": ("--no-views.together", "--views.agreement", "0"),
}


class Bench:
    """Makes what is missing in a folder.

    Args:
        work: the folder.
        steps: of each training.
        episodes: tried of each.
        changes: what else `robopolicy train` is told.
    """

    def __init__(self, work: Path, steps: int, episodes: int, changes: Sequence[str]) -> None:
        self._work, self._steps, self._episodes, self._changes = work, steps, episodes, tuple(changes)
        self._recording = threading.Lock()  # both arms of a seed want the same episodes
        work.mkdir(parents=True, exist_ok=True)

    def successes(self, name: str, arm: str, seed: int) -> dict[str, np.ndarray]:
        """Return which starts of each world tried the training of ``seed`` brings to success, (S,) bool."""
        study, label = STUDIES[name], f"{name}-{arm.replace(' + ', '-')}-{seed}"
        ablation = ABLATIONS.get(arm, ())
        with self._recording:
            data = [self._recorded(*study.robot, seed, 0)]
            if arm != "robot":
                data += [self._seen(*shown, seed, part) for part, shown in enumerate(study.hand, 1)]
        length = ("--steps", str(self._steps), "--seed", str(seed))
        checkpoint = trained(self._work / label, data, *TRACKS, *length, *ablation, *self._changes)
        return {world: self._tried(checkpoint, world) for world in study.tried}

    def _tried(self, checkpoint: Path, world: str) -> np.ndarray:
        out = checkpoint.with_name(f"{checkpoint.name}-in-{world.replace(':', '-')}")
        tried(out, checkpoint, world, range(TRIED, TRIED + self._episodes))
        return np.array([outcome.success for outcome in load_outcomes(out)])

    def _recorded(self, world: str, episodes: int, seed: int, part: int) -> Path:
        data = self._work / f"{world.replace(':', '-')}-{seed}.zarr"
        return recorded(data, world, episodes, *SHOWN, "--seed", str(APART * seed + WITHIN * part))

    def _seen(self, world: str, episodes: int, seed: int, part: int) -> Path:
        """Return what the cameras see of a hand's episodes."""
        shown = self._recorded(world, episodes, seed, part)
        data = shown.with_name(f"{shown.stem}-seen.zarr")
        if not data.exists():
            robopolicy(data.with_suffix(".log"), "data", "import", "landmarks", str(shown), str(data))
        return data


def told(name: str, world: str, won: dict[str, np.ndarray]) -> str:
    """Return what came out in a world, by arm (trainings, S) bool."""
    study, lines = STUDIES[name], [f"{name}, tried in {world}"]
    rates = {arm: success_rate(int(each.sum()), each.size) for arm, each in won.items()}
    for arm, each in won.items():
        shown = [study.robot, *(study.hand if "+" in arm else ())]
        text = " + ".join(f"{episodes} {shown_in}" for shown_in, episodes in shown)
        lines.append(f"  {text:66} {rates[arm]}  (each {', '.join(f'{one.mean():.0%}' for one in each)})")
    alone, both = (rates[arm] for arm in ARMS)
    lines.append("  " + compare_trainings("the hand's", won[ARMS[1]], won[ARMS[0]]))
    if world == study.tried[0]:
        gained = both.value if study.unseen else both.value - alone.value
        met = gained >= study.least and both.low > alone.high
        lines.append(f"  bar: {gained:.0%} of {study.least:.0%}, intervals apart: {'met' if met else 'SHORT'}")
    return "\n".join(lines)


def ablated(name: str, world: str, whole: np.ndarray, without: dict[str, np.ndarray]) -> str:
    """Return what each ablation makes of the successes (trainings, S) of the robot with the hand."""
    lines = [f"{name}, tried in {world}: {success_rate(int(whole.sum()), whole.size)}; with a change"]
    for label, each in without.items():
        told = f"{success_rate(int(each.sum()), each.size)}; {compare_trainings('the change', each, whole)}"
        lines.append(f"  {' '.join(ABLATIONS[label]):72} {told}")
    return "\n".join(lines)


def main() -> None:
    """Print what hands add."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=STUDIES)
    parser.add_argument("--trainings", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, a core each")
    parser.add_argument("--ablations", nargs="*", choices=ABLATIONS, default=(), help="what else to try, with the hand")
    parser.add_argument("--change", nargs=argparse.REMAINDER, default=(), help="options of train, for all; the last")
    asked = parser.parse_args()
    bench, begin_s = Bench(asked.work, asked.steps, asked.episodes, asked.change), time.perf_counter()
    names, ways = [asked.only] if asked.only else list(STUDIES), (*ARMS, *asked.ablations)
    cells = [(name, arm, seed) for name in names for seed in range(asked.trainings) for arm in ways]
    with ThreadPoolExecutor(asked.jobs) as pool:
        won = dict(zip(cells, pool.map(lambda cell: bench.successes(*cell), cells), strict=True))
    for name in names:
        for world in STUDIES[name].tried:
            arms = {arm: np.stack([won[name, arm, s][world] for s in range(asked.trainings)]) for arm in ways}
            print(told(name, world, {arm: arms[arm] for arm in ARMS}), flush=True)
            if asked.ablations:
                print(ablated(name, world, arms[ARMS[1]], {arm: arms[arm] for arm in asked.ablations}), flush=True)
    print(f"{time.perf_counter() - begin_s:.0f} s")


if __name__ == "__main__":
    main()
