"""The power fails at any moment: what was not flushed is gone, torn or zeros; committed episodes are not."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from power import Disk
from recordings import META, SPEC, make_steps, record, require_intact

from robopolicy_data.check import check
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter


def recorded(tmp_path, monkeypatch):
    """Record on a disk that takes notes; return it, the moment of each commit, and of the dataset's making."""
    monkeypatch.setattr("robopolicy_data.syncing.PERIOD_S", 0.0)  # flush in the background whenever one is over
    monkeypatch.setattr("robopolicy_data.episode_writer.BLOCK", 16)
    disk, commits = Disk(tmp_path / "disk"), {}
    disk.root.mkdir()
    with disk.watch():
        path = disk.root / "lab" / "d"
        with DatasetWriter(path, SPEC, lossless=True) as writer:
            made = len(disk.log)
            for seed in (1, 2):
                number = record(writer, seed, 60)
                commits[number] = len(disk.log)
            episode = writer.begin(replace(META, seed=9))
            for step in make_steps(9, 60):
                episode.add(step)
        with DatasetWriter(path, SPEC, lossless=True, recover=True) as writer:
            assert writer.interrupted[0].steps == 60
            commits[2] = len(disk.log)
            number = record(writer, 3, 10)
            commits[number] = len(disk.log)
    return disk, commits, made


def require_whole(path, steps):
    """Require every episode to be what its seed gives, a recovered one as far as it goes."""
    for episode in Dataset(path):
        require_intact(episode, seed=episode.meta.seed)
        assert "recovered" in episode.attributes or episode.length == steps[episode.meta.seed]


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3))])
def test_a_power_cut_at_any_moment(tmp_path, monkeypatch, seed):
    disk, commits, made = recorded(tmp_path, monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # the real disk does not matter from here on
    rng, steps = np.random.default_rng(seed), {1: 60, 2: 60, 9: 60, 3: 10}
    moments = rng.integers(0, len(disk.log) + 1, 15 if seed == 0 else 100).tolist()
    near = [moment + shift for moment in (made, *commits.values()) for shift in (-2, -1, 0)]
    recovered = 0
    for moment in (*moments, *near):
        target = tmp_path / "after"
        disk.after_cut(moment, target, rng)
        path = target / "lab" / "d"
        if not (path / "zarr.json").exists():
            assert moment < made, "a dataset that had been made is gone"
            shutil.rmtree(target)
            continue
        there = {episode.number for episode in Dataset(path)}
        kept = {number for number, when in commits.items() if when <= moment}
        assert kept <= there, "an episode whose commit had returned is gone"
        require_whole(path, steps)
        with DatasetWriter(path, SPEC, lossless=True, recover=True) as writer:
            recovered += sum(one.number is not None for one in writer.interrupted)
            record(writer, 3, 10)
        require_whole(path, steps)
        assert [str(p) for p in check(path) if p.severity == "error"] == []
        shutil.rmtree(target)
    assert recovered > 2, "no cut left anything to recover; the test tests nothing"


def test_a_disk_that_lies_would_be_noticed(tmp_path, monkeypatch):
    """The test of the test: without the flushes before the rename, committed episodes are lost."""
    monkeypatch.setattr("robopolicy_data.syncing.Syncing.flush", lambda *args: None)
    disk, commits, _ = recorded(tmp_path, monkeypatch)
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    hurt = 0
    for k in range(20):
        target = tmp_path / f"after{k}"
        disk.after_cut(commits[1], target, rng)
        try:
            require_whole(target / "lab" / "d", {1: 60, 2: 60})
        except Exception:
            hurt += 1
    assert hurt > 10
