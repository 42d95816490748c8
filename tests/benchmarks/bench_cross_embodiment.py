"""What a robot learns from hands: python tests/benchmarks/bench_cross_embodiment.py --work DIR [--only transfer]

Records, trains and tries out whatever DIR does not hold yet, with the commands that users have; a run that was ended
goes on where it was. Two studies, each with a training a seed on episodes of its own, all tried from the same starts:

- transfer: a few of the robot's lifts, with and without a hand's;
- variation: the robot only ever opened the right drawer, the hand only the left one, which the robot then has to open.
  That the robot still opens the right one is tried too.

Printed are successes with Clopper and Pearson's interval, each training's, and the difference with a bootstrap over
starts and trainings. Bars: 20 points and intervals apart; 60 % of what only the hand showed, and about none without it.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from policies import compare_trainings

from robopolicy.evaluation.outcomes import load_outcomes
from robopolicy.evaluation.statistics import success_rate
from robopolicy.training.checkpoint import TRAIN, read_train

CAMERAS = ("front", "side")
SIZE = "96x96"  # of the pictures recorded, px
TRIED = 500_000  # first seed of the starts; no demonstration is from one of these
APART = 10_000  # between the first seeds of two trainings' demonstrations
LEARN = (
    "--policy", "motion-track", "--cameras", *CAMERAS, "--image-size", "64x64",
    "--horizon", "16", "--n-execute", "8", "--batch-size", "64", "--threads", "1", "--precision", "bfloat16",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """What is shown by whom, and where the robot is tried.

    Attributes:
        robot, hand: world, and how many episodes of it.
        tried: worlds.
        least: points of success that the hand has to add in the first of them, or reach there if ``unseen``.
        unseen: whether the robot never showed what the first world wants.
    """

    robot: tuple[str, int]
    hand: tuple[str, int]
    tried: tuple[str, ...]
    least: float
    unseen: bool = False


STUDIES = {
    "transfer": Study(("twin:lift", 5), ("hand:lift", 60), ("twin:lift",), 0.20),
    "variation": Study(
        ("twin:right_drawer", 20), ("hand:left_drawer", 60), ("twin:left_drawer", "twin:right_drawer"), 0.60, True
    ),
}
ARMS = ("robot", "robot + hand")


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
        with self._recording:
            data = [self._recorded(*study.robot, seed), *([self._seen(*study.hand, seed)] if arm != "robot" else [])]
        checkpoint = self._work / label
        if not ((checkpoint / TRAIN).exists() and read_train(checkpoint)["finished"]):
            asked = [word for path in data for word in ("--data", str(path))]
            self._run(label, "train", *LEARN, *asked, "--steps", str(self._steps), "--seed", str(seed), *self._changes,
                      "--out", str(checkpoint))  # fmt: skip
        return {world: self._tried(checkpoint, world) for world in study.tried}

    def _tried(self, checkpoint: Path, world: str) -> np.ndarray:
        out = checkpoint.with_name(f"{checkpoint.name}-in-{world.replace(':', '-')}")
        self._run(
            checkpoint.name, "eval", "--checkpoint", str(checkpoint), "--env", world, "--seeds",
            f"{TRIED}:{TRIED + self._episodes}", "--jobs", "1", "--videos", "2", "--out", str(out),
        )  # fmt: skip
        return np.array([outcome.success for outcome in load_outcomes(out)])

    def _recorded(self, world: str, episodes: int, seed: int) -> Path:
        data = self._work / f"{world.replace(':', '-')}-{seed}.zarr"
        if not data.exists():
            self._run(
                data.stem, "record", "--robot", world, "--data", str(data), "--episodes", str(episodes), "--seed",
                str(APART * seed), "--cameras", *CAMERAS, "--camera-size", SIZE,
            )  # fmt: skip
        return data

    def _seen(self, world: str, episodes: int, seed: int) -> Path:
        """Return what the cameras see of a hand's episodes."""
        shown = self._recorded(world, episodes, seed)
        data = shown.with_name(f"{shown.stem}-seen.zarr")
        if not data.exists():
            self._run(data.stem, "data", "import", "landmarks", str(shown), str(data))
        return data

    def _run(self, label: str, *command: str) -> None:
        """Run robopolicy; what it says is in ``label``.log; ends the benchmark with its last lines if it fails."""
        log = self._work / f"{label}.log"
        with log.open("a") as file:
            done = subprocess.run([sys.executable, "-m", "robopolicy", *command], stdout=file, stderr=file, check=False)
        if done.returncode:
            raise SystemExit(f"robopolicy {command[0]} ended with {done.returncode}: {log.read_text()[-500:]}")


def told(name: str, world: str, won: dict[str, np.ndarray]) -> str:
    """Return what came out in a world, by arm (trainings, S) bool."""
    study, lines = STUDIES[name], [f"{name}, tried in {world}"]
    rates = {arm: success_rate(int(each.sum()), each.size) for arm, each in won.items()}
    for arm, each in won.items():
        shown = f"{study.robot[1]} {study.robot[0]}" + (f" + {study.hand[1]} {study.hand[0]}" if "+" in arm else "")
        lines.append(f"  {shown:45} {rates[arm]}  (each {', '.join(f'{one.mean():.0%}' for one in each)})")
    alone, both = (rates[arm] for arm in ARMS)
    lines.append("  " + compare_trainings("the hand's", won[ARMS[1]], won[ARMS[0]]))
    if world == study.tried[0]:
        gained = both.value if study.unseen else both.value - alone.value
        met = gained >= study.least and both.low > alone.high
        lines.append(f"  bar: {gained:.0%} of {study.least:.0%}, intervals apart: {'met' if met else 'SHORT'}")
    return "\n".join(lines)


def main() -> None:
    """Print what hands add."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=STUDIES)
    parser.add_argument("--trainings", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, a core each")
    asked, changes = parser.parse_known_args()
    bench, begin_s = Bench(asked.work, asked.steps, asked.episodes, changes), time.perf_counter()
    names = [asked.only] if asked.only else list(STUDIES)
    cells = [(name, arm, seed) for name in names for seed in range(asked.trainings) for arm in ARMS]
    with ThreadPoolExecutor(asked.jobs) as pool:
        won = dict(zip(cells, pool.map(lambda cell: bench.successes(*cell), cells), strict=True))
    for name in names:
        for world in STUDIES[name].tried:
            arms = {arm: np.stack([won[name, arm, s][world] for s in range(asked.trainings)]) for arm in ARMS}
            print(told(name, world, arms), flush=True)
    print(f"{time.perf_counter() - begin_s:.0f} s")


if __name__ == "__main__":
    main()
