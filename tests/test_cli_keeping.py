"""Episodes of `deploy` as rollouts: of a robot that no evaluation runs on."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from robopolicy.cli.calibrate import CANDIDATES, calibrate
from robopolicy.cli.deploy import deploy
from robopolicy.cli.keeping import Keeping
from robopolicy.cli.main import main
from robopolicy.cli.running import Choice
from robopolicy.cli.timing import Timing
from robopolicy.cli.train import train
from robopolicy.clock import SimClock
from robopolicy.errors import NotEnoughCalibration, SpecMismatch, UsageError
from robopolicy.evaluation.outcomes import OUTCOMES, load_about, load_counted
from robopolicy.monitor.decisions import load_decisions, load_verdicts, verdicts_path
from robopolicy.monitor.monitor import MonitorConfig, load_monitor
from robopolicy_data.writer import DatasetWriter
from sim_envs.worlds import make_world

sys.path.insert(0, str(Path(__file__).parent))
import recordings

ARM = "bare_arm:BareArm"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A policy of the twin that sees states only, hardly trained."""
    folder = tmp_path_factory.mktemp("keeping")
    world = make_world("twin:lift", SimClock(), cameras=())
    with DatasetWriter(folder / "d.zarr", world.spec) as writer:
        episode = writer.begin(recordings.META)
        for step in recordings.make_steps(0, 6, spec=world.spec):
            episode.add(step)
        episode.commit()
    world.close()
    train(folder / "d.zarr", folder / "policy", settings={"steps": 1, "batch_size": 4, "num_threads": 1})
    return folder / "policy"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_robots_episodes_are_numbered_on_asked_about_and_calibrate_a_monitor(policy, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "kept"
    answers = ["maybe", "y", "n", *["yes"] * 5]
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(answers) + "\n"))
    for _ in range(7):
        deploy(ARM, policy, max_steps=18, keeping=Keeping(folder), allow_slow=True)
    outcomes, unfinished = load_counted(folder)
    assert [o.seed for o in outcomes] == list(range(200_000, 200_007))
    assert [o.success for o in outcomes] == [True, False, *[True] * 5]
    assert unfinished.waiting == unfinished.aside == 0
    decisions = load_decisions(folder / outcomes[0].decisions)
    assert len(decisions) == 6, "18 steps, 3 a plan"
    assert decisions[0].chunks.shape[0] == CANDIDATES
    told = calibrate(policy, folder, tmp_path / "monitor", MonitorConfig(alpha=0.25))
    assert "1 failed episodes were set aside" in told
    with pytest.raises(NotEnoughCalibration, match="6 successful"):
        calibrate(policy, folder, tmp_path / "monitor", MonitorConfig(alpha=0.05))

    with pytest.raises(UsageError, match="that acts ends some that might have succeeded: add --on-alarm log"):
        deploy(ARM, policy, max_steps=18, monitor=tmp_path / "monitor", keeping=Keeping(folder), allow_slow=True)
    deploy(
        ARM, policy, max_steps=18, monitor=tmp_path / "monitor", on_alarm="log", keeping=Keeping(folder, "yes"),
        allow_slow=True,
    )  # fmt: skip
    last = load_counted(folder)[0][-1]
    assert (last.seed, last.success) == (200_007, True)
    assert len(load_verdicts(verdicts_path(folder / last.decisions))) == 6
    assert main(["monitor", "replay", str(tmp_path / "monitor"), "--rollouts", str(folder), "--seed", "200007"]) == 0
    assert "bit for bit" in capsys.readouterr().out


def test_a_monitor_guards_only_plans_that_come_as_they_came_when_it_was_calibrated(policy, tmp_path):
    """Beside the loop plans come later, and are played otherwise: another statistic, and no promise about it."""
    beside, folder, world = Timing(50.0, latency_s=0.05), tmp_path / "kept", "twin:lift"
    for seed in range(6):
        deploy(world, policy, max_steps=40, seed=seed, timing=beside, keeping=Keeping(folder))
    lines = [json.loads(line) | {"success": True} for line in (folder / OUTCOMES).read_text().splitlines()]
    (folder / OUTCOMES).write_text("".join(json.dumps(line) + "\n" for line in lines))  # as if it had learnt anything
    told = "beside the loop at 50 Hz, seams fade, 50 ms late"
    assert load_about(folder)["timing"] == told
    with pytest.raises(SpecMismatch, match=rf"timing {told}, here \(none\)"):
        deploy(world, policy, max_steps=40, keeping=Keeping(folder))
    calibrate(policy, folder, tmp_path / "late", MonitorConfig(alpha=0.25))
    assert load_monitor(tmp_path / "late").provenance.timing == told
    guarded = {"max_steps": 9, "monitor": tmp_path / "late", "on_alarm": "log"}
    with pytest.raises(SpecMismatch, match=rf"plans made {told}, here they are made in the loop; its promise"):
        deploy(world, policy, **guarded)
    assert deploy(world, policy, timing=beside, **guarded).steps == 9
    with pytest.raises(SpecMismatch, match=r"seams fade, 50 ms late, here they are made .* seams none, 50 ms late"):
        deploy(world, policy, timing=replace(beside, seams="none"), **guarded)
    with pytest.raises(SpecMismatch, match="made beside the loop"):
        Choice().resolve(policy).load_monitor(tmp_path / "late")  # as evaluations and sweeps do


def test_a_world_knows_itself_and_keeps_its_seed(policy, tmp_path):
    for _ in range(2):
        deploy("twin:lift", policy, max_steps=9, seed=5, keeping=Keeping(tmp_path))
    (outcome,) = load_counted(tmp_path)[0]
    assert (outcome.seed, outcome.success) == (5, False)
    with pytest.raises(UsageError, match="twin:lift knows itself"):
        deploy("twin:lift", policy, max_steps=9, keeping=Keeping(tmp_path, "yes"))
    with pytest.raises(SpecMismatch, match="env twin:lift, here bare_arm"):
        deploy(ARM, policy, max_steps=9, keeping=Keeping(tmp_path, "no"), allow_slow=True)


def test_nobody_to_ask_is_said_before_the_robot_moves(policy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="no terminal: add --succeeded"):
        deploy(ARM, policy, max_steps=9, keeping=Keeping(tmp_path / "kept"), allow_slow=True)
    assert not (tmp_path / "kept").exists()
    words = ["deploy", "--robot", ARM, "--checkpoint", str(policy), "--succeeded", "yes"]
    assert main(words) == 1
    assert "add --rollouts FOLDER" in capsys.readouterr().err
