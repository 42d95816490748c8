"""Kill a recorder at random moments, again and again, and count what is lost.

python tests/benchmarks/bench_crash.py [--kills 1000] [--seed 0] [--keep FOLDER]

Each round starts a process that records two cameras from a thread, episode after episode, as fast as the disk and the
processor allow, and says which numbers were committed; `kill -9` hits it at a random moment. Then the dataset is opened
for writing, which recovers what was being recorded, and every byte is compared with what its seed gives: committed
episodes must all be there, unaltered; of the unfinished ones the steps in the journal are counted beside the recovered.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TextIO

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import recordings
from recordings import SPEC, make_step

from robopolicy.types import EpisodeMeta
from robopolicy_data.journal import read_journal
from robopolicy_data.layout import EPISODES
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder
from robopolicy_data.writer import DatasetWriter

META = EpisodeMeta("lift", "mock")


@dataclass
class Count:
    """What a thousand kills did."""

    kills: int = 0
    committed: int = 0
    lost: int = 0
    altered: int = 0
    interrupted: int = 0  # kills that hit a recording
    journaled: int = 0  # frames: steps x cameras
    recovered: int = 0
    handed: int = 0  # steps that the loop had handed over, when it last said so
    problems: list[str] = field(default_factory=list)


def start(path: Path, first_seed: int) -> tuple[int, TextIO]:
    """Start a process that records until it is killed; return its id and what it says.

    Forked, since a thousand interpreters would take most of the time; nothing of ours runs in a thread here.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the threads are those of numpy's linear algebra
        child = os.fork()
    if child == 0:
        try:
            record(path, first_seed, lambda text: os.write(writing, f"{text}\n".encode()))
        finally:
            os._exit(1)
    os.close(writing)
    return child, os.fdopen(reading)


def record(path: Path, first_seed: int, say: Callable[[object], object]) -> None:
    """Record until killed: the body of the process. Says ``open``, then the number of every commit."""
    with Recorder(path, lossless=True, capacity_steps=50) as recorder:
        for seed in range(first_seed, first_seed + 10_000):
            rng = np.random.default_rng(seed)
            meta = replace(META, seed=seed)
            recorder.on_start(meta, SPEC)
            if seed == first_seed:
                say("open")
            for k in range(length(seed)):
                while recorder.status().queued > 40:  # a starved process is no robot: nothing is to be dropped here
                    time.sleep(0.001)
                recorder.on_step(make_step(k, rng))
            recorder.on_end(meta)
            say(recorder.committed[-1])


def length(seed: int) -> int:
    """Steps of an episode: some shorter than a block of the writer, some longer."""
    return 600 if seed % 5 == 0 else 20 + seed % 60


def require_intact(episode, *, whole: bool = True) -> None:
    """Compare an episode with its seed; AssertionError."""
    seed = episode.meta.seed
    assert not whole or episode.length == length(seed), f"{episode.length} steps of {length(seed)}"
    recordings.require_intact(episode, seed)


def run(path: Path, kills: int, seed: int, progress=lambda count: None) -> Count:
    """Kill ``kills`` recorders of one dataset and return what that did."""
    rng, count, pace_s = np.random.default_rng(seed), Count(), 0.05
    announced: set[int] = set()
    seen: dict[int, str] = {}  # digest of each episode's bytes when it was first looked at
    for kill in range(kills):
        child, said = start(path, 10_000 * kill)
        assert said.readline() == "open\n", "the recorder did not start"
        for _ in range(rng.integers(0, 3)):
            began = time.monotonic()
            announced.add(int(said.readline()))
            pace_s = 0.5 * pace_s + 0.5 * (time.monotonic() - began)
        time.sleep(rng.uniform(0, 1.5) * pace_s)
        os.kill(child, signal.SIGKILL)
        announced |= {int(line) for line in said.read().split()}
        os.waitpid(child, 0)
        said.close()
        look(path, announced, seen, count)
        count.kills += 1
        progress(count)
    for number in seen:  # and all of it once more, after every kill
        if digest(path, number) != seen[number]:
            count.altered += 1
            count.problems.append(f"episode {number} was altered by a later recording")
    return count


def look(path: Path, announced: set[int], seen: dict[int, str], count: Count) -> None:
    """Open the dataset as the next recorder does, count, and compare every byte that is new."""
    before = {int(name) for name in os.listdir(path / EPISODES) if name.isdigit()}
    lost = announced - before
    journaled = {
        folder.parent.name: journaled_steps(folder)
        for folder in (path / ".wip").glob("*/journal")
        if (folder.parent / "episode").is_dir()
    }
    with DatasetWriter(path, SPEC, lossless=True, recover=True) as writer:
        interrupted = writer.interrupted
    count.lost += len(lost)
    count.problems += [f"episode {number} was committed and is gone" for number in sorted(lost)]
    count.interrupted += any(journaled.values())
    count.journaled += len(SPEC.cameras) * sum(journaled.values())
    count.recovered += len(SPEC.cameras) * sum(one.steps for one in interrupted if one.number is not None)
    announced -= lost  # counted once
    now = Dataset(path)
    assert announced <= {episode.number for episode in now}
    for episode in now:
        if episode.number in seen:
            continue
        seen[episode.number] = digest(path, episode.number)
        count.committed += episode.number in before
        try:
            require_intact(episode, whole=episode.number in before)
        except Exception as error:
            count.altered += 1
            count.problems.append(f"episode {episode.number}: {error!r}")


def digest(path: Path, number: int) -> str:
    """Return a digest of all that an episode's folder holds, names and bytes; nothing if it is gone."""
    found, folder = sha256(), path / EPISODES / f"{number:06d}"
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        found.update(f"{file.relative_to(folder)}\0".encode())
        found.update(file.read_bytes())
    return found.hexdigest()


def journaled_steps(journal: Path) -> int:
    """Return how many steps a journal holds; none if the kill hit while the recording began."""
    return len(read_journal(journal).rows) if b"\n" in journal.read_bytes() else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder to leave the dataset in")
    options = parser.parse_args()

    def progress(count: Count) -> None:
        if count.kills % 50 == 0:
            print(f"{count.kills} kills: {count.committed} committed, {count.lost + count.altered} hurt", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "d"
        count = run(path, options.kills, options.seed, progress)
    share = count.recovered / max(count.journaled, 1)
    print(f"{count.kills} kill -9, {count.interrupted} of them in the middle of a recording")
    print(f"committed episodes: {count.committed}, lost: {count.lost}, altered: {count.altered}")
    print(f"unfinished: {count.journaled} journaled frames, recovered: {count.recovered} ({share:.2%})")
    print(*count.problems, sep="\n")
    return 1 if count.lost or count.altered or share < 0.95 else 0


if __name__ == "__main__":
    sys.exit(main())
