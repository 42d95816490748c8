"""One command identifies the twin, trains a ladder, plays it in both worlds and prints how one predicts the other."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.types import EpisodeMeta, Step
from robopolicy_data.writer import DatasetWriter
from sim_envs.planar_push_physics import turned
from sim_envs.worlds import make_world

BENCH = Path(__file__).parent / "benchmarks" / "bench_pusht_twin.py"


def demonstrate(path: Path, episodes: int) -> None:
    """Record scripted pushes as if a person had made them."""
    clock = SimClock()
    world = make_world("planar:pusht", clock)
    with DatasetWriter(path, world.spec) as writer:
        for seed in range(episodes):
            world.reset(seed)
            rng, episode = np.random.default_rng(seed), writer.begin(EpisodeMeta("pusht", "planar", seed=seed))
            for k in range(40):
                seen, due_ns = world.read(), clock.now_ns()
                pose = seen.state["state"][2:]
                if k % 8 == 0:
                    target = pose[:2] + turned(pose[2], 40.0) + rng.normal(0, 40, 2)
                sent = world.command(target, due_ns)
                episode.add(Step(seen, sent, due_ns, "human"))
                clock.sleep_until(due_ns + world.spec.period_ns)
            episode.commit()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_command_prints_the_row(tmp_path):
    pytest.importorskip("gym_pusht", reason="pip install 'robopolicy[pusht]'")
    demonstrate(tmp_path / "d.zarr", 4)
    words = ["--data", tmp_path / "d.zarr", "--steps", "16", "--rungs", "2", "--episodes", "2", "--identify", "4"]
    kept = ["--work", tmp_path / "work", "--png", tmp_path / "row.png"]
    done = subprocess.run([sys.executable, BENCH, *words, *kept], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    nominal, shipped, found = (float(px) for px in re.findall(r"open loop, .*: median ([\d.]+) px", done.stdout))
    assert max(shipped, found) < 0.1 * nominal
    rows = re.findall(r"^~\S+/rung-[12] +0/2 = 0% ", done.stdout, re.MULTILINE)
    assert len(rows) == 2, done.stdout
    assert re.search(r"twin, scores: Pearson r -?[\d.]+ \[.*MMRV [\d.]+ \[.*2 policies, 2 paired seeds", done.stdout)
    assert "twin, successes: all results of one world are the same" in done.stdout
    assert done.stdout.strip().endswith("NO")
    assert (tmp_path / "row.png").stat().st_size > 1000
