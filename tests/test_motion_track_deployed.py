"""A motion-track checkpoint deploys like any other: deploy, eval, calibrate, a monitor, and what goes wrong in them."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli import worlds
from robopolicy.cli.deploy import deploy
from robopolicy.cli.evaluate import Subject
from robopolicy.cli.main import main
from robopolicy.cli.running import AS_SAVED
from robopolicy.errors import MonitorError, SpecMismatch, TracksLost, UnknownCamera
from robopolicy.evaluation.outcomes import load_outcomes
from robopolicy.monitor.artefact import load_monitor
from robopolicy.monitor.decisions import load_decisions
from robopolicy.monitor.scores import make_score
from robopolicy.policies.latency import Latency, _with_training, _without_training, measure_latency, remedies
from robopolicy.training.checkpoint import load_policy, read_cameras
from robopolicy.types import Decision
from robopolicy_data.reader import Dataset

sys.path.insert(0, str(Path(__file__).parent))
import tracks_worlds


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A policy that hardly knows anything, but how a gripper goes about."""
    return tracks_worlds.make_checkpoint(tmp_path_factory.mktemp("tracks"))


@pytest.fixture
def beside(monkeypatch):
    """Run where the worlds of tests are found by name, also in worker processes."""
    monkeypatch.chdir(Path(__file__).parent)


@pytest.fixture
def world(monkeypatch):
    """Let ``twin:lift`` be another world."""

    def be(kind):
        monkeypatch.setattr(worlds, "make_world", lambda name, clock, **options: kind(clock))

    return be


def one_line(captured):
    said = captured.err.strip()
    assert "\n" not in said, said
    assert "unexpected" not in said
    return said


def run(*words):
    return main([str(word) for word in words])


class TestDeploy:
    def test_it_drives_and_says_by_which_calibration(self, checkpoint, capsys):
        assert run("deploy", "--robot", "twin:lift", "--checkpoint", checkpoint, "--max-steps", 12) == 0
        captured = capsys.readouterr()
        alone = "; without --monitor a camera that was moved since is not noticed"
        assert f"cameras front, side: where they stood in the training data{alone}" in captured.out + captured.err
        assert "twin:lift, seed 200000: no success after 12 steps" in captured.out + captured.err

    def test_it_plans_beside_the_loop(self, checkpoint, capsys):
        words = ("deploy", "--robot", "twin:lift", "--checkpoint", checkpoint, "--max-steps", 30, "--control-rate", 60)
        assert run(*words) == 0
        assert "after 30 steps" in "".join(capsys.readouterr())
        assert run(*words, "--seams", "rtc") == 1
        assert "without a look at the running motion; want fade" in one_line(capsys.readouterr())

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--companion", "CHECKPOINT"], "motion tracks take none; view_gap and misfit tell their doubt"),
            (["--goal", "d.zarr:0"], "was trained without goals"),
            (["--solver", "consistency"], "consistency"),
        ],
    )
    def test_what_it_cannot_do_is_refused_in_one_line(self, words, told, checkpoint, capsys):
        words = [str(checkpoint) if word == "CHECKPOINT" else word for word in words]
        assert run("deploy", "--robot", "twin:lift", "--checkpoint", checkpoint, "--max-steps", 4, *words) == 1
        assert told in one_line(capsys.readouterr())

    def test_it_cannot_be_exported(self, checkpoint, tmp_path, capsys):
        assert run("export", "--checkpoint", checkpoint, "--to", "torch", tmp_path / "x.pt2") == 1
        assert "run the checkpoint itself" in one_line(capsys.readouterr())
        assert not list(tmp_path.iterdir())

    def test_what_makes_a_slow_one_faster_is_tried_on_the_spot(self, checkpoint):
        policy = load_policy(checkpoint)
        slow = Latency(10.0, 10.0, 1, 16, "this", 1)
        assert remedies(policy, slow), "whatever is first helps against ten seconds"
        changes = [*_without_training(policy, slow), *_with_training(policy)]
        words = [change.words for change in changes]
        assert "1 candidate in place of 16" in words
        assert "--solver.steps 1 in place of 4" in words
        assert any("consistency" in each for each in words)
        before = policy.config
        for change in changes:
            assert measure_latency(change.make(), change.n or 2, repetitions=1).p50_s > 0
        assert policy.config == before, "what was tried is not kept"

    def test_tracks_lost_on_made_up_pictures_are_timed_all_the_same(self, checkpoint, monkeypatch):
        policy = load_policy(checkpoint)
        real = policy._lifted

        def lost(*args):
            real(*args)
            raise TracksLost("tracks are lost")

        monkeypatch.setattr(policy, "_lifted", lost)
        assert measure_latency(policy, repetitions=2).plans == 2


class TestCalibration:
    def test_the_robots_own_is_planned_by_and_told(self, checkpoint, world, capsys):
        world(tracks_worlds.Elsewhere)
        outcome = deploy("twin:lift", checkpoint, max_steps=8)
        assert outcome.steps == 8
        said = "".join(capsys.readouterr())
        assert "where the robot's calibration has them" in said
        assert "front 20.0 cm and 0.0 deg, side 0.0 cm and 0.0 deg" in said

    def test_a_robot_that_tells_none_has_that_of_the_training_data(self, checkpoint, world, capsys):
        world(tracks_worlds.Untold)
        deploy("twin:lift", checkpoint, max_steps=4)
        assert "cameras front, side: where they stood in the training data" in "".join(capsys.readouterr())

    def test_a_camera_without_calibration_is_named(self, checkpoint, world, beside, capsys):
        world(tracks_worlds.HalfTold)
        with pytest.raises(UnknownCamera, match="side"):
            deploy("twin:lift", checkpoint, max_steps=4)
        words = ("eval", "--checkpoint", checkpoint, "--env", "tracks_worlds:HalfTold", "--seeds", "0:2")
        assert run(*words) == 1
        assert "no calibrated camera 'side'; valid: front" in one_line(capsys.readouterr())

    def test_pictures_of_another_size_are_refused_with_both_sides(self, checkpoint, world, beside, capsys):
        world(tracks_worlds.Large)
        with pytest.raises(SpecMismatch, match=r"(?s)48.*64|64.*48"):
            deploy("twin:lift", checkpoint, max_steps=4)
        words = ("eval", "--checkpoint", checkpoint, "--env", "tracks_worlds:Large", "--seeds", "0:2")
        assert run(*words) == 1
        assert "64" in one_line(capsys.readouterr())

    def test_eval_plans_by_the_worlds_own_and_is_another_evaluation_then(self, checkpoint, beside):
        there = {}
        for name in ("Brief", "Untold", "Elsewhere"):
            subject = Subject.of(checkpoint, f"tracks_worlds:{name}")
            there[name] = subject, subject.make_agent()._policy.cameras["front"].T_base_cam[1, 3]
        assert there["Brief"][1] == there["Untold"][1] == pytest.approx(there["Elsewhere"][1] - 0.2)
        assert "cameras" not in there["Brief"][0].about
        assert there["Elsewhere"][0].about["cameras"].startswith("as the robot tells (")
        assert there["Brief"][0].sha == there["Elsewhere"][0].sha, "it is the same policy"

    def test_a_calibration_in_arrays_is_the_same_in_lists(self, checkpoint):
        told = {name: dict(entry) for name, entry in read_cameras(checkpoint).items()}
        for entry in told.values():
            entry["T_base_cam"] = (np.array(entry["T_base_cam"]) + 0.1 * np.eye(4, k=3)).tolist()
        arrays = {v: {k: np.array(each) for k, each in entry.items()} for v, entry in told.items()}
        lists, same = (AS_SAVED.resolve(checkpoint).placed(each) for each in (told, arrays))
        assert lists.cameras
        assert lists.key == same.key

    def test_worlds_with_other_cameras_share_no_policy(self, checkpoint, beside):
        """A process of a sweep loads a policy once; two calibrations are two of them."""
        asked = []

        def share(key, load, n=1):
            asked.append(key)
            return load()

        for name in ("Brief", "Untold", "Elsewhere"):
            Subject.of(checkpoint, f"tracks_worlds:{name}").make_agent(share=share)
        assert asked[0] == asked[1] != asked[2]


class TestLost:
    def test_in_an_evaluation_the_episode_failed_for_that_reason_and_the_others_go_on(
        self, checkpoint, beside, tmp_path, capsys
    ):
        out = tmp_path / "eval"
        words = ("eval", "--checkpoint", checkpoint, "--env", "tracks_worlds:Leaving", "--seeds", "0:4", "--out", out)
        assert run(*words, "--jobs", 1, "--videos", 0) == 0
        assert "success 2/4" in capsys.readouterr().out
        stayed, left, behind, other = load_outcomes(out)
        assert stayed.success
        assert other.success
        assert (stayed.lost, stayed.steps) == ("", tracks_worlds.STEPS)
        for outcome, why in ((left, "tracks are lost"), (behind, r"camera 'front': (\d+) of \1 points are behind")):
            assert outcome.error is None
            assert not outcome.success
            assert re.match(why, outcome.lost), "all points; a batch is filled up with those of whoever asks"
            assert (outcome.failure, outcome.onset_step, outcome.steps) == ("lost", 8, 8), "it plans every fourth step"
        page = (out / "report.html").read_text()
        assert "the policy had no plan for what it saw" in page
        assert left.lost.split(";")[0] in page
        before = (out / "outcomes.jsonl").read_text()
        assert run(*words, "--jobs", 1, "--videos", 0) == 0
        assert (out / "outcomes.jsonl").read_text() == before, "it failed: it is not run again"

    @pytest.mark.parametrize("beside_the_loop", [(), ("--control-rate", 20)])
    @pytest.mark.parametrize(("seed", "why"), [(1, "tracks are lost"), (2, "camera 'front': 5 of 5 points are behind")])
    def test_on_a_robot_it_is_stopped_and_the_recording_tells_why(
        self, checkpoint, world, tmp_path, capsys, beside_the_loop, seed, why
    ):
        did = []

        class Watched(tracks_worlds.Leaving):
            def stop(self, reason=""):
                did.append(("stop", reason))
                return super().stop(reason)

            def command(self, action, due_ns):
                did.append(("command", np.array(action)))
                return super().command(action, due_ns)

        world(Watched)
        data = tmp_path / "d.zarr"
        words = ("deploy", "--robot", "twin:lift", "--checkpoint", checkpoint, "--seed", seed, "--record", data)
        assert run(*words, *beside_the_loop) == 1
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("robopolicy: ")
        assert why in said
        what, reason = did[-1]
        assert what == "stop"
        assert reason.startswith("ended by")
        assert why in reason
        commands = np.array([values for what, values in did if what == "command"])
        assert np.abs(np.diff(commands[:, :3], axis=0)).max() < 0.1, "nothing of where it is not was commanded"
        (episode,) = Dataset(data)
        assert episode.meta.success is False
        assert why in episode.meta.notes
        assert episode.length == len(commands)


SCORES = ("view_gap", "misfit", "displaced")


@pytest.fixture(scope="module")
def watched(checkpoint, tmp_path_factory):
    """A monitor of the scores of tracks alone, and the rollouts it is calibrated on beside it."""
    out = tmp_path_factory.mktemp("watched") / "alone"
    made = ("calibrate", "--checkpoint", checkpoint, "--alpha", 0.1, "--env", "tracks_worlds:Brief", "--jobs", 1)
    with pytest.MonkeyPatch.context() as here:
        here.chdir(Path(__file__).parent)
        assert run(*made, "--seeds", "10000:10036", "--scores", *SCORES, "--out", out) == 0
    return out


class TestMonitor:
    def test_scores_of_tracks_alone_and_beside_others_from_calibrate_to_replay(
        self, checkpoint, watched, tmp_path, capsys
    ):
        both, scores = tmp_path / "both", ("mahalanobis", "chunk_overlap", *SCORES)
        made = ("calibrate", "--checkpoint", checkpoint, "--alpha", 0.1, "--rollouts", watched / "rollouts")
        assert run(*made, "--scores", *scores, "--out", both) == 0
        assert "is at most 0.1" in capsys.readouterr().out
        for monitor, names in ((watched, SCORES), (both, scores)):
            out = tmp_path / f"of-{monitor.name}"
            deployed = ("deploy", "--robot", "twin:lift", "--checkpoint", checkpoint, "--monitor", monitor)
            assert run(*deployed, "--max-steps", 12, "--on-alarm", "log", "--rollouts", out) == 0
            said = "".join(capsys.readouterr())
            assert "alarm" in said
            assert "without --monitor" not in said
            assert run("monitor", "replay", monitor, "--rollouts", out) == 0
            assert run("monitor", "inspect", monitor) == 0
            assert f"{', '.join(names)}\n" in capsys.readouterr().out

    def test_a_camera_that_was_moved_is_named(self, checkpoint, watched, beside, tmp_path):
        monitor = tmp_path / "monitor"
        made = ("calibrate", "--checkpoint", checkpoint, "--alpha", 0.1, "--rollouts", watched / "rollouts")
        assert run(*made, "--out", tmp_path / "default") == 0
        names = [score.name for score in load_monitor(tmp_path / "default").scores]
        assert names == ["mahalanobis", "chunk_overlap", "displaced"]
        assert run(*made, "--scores", "displaced", "--out", monitor) == 0
        reasons = {}
        for world in ("Brief", "Moved"):
            seen = ("eval", "--checkpoint", checkpoint, "--monitor", monitor, "--videos", 0, "--jobs", 1)
            out = tmp_path / world
            assert run(*seen, "--seeds", "0:8", "--env", f"tracks_worlds:{world}", "--out", out) == 0
            reasons[world] = [outcome.alarm_reason for outcome in load_outcomes(out)]
        assert sum("; camera 'side' shows the gripper " in reason for reason in reasons["Moved"]) >= 6, reasons
        assert not any("camera 'front'" in reason for reason in reasons["Moved"])
        assert sum(bool(reason) for reason in reasons["Brief"]) <= 2, reasons

    def test_a_step_that_tells_no_pose_is_bad_and_no_fault(self, checkpoint, watched):
        """A plan whose later rows are lost is played as far as it is believed: the monitor says how bad that is."""
        monitor = load_monitor(watched)
        episode = load_decisions(sorted((watched / "rollouts").rglob("decisions/**/*.npz"))[0])
        good = [monitor.step(one) for one in episode]
        monitor.reset()
        lost = {**episode[0].aux, "misfit": np.full(8, np.inf, np.float32)}
        verdict = monitor.step(replace(episode[0], aux=lost))
        assert verdict.state != "fault"
        assert verdict.scores["misfit"] > max(one.scores["misfit"] for one in good)

    def test_another_policy_is_told_what_the_scores_take(self):
        score = make_score("displaced")
        with pytest.raises(MonitorError, match=r"needs the policy to give aux features and points.*motion-track"):
            score.fit([[Decision(0, 0, np.zeros(3, np.float32), np.zeros((1, 4, 2), np.float32), 2)]])
