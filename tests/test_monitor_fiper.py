"""FIPER's rollouts: every variant is read, what is written is read as it was, a malicious file harms nobody."""

import argparse
import json
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fiper_files import STACKING, metadata, rollout, task, write

from robopolicy.cli.monitor_actions import export_fiper, import_fiper
from robopolicy.errors import MonitorError, RobopolicyError, UsageError
from robopolicy.evaluation.outcomes import load_about, load_counted
from robopolicy.monitor.decisions import load_decisions
from robopolicy.monitor.fiper import FiperEpisode, fiper_files, read_fiper, read_fiper_episode, write_fiper
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.monitor import MonitorConfig, fit_monitor
from robopolicy.types import Decision


def same(a: Decision, b: Decision) -> bool:
    arrays = [(a.embedding, b.embedding), (a.chunks, b.chunks), *((a.aux[name], b.aux[name]) for name in a.aux)]
    return (
        (a.index, a.stamp_ns, a.n_execute, list(a.aux)) == (b.index, b.stamp_ns, b.n_execute, list(b.aux))
        and all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in arrays)
    )  # fmt: skip


def test_a_published_rollout_becomes_decisions(tmp_path):
    steps = rollout(0)
    episode = read_fiper_episode(write(tmp_path / "episode_f_0003.pkl", metadata(), steps))
    assert [d.index for d in episode.decisions] == [0, 1, 2, 3]
    assert [d.stamp_ns for d in episode.decisions] == [0, 800_000_000, 1_600_000_000, 2_400_000_000], "4 rows of 0.2 s"
    for decision, step in zip(episode.decisions, steps, strict=True):
        assert decision.chunks.dtype == np.float32
        assert np.array_equal(decision.chunks, step["action_pred"])
        assert np.array_equal(decision.embedding, step["obs_embedding"])
        assert np.array_equal(decision.aux["state"], step["agent_pos"])
        assert decision.n_execute == 4
    assert (episode.success, episode.ood, episode.name, episode.task) == (True, False, "episode_f_0003", "push_t")
    assert episode.layout == ActionLayout(3, (0, 1, 2), (), (), "absolute", 0.2)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("robots", [False, True])
def test_lists_dicts_robots_and_protocols_say_the_same(tmp_path, protocol, bare, robots):
    plain = read_fiper_episode(write(tmp_path / "a.pkl", metadata(), rollout(1)))
    other = read_fiper_episode(
        write(tmp_path / "b.pkl", metadata(), rollout(1, robots=robots), bare=bare, protocol=protocol)
    )
    assert all(map(same, plain.decisions, other.decisions))
    assert other.layout == plain.layout


@pytest.mark.parametrize(
    ("name", "successful", "success"),
    [
        ("episode_s_0001", None, True), ("episode_f_0001", None, False), ("episode_12", None, True),
        ("failure-3", None, False), ("Success-3", None, True), ("episode_s_0001", False, False),
        ("episode_f_0001", np.bool_(True), True),
    ],
)  # fmt: skip
def test_success_is_the_metadatas_word_or_the_file_names(tmp_path, name, successful, success):
    episode = read_fiper_episode(write(tmp_path / f"{name}.pkl", metadata(successful=successful), rollout(0)))
    assert episode.success is success


@pytest.mark.parametrize(
    ("part", "subtype", "ood"),
    [
        ("test", "na", False), ("test", "ID", False), ("test", "ca", False), ("test", "calibration", False),
        ("test", "hh", True), ("test", "eb", True), ("calibration", "ood", True), ("test", None, True),
        ("calibration", None, False),
    ],
)  # fmt: skip
def test_the_subtype_tells_what_is_out_of_distribution(tmp_path, part, subtype, ood):
    path = write(tmp_path / "e.pkl", metadata(rollout_subtype=subtype), rollout(0))
    assert read_fiper_episode(path, part=part).ood is ood


@pytest.mark.parametrize(
    ("mappings", "layout"),
    [
        ({"pos": [0, 1, 2], "gripper": [4]}, ActionLayout(21, (0, 1, 2), (), (4,), "absolute", 0.035)),
        (STACKING, ActionLayout(21, (0, 1, 2), (3, 4, 5), (20,), "absolute", 0.035)),
        ({"vel": np.array([0, 1, 2])}, ActionLayout(21, (0, 1, 2), (), (), "velocity", 0.035)),
        ({"vel": [0, 1, 2], "drpy": [3, 4, 5]}, ActionLayout(21, (0, 1, 2), (3, 4, 5), (), "velocity", 0.035)),
        ({"joint_pos": [*range(7)]}, ActionLayout(21, (*range(7),), (), (), "absolute", 0.035)),
        ({"pos": None, "joint_vel": [*range(7)]}, ActionLayout(21, (*range(7),), (), (), "velocity", 0.035)),
        ([{"pos": [[0, 1, 2]]}], ActionLayout(21, (0, 1, 2), (), (), "absolute", 0.035)),
        (None, ActionLayout(21, (), (), (), "plain", 0.035)),
    ],
)
def test_mappings_say_what_actions_mean_and_velocities_stay_velocities(tmp_path, mappings, layout):
    steps = rollout(0, A=21)
    episode = read_fiper_episode(write(tmp_path / "e.pkl", metadata(task="stacking", action_mappings=mappings), steps))
    assert episode.layout == layout
    assert np.array_equal(episode.decisions[2].chunks, steps[2]["action_pred"])


def test_one_action_alone_is_one_candidate(tmp_path):
    steps = [{k: v for k, v in step.items() if k not in ("action_pred", "agent_pos")} for step in rollout(0)]
    decision = read_fiper_episode(write(tmp_path / "e.pkl", metadata(), steps)).decisions[1]
    assert decision.chunks.shape == (1, 8, 3)
    assert not decision.aux


def broken():
    steps = rollout(0)
    other = [*rollout(0), *rollout(1, B=4)]
    two = [{**step, "action_pred": [step["action_pred"]] * 2} for step in steps]
    without = [{k: v for k, v in step.items() if k != "obs_embedding"} for step in steps]
    return {
        "no FIPER rollout": ["a"], "is no FIPER rollout; its metadata": {"metadata": {}, "rollout": [1]},
        "has no steps": {"metadata": metadata(), "rollout": []},
        "rows executed of chunks of 8": {"metadata": metadata(action_execution_horizon=9), "rollout": steps},
        "has no action_execution_horizon": {"metadata": metadata(action_execution_horizon=None), "rollout": steps},
        "how long a row": {"metadata": metadata(task="of mine"), "rollout": steps},
        "step 4: embedding and chunks of": {"metadata": metadata(), "rollout": other},
        "has 2 parts, one a robot": {"metadata": metadata(), "rollout": two},
        "step 0: obs_embedding is not there": {"metadata": metadata(), "rollout": without},
        "no array of numbers": {"metadata": metadata(), "rollout": [{**steps[0], "obs_embedding": ["a"]}]},
        "want 1 axes": {"metadata": metadata(), "rollout": [{**steps[0], "obs_embedding": np.ones((2, 3))}]},
        "action_mappings": {"metadata": metadata(action_mappings={"pos": [0, 1, 7]}), "rollout": steps},
        "of 3 elements": {"metadata": metadata(action_mappings=[3, 4]), "rollout": steps},
    }  # fmt: skip


@pytest.mark.parametrize("said", broken())
def test_a_file_that_is_no_rollout_is_told_in_one_line_with_its_name(tmp_path, said):
    path = tmp_path / "episode_s_0007.pkl"
    path.write_bytes(pickle.dumps(broken()[said]))
    with pytest.raises(MonitorError, match=said) as told:
        read_fiper_episode(path)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


def test_what_the_file_does_not_say_may_be_said(tmp_path):
    path = write(tmp_path / "e.pkl", metadata(task="of mine", action_execution_horizon=None), rollout(0))
    episode = read_fiper_episode(path, n_execute=2, dt_s=0.05)
    assert [d.stamp_ns for d in episode.decisions] == [0, 100_000_000, 200_000_000, 300_000_000]
    assert episode.layout.dt_s == 0.05


def random_episode(seed, *, success=True, ood=False, layout=None):
    rng = np.random.default_rng(seed)
    odd = np.array([np.nan, np.inf, -0.0, 1e-45, 3.4e38], np.float32)
    decisions = [
        Decision(
            t, int(rng.integers(2**62)), np.append(rng.normal(size=3), odd).astype(np.float32),
            rng.normal(size=(4, 8, 5)).astype(np.float32), 3,
            {"state": rng.normal(size=4), "variance": rng.normal(size=(8,)).astype(np.float16), "mode": np.array(t)},
        )
        for t in range(int(rng.integers(1, 6)))
    ]  # fmt: skip
    layout = layout or ActionLayout(5, (0, 1, 2), (), (4,), "delta", 1 / 30)
    return FiperEpisode(decisions, success, ood, f"episode_{seed}", layout, "lift", "")


@pytest.mark.parametrize("kind", ["absolute", "delta", "velocity", "plain"])
def test_what_is_written_is_read_bit_for_bit(tmp_path, kind):
    layout = ActionLayout(5, (0, 1), (), (4,), kind, 1 / 30)
    wrote = [random_episode(i, success=i % 2 == 0, ood=i % 3 == 0, layout=layout) for i in range(7)]
    for part in ("calibration", "test"):
        write_fiper(wrote, tmp_path / "rollouts" / part, part=part)
    for part, read in read_fiper(tmp_path).items():
        assert len(read) == 7, part
        for a, b in zip(wrote, read, strict=True):
            assert all(map(same, a.decisions, b.decisions))
            assert (a.success, a.ood, a.name, a.layout, a.task) == (b.success, b.ood, b.name, b.layout, b.task)


def test_what_is_written_is_what_others_read(tmp_path):
    """Plain numbers and arrays, in the words that FIPER's own code asks for."""
    episode = random_episode(1, success=False, layout=ActionLayout(5, (0, 1, 2), (), (4,), "velocity", 0.1))
    (path,) = write_fiper([episode], tmp_path, part="test")
    data = pickle.loads(path.read_bytes())
    about, steps = data["metadata"], data["rollout"]
    assert about["successful"] is False
    assert about["action_mappings"] == {"vel": [0, 1, 2], "gripper": [4]}
    assert about["rollout_subtype"] == "id"
    assert (about["action_prediction_horizon"], about["action_execution_horizon"], about["action_batch_size"]) == (
        8,
        3,
        4,
    )
    assert (about["num_robots"], about["num_steps"], about["rollout_type"]) == (1, len(episode.decisions), "test")
    assert np.array_equal(steps[0]["action"], steps[0]["action_pred"][0])
    assert steps[0]["obs_embedding"].shape == (8,)
    assert np.array_equal(steps[0]["agent_pos"], episode.decisions[0].aux["state"])


def test_what_cannot_be_written_leaves_the_older_files(tmp_path):
    folder = tmp_path / "test"
    write_fiper([random_episode(0)], folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    good = random_episode(1)
    first = good.decisions[0]
    bad = [
        replace(good, decisions=[]), replace(good, decisions=[replace(first, index=3)]),
        replace(good, name="a/b"), good,
        replace(good, decisions=[first, replace(first, index=1, n_execute=1)]),
        replace(good, decisions=[replace(first, aux={"x": np.array([None])})]),
    ]  # fmt: skip
    for one in bad:
        with pytest.raises(MonitorError):
            write_fiper([good, one], folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (folder / "mine.txt").write_text("notes")
    with pytest.raises(MonitorError, match="holds something else"):
        write_fiper([good], folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test"]


def command(*words):
    parser = argparse.ArgumentParser()
    actions = parser.add_subparsers(required=True)
    for action in (import_fiper, export_fiper):
        action.add_parser(actions, argparse.ArgumentParser(add_help=False))
    args = parser.parse_args([str(word) for word in words])
    args.run(args)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_imported_rollouts_are_rollouts(tmp_path, capsys):
    task(tmp_path / "push_t")
    command("import-fiper", tmp_path / "push_t", tmp_path / "out")
    said = capsys.readouterr().out
    assert "calibration: 6 episodes, 4 successful, 0 out of distribution; embedding (6,), 3 chunks of (8, 3), 4" in said
    assert "test: 4 episodes, 3 successful, 2 out of distribution" in said
    read = read_fiper(tmp_path / "push_t")
    seeds = []
    for part in ("calibration", "test"):
        outcomes, unfinished = load_counted(tmp_path / "out" / part)
        assert (unfinished.waiting, unfinished.aside) == (0, 0)
        assert [o.success for o in outcomes] == [e.success for e in read[part]]
        assert [bool(o.perturbations) for o in outcomes] == [e.ood for e in read[part]]
        for outcome, episode in zip(outcomes, read[part], strict=True):
            assert all(map(same, load_decisions(tmp_path / "out" / part / outcome.decisions), episode.decisions))
            assert outcome.steps == 4 * len(episode.decisions)
        about = load_about(tmp_path / "out" / part)
        assert ActionLayout.from_json(json.loads(about["action_layout"])) == read[part][0].layout
        assert about["policy_sha"] == "fiper:push_t"
        seeds += [o.seed for o in outcomes]
    assert len(set(seeds)) == 10, "no episode of the test is one of the calibration"


def test_a_monitor_is_made_of_what_was_imported(tmp_path):
    task(tmp_path / "push_t", calibration=24)
    command("import-fiper", tmp_path / "push_t", tmp_path / "out")
    folder = tmp_path / "out" / "calibration"
    good = [outcome for outcome in load_counted(folder)[0] if outcome.success]
    episodes = [load_decisions(folder / outcome.decisions) for outcome in good]
    layout = ActionLayout.from_json(json.loads(load_about(folder)["action_layout"]))
    seeds = [outcome.seed for outcome in good]
    monitor = fit_monitor(episodes, MonitorConfig(alpha=0.2), layout=layout, seeds=seeds)
    assert sorted(monitor.provenance.fit_seeds + monitor.provenance.calibration_seeds) == seeds
    assert monitor.step(read_fiper(tmp_path / "push_t")["test"][0].decisions[0]).state in ("nominal", "warn", "alarm")


def test_to_import_again_changes_nothing_and_other_files_replace_the_old(tmp_path):
    task(tmp_path / "push_t")
    command("import-fiper", tmp_path / "push_t", tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    first = contents(tmp_path / "out")
    command("import-fiper", tmp_path / "push_t", tmp_path / "out")
    assert contents(tmp_path / "out") == first
    (tmp_path / "push_t" / "rollouts" / "calibration" / "episode_s_0000.pkl").unlink()
    command("import-fiper", tmp_path / "push_t", tmp_path / "out")
    assert len(load_counted(tmp_path / "out" / "calibration")[0]) == 5
    assert len([name for name in contents(tmp_path / "out") if name.startswith("calibration/decisions")]) == 5
    assert contents(tmp_path / "out")["notes.txt"] == b"mine"


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("harm", ["malicious", "cut short", "another shape", "another layout"])
def test_a_bad_file_is_named_and_nothing_is_half_written(tmp_path, harm, before):
    folder, out, marker = task(tmp_path / "push_t"), tmp_path / "deep" / "out", tmp_path / "it-ran"
    if before:
        command("import-fiper", folder, out)
    kept = contents(tmp_path / "deep")
    bad = folder / "rollouts" / "test" / "episode_s_0003.pkl"  # the last of all
    if harm == "malicious":
        write(bad, metadata(), [*rollout(0)[:2], {"rgb": Evil(marker)}])
    elif harm == "cut short":
        bad.write_bytes(bad.read_bytes()[:-10])
    elif harm == "another shape":
        write(bad, metadata(), rollout(0, E=7))
    else:
        write(bad, metadata(action_mappings={"vel": [0, 1, 2]}), rollout(0))
    with pytest.raises(RobopolicyError) as told:
        command("import-fiper", folder, out)
    assert str(bad) in str(told.value)
    assert "\n" not in str(told.value)
    if harm == "malicious":
        assert "posix.system" in str(told.value)
    assert not marker.exists()
    assert contents(tmp_path / "deep") == kept
    assert (tmp_path / "deep").exists() is before


def test_an_import_replaces_no_evaluation_of_ones_own(tmp_path):
    task(tmp_path / "push_t")
    own = tmp_path / "out" / "test"
    own.mkdir(parents=True)
    (own / "current.json").write_text('{"identity": "x", "about": {"policy_sha": "abc"}}')
    with pytest.raises(MonitorError, match="holds something else"):
        command("import-fiper", tmp_path / "push_t", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").rglob("*")] == ["test", "current.json"]


def test_a_folder_without_rollouts_and_one_that_says_train(tmp_path):
    with pytest.raises(MonitorError, match=r"want .*calibration/\*\.pkl"):
        fiper_files(tmp_path)
    write(tmp_path / "train" / "episode_1.pkl", metadata(), rollout(0))
    assert list(fiper_files(tmp_path)) == ["calibration"]


def test_exported_and_imported_again_rollouts_are_the_same(tmp_path, capsys):
    task(tmp_path / "push_t")
    command("import-fiper", tmp_path / "push_t", tmp_path / "a")
    sets = ["--calibration", tmp_path / "a" / "calibration", "--test", tmp_path / "a" / "test"]
    command("export-fiper", tmp_path / "data", "--task", "push_t", *sets)
    assert "4 episodes, 3 successful" in capsys.readouterr().out
    command("import-fiper", tmp_path / "data" / "push_t", tmp_path / "b")
    for part in ("calibration", "test"):
        a, b = (load_counted(tmp_path / x / part)[0] for x in "ab")
        assert sorted((o.success, o.perturbations, o.steps) for o in a) == sorted(
            (o.success, o.perturbations, o.steps) for o in b
        )
        for x, y in zip(sorted(a, key=lambda o: o.steps), sorted(b, key=lambda o: o.steps), strict=True):
            mine, theirs = (load_decisions(tmp_path / w / part / o.decisions) for w, o in (("a", x), ("b", y)))
            assert all(map(same, mine, theirs))
    with pytest.raises(UsageError, match="name --calibration"):
        command("export-fiper", tmp_path / "data", "--task", "push_t")
    with pytest.raises(UsageError, match="no name of a folder"):
        command("export-fiper", tmp_path / "data", "--task", "../up", *sets)
