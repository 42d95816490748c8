"""`robopolicy monitor` from the command line: inspect, replay, recalibrate; what deploy tells the drift watch."""

import json
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.cli.calibrate import calibrate, collect
from robopolicy.cli.deploy import deploy
from robopolicy.cli.main import main
from robopolicy.cli.monitor_actions.evaluate import evaluate_monitor
from robopolicy.cli.monitor_actions.replay import replay
from robopolicy.errors import EvaluationError, SpecMismatch
from robopolicy.evaluation.outcomes import OUTCOMES, Outcome, OutcomeLog, load_counted, load_outcomes
from robopolicy.monitor.decisions import load_decisions, load_verdicts, save_decisions, save_verdicts, verdicts_path
from robopolicy.monitor.drift_journal import JOURNAL, STATE, DriftJournal
from robopolicy.monitor.monitor import MonitorConfig, fit_monitor, load_monitor
from robopolicy.monitor.replaying import first_difference, verdicts_of
from robopolicy.monitor.runtime import file_sha
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.training.checkpoint import checkpoint_sha, save_checkpoint
from robopolicy.types import Decision

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_worlds as tiny

WORLD, SHA = "tiny_worlds:EasyWorld", "abc123" * 10


def checkpoint(folder):
    torch.manual_seed(0)
    spec = replace(tiny.SPEC, n_obs=1, horizon=4, n_execute=2)
    policy = DiffusionPolicy(spec, DiffusionConfig(MlpConfig(width=16, depth=1)))
    points = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    policy.fit_normaliser(SimpleNamespace(state={"point": points}, action=points))
    save_checkpoint(folder, policy, train={"steps": 0})
    return folder


def episode(rng, length=None, far=0.0):
    length = length or int(rng.integers(5, 20))
    at = np.cumsum(rng.normal(size=(length, 4)), axis=0) + far
    chunks = rng.normal(size=(length, 3, 8, 2))
    return [Decision(t, t * 400, np.float32(at[t]), np.float32(chunks[t]), 4) for t in range(length)]


@pytest.fixture(scope="module")
def monitor(tmp_path_factory):
    rng = np.random.default_rng(0)
    config = MonitorConfig(("kernel_density", "chunk_overlap"), alpha=0.1)
    made = fit_monitor([episode(rng) for _ in range(40)], config, policy_sha=SHA, seeds=range(40), failed=3)
    return made.save(tmp_path_factory.mktemp("monitor") / "M")


def rollouts(folder, seeds, *, failed=(), watched=None, sha=SHA, far=0.0, about=None):
    """Write the folder of an evaluation; ``watched`` is a monitor's, whose verdicts are kept."""
    rng = np.random.default_rng(1)
    log = OutcomeLog(folder, "one")
    log.begin({"policy_sha": sha, "env": "none", **(about or {})}, list(seeds))
    for seed in seeds:
        path = save_decisions(folder / "decisions" / f"{seed}.npz", episode(rng, far=far))
        log.append(Outcome(seed, seed not in failed, decisions=str(path.relative_to(folder))))
    for one in replay(watched, folder) if watched is not None else ():
        save_verdicts(verdicts_path(folder / "decisions" / f"{one.name}.npz"), one.verdicts)
    return folder


class Closed(HTMLParser):
    """What a page holds, once every tag in it that has to be closed is."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words = [], [], ""
        self.feed(Path(page).read_text())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert not any(value and value.startswith(("http:", "https:")) for _, value in attrs), "asks a network"
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def count(self, tag, css):
        return sum(name == tag and css in (attrs.get("class") or "").split() for name, attrs in self.tags)


def test_inspect_says_what_a_monitor_is_and_promises(monitor, capsys):
    assert main(["monitor", "inspect", str(monitor)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    made = load_monitor(monitor)
    assert "scores kernel_density, chunk_overlap" in said
    assert "combination sum, window 5, patience 0, const" in said
    assert f"threshold {made.threshold:.6g}, number 19 of 20" in said
    assert "calibrated on 20 episodes" in said
    assert "set aside 3 failed episodes" in said
    assert "drift no finished episode has been taken yet" in said
    assert made.guarantee() in said


def test_inspect_as_json_is_all_of_it(monitor, capsys):
    assert main(["monitor", "inspect", str(monitor), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    drift = said.pop("drift")
    assert said == json.loads(json.dumps(load_monitor(monitor).describe()))
    assert (drift["episodes"], drift["warned"]) == (0, "")


def test_inspect_draws_every_calibration_episode_and_the_drift(monitor, tmp_path):
    made = load_monitor(monitor)
    folder = made.save(tmp_path / "M")
    assert main(["monitor", "inspect", str(folder), "--html", str(tmp_path / "deep" / "page.html")]) == 0
    page = Closed(tmp_path / "deep" / "page.html")
    dots = [attrs for tag, attrs in page.tags if tag == "circle"]
    assert len(dots) == 40, "largest statistic and length of 20 episodes"
    assert sum(attrs["class"] == "bad" for attrs in dots) == int((made.calibration.z > made.threshold).sum()) == 1
    assert page.count("path", "faint") == 20
    assert page.count("path", "high") == 1, "the one over the threshold"
    assert "no finished episode has been taken" in page.words
    for _ in range(30):
        DriftJournal(folder, made.calibration.z).record(1e3, success=None)
    assert main(["monitor", "inspect", str(folder), "--html", str(tmp_path / "page.html")]) == 0
    assert "statistics are higher than in calibration" in Closed(tmp_path / "page.html").words


def test_replay_gives_the_stored_verdicts_bit_for_bit(monitor, tmp_path, capsys):
    made = rollouts(tmp_path / "R", range(100, 105), failed=(102,), watched=monitor)
    page = tmp_path / "page.html"
    assert main(["monitor", "replay", str(monitor), "--rollouts", str(made), "--html", str(page)]) == 0
    assert "verdicts of 5 of 5 as stored, bit for bit" in capsys.readouterr().out.replace("\n", " ")
    drawn = Closed(page)
    assert drawn.words.count("as stored, bit for bit") == 5
    assert drawn.count("path", "minor") == 10, "two scores an episode"
    assert drawn.words.index("Episode 102") < drawn.words.index("Episode 100"), "failures first"


@pytest.mark.parametrize("part", ["statistic", "p_value", "score", "state", "stamp_ns", "length"])
def test_replay_names_the_first_bit_that_differs(monitor, tmp_path, capsys, part):
    made = rollouts(tmp_path / "R", range(100, 103), watched=monitor)
    path = verdicts_path(made / "decisions" / "101.npz")
    verdicts = load_verdicts(path)
    third = verdicts[3]
    if part == "length":
        verdicts = verdicts[:-1]
    elif part == "score":
        scores = third.scores | {"chunk_overlap": np.nextafter(third.scores["chunk_overlap"], np.inf)}
        verdicts[3] = replace(third, scores=scores)
    elif part == "state":
        verdicts[3] = replace(third, state="fault")
    elif part == "stamp_ns":
        verdicts[3] = replace(third, stamp_ns=third.stamp_ns + 1)
    else:
        verdicts[3] = replace(third, **{part: np.nextafter(getattr(third, part), np.inf)})
    save_verdicts(path, verdicts)
    assert main(["monitor", "replay", str(monitor), "--rollouts", str(made)]) == 1
    said = capsys.readouterr().out
    assert f"episode 101: {len(verdicts) + 1} verdicts now" in said if part == "length" else "101: decision 4: " in said
    assert "verdicts of 2 of 3 as stored" in said.replace("\n", " ")
    assert main(["monitor", "replay", str(monitor), "--rollouts", str(made), "--seed", "102"]) == 0


def test_latency_and_nan_are_no_difference_a_negative_zero_is(monitor):
    verdicts = verdicts_of(load_monitor(monitor), episode(np.random.default_rng(3), 4))
    assert first_difference([replace(v, latency_s=v.latency_s + 1) for v in verdicts], verdicts) == ""
    holes = [replace(v, statistic=float("nan")) for v in verdicts]
    assert first_difference(holes, holes) == ""
    zeros = [replace(v, statistic=0.0) for v in verdicts]
    assert "statistic -0.0 now" in first_difference([replace(v, statistic=-0.0) for v in verdicts], zeros)


def test_replay_says_what_there_is_nothing_to_compare_with(monitor, tmp_path, capsys):
    made = rollouts(tmp_path / "R", range(100, 102))
    assert main(["monitor", "replay", str(monitor), "--rollouts", str(made)]) == 0
    assert "2 have no stored verdicts to compare with" in capsys.readouterr().out.replace("\n", " ")
    assert main(["monitor", "replay", str(monitor), "--rollouts", str(made), "--seed", "7"]) == 1
    assert "no decisions of seed 7" in capsys.readouterr().err


def test_replay_tells_verdicts_of_another_monitor_and_refuses_another_policy(monitor, tmp_path, capsys):
    made = rollouts(tmp_path / "R", range(100, 110), watched=monitor)
    words = ["monitor", "recalibrate", str(monitor), "--add", str(made), "--out", str(tmp_path / "M2"), "--only-new"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["monitor", "replay", str(tmp_path / "M2"), "--rollouts", str(made)]) == 1
    assert "stored: they are of another monitor" in capsys.readouterr().out
    other = rollouts(tmp_path / "other", range(100, 102), sha="f" * 64)
    assert main(["monitor", "replay", str(monitor), "--rollouts", str(other)]) == 1
    assert "of policy ffffffffffff, monitor" in capsys.readouterr().err


def test_recalibrate_makes_a_new_version_of_confirmed_successes_and_keeps_the_old(monitor, tmp_path, capsys):
    before = {path.name: file_sha(path) for path in monitor.iterdir()}
    made = rollouts(tmp_path / "R", range(100, 110), failed=(103, 107))
    words = ["monitor", "recalibrate", str(monitor), "--add", str(made), "--out", str(tmp_path / "M2")]
    assert main(words) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "20 calibration episodes before, 28 now" in said
    assert "2 failed episodes were set aside" in said
    assert {path.name: file_sha(path) for path in monitor.iterdir()} == before
    old, new = load_monitor(monitor), load_monitor(tmp_path / "M2", policy_sha=SHA)
    good = [seed for seed in range(100, 110) if seed not in (103, 107)]
    assert new.provenance.calibration_seeds == (*old.provenance.calibration_seeds, *good)
    assert new.provenance.fit_seeds == old.provenance.fit_seeds
    assert new.provenance.parent == file_sha(monitor / "monitor.json")
    assert new.provenance.failed == 3 + 2
    largest = [
        max(v.statistic for v in verdicts_of(old, load_decisions(made / "decisions" / f"{s}.npz"))) for s in good
    ]
    # The old monitor does not ask its scores beyond its own longest episode; these are none of them longer.
    np.testing.assert_allclose(new.calibration.z, np.sort([*old.calibration.z, *largest]), rtol=1e-12)
    assert main(words) == 1
    assert "M2 is not empty" in capsys.readouterr().err


def test_recalibrate_refuses_what_would_promise_nothing(monitor, tmp_path, capsys):
    def refused(*folders, out="M2"):
        assert main(["monitor", "recalibrate", str(monitor), "--add", *map(str, folders), "--out", str(tmp_path / out)])
        assert not (tmp_path / "M2").exists()
        return capsys.readouterr().err

    used = load_monitor(monitor).provenance
    for seed in (used.fit_seeds[0], used.calibration_seeds[0]):
        assert f"episode {seed} was used" in refused(rollouts(tmp_path / f"used-{seed}", [seed, 200]))
    other = refused(rollouts(tmp_path / "other", range(300, 303), sha="f" * 64))
    assert "ffffffffffff" in other
    assert SHA[:12] in other
    assert "no successful episode" in refused(rollouts(tmp_path / "bad", [300], failed=(300,)))
    one = rollouts(tmp_path / "one", [300])
    assert "episode 300 comes twice" in refused(one, one)
    assert "not empty" in refused(one, out="one")


@pytest.mark.parametrize("where", ["../../away.npz", "/tmp/away.npz", "decisions/../../away.npz"])
def test_decisions_outside_of_the_rollouts_are_refused(monitor, tmp_path, capsys, where):
    """Rollouts may come from anywhere, and what they name is read, and learnt from."""
    made = rollouts(tmp_path / "a" / "R", range(100, 104))
    save_decisions(tmp_path / "away.npz", episode(np.random.default_rng(0)))
    lines = [json.loads(line) for line in (made / OUTCOMES).read_text().splitlines()]
    lines[2]["decisions"] = where
    (made / OUTCOMES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    for words in (["recalibrate", "--add", made, "--out", tmp_path / "M2"], ["replay", "--rollouts", made]):
        assert main(["monitor", words[0], str(monitor), *map(str, words[1:])]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert f"episode 102: its decisions '{where}' lie outside of the evaluation's folder" in said
    for read in (load_outcomes, load_counted):  # as all that learn from rollouts do
        with pytest.raises(EvaluationError, match="outside of the evaluation's folder"):
            read(made)


def test_recalibrate_on_new_episodes_alone_after_a_drift(monitor, tmp_path, capsys):
    made = load_monitor(monitor)
    folder = made.save(tmp_path / "M")
    for _ in range(30):
        DriftJournal(folder, made.calibration.z).record(1e3, success=None)
    moved = rollouts(tmp_path / "R", range(100, 112), far=50.0)
    assert main(["monitor", "recalibrate", str(folder), "--add", str(moved), "--out", str(tmp_path / "both")]) == 0
    assert "has warned of drift" in capsys.readouterr().out.replace("\n", " ")
    words = ["--out", str(tmp_path / "new"), "--only-new", "--alpha", "0.2"]
    assert main(["monitor", "recalibrate", str(folder), "--add", str(moved), *words]) == 0
    assert "has warned" not in capsys.readouterr().out.replace("\n", " ")
    new = load_monitor(tmp_path / "new")
    assert new.calibration.n == 12
    assert new.calibration.alpha == 0.2
    assert new.threshold > made.threshold
    assert not (tmp_path / "new" / JOURNAL).exists(), "its watch begins anew"


def test_verdicts_of_an_evaluation_come_out_again_bit_for_bit(tmp_path, capsys):
    mine = checkpoint(tmp_path / "mine")
    collect(mine, WORLD, "0:13", tmp_path / "rollouts", jobs=1)
    calibrate(mine, tmp_path / "rollouts", tmp_path / "M", alpha=0.2)
    words = ["--checkpoint", mine, "--env", WORLD, "--seeds", "100:104", "--monitor", tmp_path / "M", "--jobs", 1]
    assert main(["eval", *map(str, words), "--videos", "0", "--out", str(tmp_path / "R"), "--decisions"]) == 0
    outcomes = load_outcomes(tmp_path / "R")
    stored = [load_verdicts(verdicts_path(tmp_path / "R" / str(o.decisions))) for o in outcomes]
    assert [len(verdicts) for verdicts in stored] == [len(o.marks) for o in outcomes]
    assert [[v.statistic for v in one] for one in stored] == [[m.statistic for m in o.marks] for o in outcomes]
    assert main(["monitor", "replay", str(tmp_path / "M"), "--rollouts", str(tmp_path / "R")]) == 0
    assert "verdicts of 4 of 4 as stored" in capsys.readouterr().out.replace("\n", " ")


def test_deploy_tells_the_drift_watch_of_a_robot_and_says_when_it_warns(tmp_path, capsys):
    mine = checkpoint(tmp_path / "mine")
    collect(mine, WORLD, "20:80", tmp_path / "rollouts", jobs=1)
    calibrate(mine, tmp_path / "rollouts", tmp_path / "M", alpha=0.2)
    drive = {"monitor": tmp_path / "M", "on_alarm": "log", "max_steps": 6, "allow_slow": True}
    deploy(WORLD, mine, **drive)
    assert not (tmp_path / "M" / JOURNAL).exists(), "a simulated world is no robot"
    outcome = deploy("mock", mine, **drive)
    (entry,) = DriftJournal(tmp_path / "M", load_monitor(tmp_path / "M").calibration.z).entries()
    assert entry.statistic == max(mark.statistic for mark in outcome.marks)
    assert (entry.label, entry.episode) == ("unlabelled", "mock")
    capsys.readouterr()
    for _ in range(20):  # far from all of calibration
        DriftJournal(tmp_path / "M", load_monitor(tmp_path / "M").calibration.z).record(1e4, success=None)
    deploy("mock", mine, **drive)
    assert "statistics are higher than in calibration" in capsys.readouterr().out.replace("\n", " ")
    assert json.loads((tmp_path / "M" / STATE).read_text())["warned"] == "high"
    load_monitor(tmp_path / "M")  # the journal lies beside the monitor and is no part of it


def test_episodes_of_two_worlds_or_timings_calibrate_together_only_what_forgets_the_old(tmp_path, capsys):
    rng = np.random.default_rng(0)
    folder = fit_monitor(
        [episode(rng) for _ in range(40)], MonitorConfig(alpha=0.1), policy_sha=SHA, seeds=range(40), env="twin:lift"
    ).save(tmp_path / "M")
    beside = "beside the loop at 100 Hz, seams fade"
    peg = rollouts(tmp_path / "peg", range(100, 112), about={"env": "twin:peg"})
    late = rollouts(tmp_path / "late", range(200, 212), about={"env": "twin:lift", "timing": beside})

    def run(*rest):
        out = tmp_path / f"M{len(list(tmp_path.iterdir()))}"
        code = main(["monitor", "recalibrate", str(folder), "--out", str(out), "--add", *map(str, rest)])
        return out if code == 0 else " ".join(capsys.readouterr().err.split())

    assert "world twin:peg, the monitor's of twin:lift; " in run(peg)
    assert "--only-new forgets the old ones" in run(peg)
    assert f"plans made {beside}, the monitor's of in the loop; " in run(late)
    assert "late are of world twin:lift, those of" in run(peg, late, "--only-new"), "nor do the new ones mix"
    moved = load_monitor(run(late, "--only-new")).provenance
    assert (moved.env, moved.timing) == ("twin:lift", beside)
    assert load_monitor(run(peg, "--only-new")).provenance.env == "twin:peg"
    same = rollouts(tmp_path / "same", range(300, 303), about={"env": "twin:lift"})
    assert load_monitor(run(same)).provenance.env == "twin:lift"
    replayed = ["monitor", "replay", str(folder), "--rollouts", str(late)]
    capsys.readouterr()
    assert main(replayed) == 1
    assert f"plans made in the loop, here they are made {beside}; " in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "reactions", ["alarm: hold, overrun: hold, fault: hold", "alarm: log, overrun: stop, fault: hold"]
)
def test_what_an_alarm_ended_calibrates_nothing(monitor, tmp_path, capsys, reactions):
    held = rollouts(tmp_path / "held", range(100, 130), about={"reactions": reactions})
    assert main(["monitor", "recalibrate", str(monitor), "--add", str(held), "--out", str(tmp_path / "M2")]) != 0
    assert f"({reactions}): its alarms chose which episodes succeeded" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "M2").exists()
    mine, out = checkpoint(tmp_path / "policy"), tmp_path / "eval"
    held = rollouts(tmp_path / "his", range(30), sha=checkpoint_sha(mine), about={"reactions": reactions})
    with pytest.raises(SpecMismatch, match="its alarms chose"):
        calibrate(mine, held, out)
    with pytest.raises(SpecMismatch, match="its alarms chose"):
        evaluate_monitor(mine, held, [], out, published="none")
    only_told = rollouts(
        tmp_path / "told", range(100, 130), about={"reactions": "alarm: log, overrun: log, fault: hold"}
    )
    assert main(["monitor", "recalibrate", str(monitor), "--add", str(only_told), "--out", str(tmp_path / "M3")]) == 0
