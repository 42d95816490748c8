"""`robopolicy data multiply`: a dataset of successes that says where they came from."""

from dataclasses import replace

import numpy as np
import pytest

from robopolicy.cli.main import main
from robopolicy.spec import TOOL_POSE, ActionSpec, PolicySpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.check import check
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    path = tmp_path_factory.mktemp("few") / "few.zarr"
    assert main(["record", "--robot", "twin:lift", "--cameras", "--data", str(path), "--episodes", "3"]) == 0
    return path


def test_many_of_a_few_with_their_origin_for_any_number_of_jobs(few, tmp_path, capsys):
    base = ["data", "multiply", str(few)]
    assert main([*base, str(tmp_path / "a"), "--episodes", "5"]) == 0
    told = capsys.readouterr().out
    many = list(Dataset(tmp_path / "a"))
    assert len(many) == 5
    assert "holds 5 episodes of 3: 5 of " in told
    assert "attempts succeeded (" in told
    assert list(check(tmp_path / "a")) == []
    assert Dataset(tmp_path / "a").spec == Dataset(few).spec
    names = {f"episode {e.number} ({e.attributes['uuid'][:12]})" for e in Dataset(few)}
    for episode in many:
        made = episode.meta.extra["multiplied"]
        assert [part["object"] for part in made["segments"]] == ["cube", "cube"]
        assert {part["from"] for part in made["segments"]} <= names
        assert made["noise_m"] == 0.001
        assert episode.meta.success is True
        assert episode.meta.seed >= 3, "no start of the few"
        assert episode.state("cube_pos")[-1, 2] > 0.09
    assert main([*base, str(tmp_path / "b"), "--episodes", "2"]) == 0
    assert main([*base, str(tmp_path / "b"), "--episodes", "5", "--jobs", "2"]) == 0
    for one, other in zip(many, Dataset(tmp_path / "b"), strict=True):
        assert one.meta == other.meta
        np.testing.assert_array_equal(one.action(), other.action())
    capsys.readouterr()
    assert main([*base, str(tmp_path / "b"), "--episodes", "5"]) == 0
    assert "holds 5 episodes already" in capsys.readouterr().out


def test_only_the_episodes_that_are_named(few, tmp_path):
    assert main(["data", "multiply", str(few), str(tmp_path / "a"), "--episodes", "3", "--source-episodes", "1"]) == 0
    sources = {part["from"][:9] for e in Dataset(tmp_path / "a") for part in e.meta.extra["multiplied"]["segments"]}
    assert sources == {"episode 1"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{few}", "{few}"], "would be multiplied into itself"),
        (["{few}", "{out}", "--task", "pusht"], "valid: drawer, lift, peg, stack"),
        (["{few}", "{out}", "--task", "lfit"], "valid: drawer, lift, peg, stack"),
        (["{few}", "{out}", "--task", "stack"], "episode 0"),
        (["{few}", "{out}", "--source-episodes", "7"], "has no episode 7; it has 0-2"),
        (["{few}", "{out}", "--noise", "0.5"], "want 0 to 0.05 m"),
        (["{few}", "{out}", "--noise", "nan"], "want 0 to 0.05 m"),
        (["{out}", "{out}2"], "is not a robopolicy dataset"),
    ],
)
def test_what_cannot_be_multiplied_is_said_before_anything_is_made(few, tmp_path, capsys, words, says):
    out = tmp_path / "out"
    assert main(["data", "multiply", *[word.format(few=few, out=out) for word in words]]) == 1
    assert says in capsys.readouterr().err
    assert not out.exists()


def made(path, spec, **about):
    state = {name: np.zeros(part.dim, np.float32) for name, part in spec.state.items()}
    with DatasetWriter(path, spec) as writer:
        episode = writer.begin(EpisodeMeta("lift", "mock", **about))
        episode.add(Step(Observation(1, state), np.zeros(spec.action.dim, np.float32), 1, "human"))
        episode.commit()
    return str(path)


def test_other_robots_failures_and_joints_are_refused(few, tmp_path, capsys):
    spec = replace(Dataset(few).spec, cameras={})
    failed = made(tmp_path / "failed", spec, success=False)
    unnamed = made(tmp_path / "unnamed", spec, success=True)
    joints = PolicySpec(state=spec.state, action=ActionSpec("joint", ("j1", "gripper"), ("rad", "open")))
    jointed = made(tmp_path / "jointed", joints, success=True)
    assert spec.action == TOOL_POSE
    out = str(tmp_path / "out")
    for source, says in (
        (failed, "of 1 episodes none is marked as a success"),
        (unnamed, "recorded with mock; say which task"),
        (jointed, "commands joint; only tool_pose"),
    ):
        assert main(["data", "multiply", source, out]) == 1
        assert says in capsys.readouterr().err
