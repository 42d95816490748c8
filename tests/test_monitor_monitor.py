import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robopolicy.agents import Guarded
from robopolicy.errors import ContractError, MonitorError, NotEnoughCalibration, SpecMismatch
from robopolicy.interfaces import Monitor
from robopolicy.monitor.decisions import DecisionLog, load_decisions, save_decisions
from robopolicy.monitor.monitor import fit_monitor, load_monitor
from robopolicy.monitor.episodes import score_episode
from robopolicy.types import Command, Decision


def episode(rng, length=None):
    length = length or int(rng.integers(5, 20))
    at = np.cumsum(rng.normal(size=(length, 4)), axis=0)
    chunks = rng.normal(size=(length, 3, 8, 2))
    return [Decision(t, t * 400, np.float32(at[t]), np.float32(chunks[t]), 4) for t in range(length)]


@pytest.fixture(scope="module")
def episodes():
    rng = np.random.default_rng(0)
    return [episode(rng) for _ in range(60)]


@pytest.fixture(scope="module")
def monitor(episodes):
    return fit_monitor(episodes, alpha=0.1, seed=1, policy_sha="abc123", seeds=range(500, 560))


def far(decision, by=50.0):
    return replace(decision, embedding=decision.embedding + np.float32(by))


def test_statistic_is_the_running_maximum_and_the_alarm_stays(monitor, episodes):
    assert isinstance(monitor, Monitor)
    monitor.reset()
    calm = [monitor.step(d) for d in episodes[0][:3]]
    assert [v.statistic for v in calm] == list(np.maximum.accumulate([v.scores["kernel_density"] for v in calm]))
    assert {v.state for v in calm} == {"nominal"}
    alarm = monitor.step(far(episodes[0][3]))
    after = monitor.step(episodes[0][4])
    assert alarm.state == after.state == "alarm"
    assert after.statistic == alarm.statistic > 10 * after.threshold
    assert alarm.p_value == 1 / 31
    assert "kernel_density" in alarm.reason
    assert "\n" not in alarm.reason
    assert alarm.latency_s > 0
    monitor.reset()
    assert monitor.step(episodes[0][0]).state == "nominal", "re-armed"


def test_false_alarms_on_fresh_successes_stay_below_alpha(episodes):
    rng = np.random.default_rng(5)
    alarms = []
    for _ in range(12):  # recalibrations
        pool = [episode(rng) for _ in range(40)]
        monitor = fit_monitor(pool, alpha=0.1, seed=0)
        for _ in range(25):
            monitor.reset()
            alarms.append(any(monitor.step(d).state == "alarm" for d in episode(rng)))
    error = 3 * np.sqrt(0.1 * 0.9 / len(alarms)) + 3 * np.sqrt(0.1 * 0.9 / 21 / 12)
    assert np.mean(alarms) <= 0.1 + error
    assert np.mean(alarms) > 0.1 - 1 / 21 - error


def test_what_is_not_finite_is_an_alarm(monitor, episodes):
    monitor.reset()
    broken = replace(episodes[0][0], embedding=np.full(4, np.nan, np.float32))
    verdict = monitor.step(broken)
    assert verdict.state == "alarm"
    assert "not finite" in verdict.reason
    monitor.reset()
    chunks = episodes[0][0].chunks.copy()
    chunks[2, 0, 0] = np.inf
    assert monitor.step(replace(episodes[0][0], chunks=chunks)).state == "alarm"
    monitor.reset()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_alarm(monitor, episodes, monkeypatch, value):
    monkeypatch.setattr(monitor.score, "update", lambda decision: value)
    monitor.reset()
    verdict = monitor.step(episodes[0][0])
    assert (verdict.state, verdict.statistic, verdict.scores) == ("alarm", np.inf, {"kernel_density": np.inf})
    assert "not finite" in verdict.reason
    monitor.reset()


def test_threshold_comes_from_the_largest_score_of_each_calibration_episode(monitor, episodes):
    scores = [score_episode(monitor.score, episodes[i - 500]) for i in monitor.provenance.calibration_seeds]
    assert monitor.z.tolist() == sorted(one.max() for one in scores)
    assert sum(one.max() > max(one[0], one[-1]) for one in scores) > 5, "neither the first score nor the last"


def test_split_is_by_episode_and_written_down(monitor):
    described = monitor.describe()
    fit, calibration = described["provenance"]["fit_seeds"], described["provenance"]["calibration_seeds"]
    assert len(fit) == len(calibration) == 30
    assert sorted([*fit, *calibration]) == list(range(500, 560))
    assert described["k"] == 28  # ceil(31 * .9)
    low, high = described["false_alarm_rate_95"]
    assert low < 0.1 < high
    assert "at most 0.1" in monitor.guarantee()
    assert "30 successful" in monitor.guarantee()
    assert monitor.candidates == 3


def test_calibration_takes_what_alpha_needs(episodes):
    few = fit_monitor(episodes[:22], alpha=0.05)
    assert len(few.z) == 19, "more than half, or there would be no threshold"
    with pytest.raises(NotEnoughCalibration, match=r"20 successful .* at least 21: 19 to calibrate and 2 to fit"):
        fit_monitor(episodes[:20], alpha=0.05)


def test_bad_calibration_episodes(episodes):
    with pytest.raises(MonitorError, match="episode 3 has no decisions"):
        fit_monitor([*episodes[:3], [], *episodes[3:]], alpha=0.1)
    odd = [replace(d, chunks=d.chunks[:1]) for d in episodes[0]]
    with pytest.raises(MonitorError, match=r"1 chunks of \(8, 2\).* and .*3 chunks"):
        fit_monitor([*episodes, odd], alpha=0.1)
    with pytest.raises(MonitorError, match=r"no score 'magic'; valid: .*chunk_overlap, clock"):
        fit_monitor(episodes, alpha=0.1, score="magic")
    with pytest.raises(ContractError, match="alpha"):
        fit_monitor(episodes, alpha=2.0)


@pytest.mark.parametrize("score", ["kernel_density", "chunk_overlap", "clock"])
def test_saved_and_loaded_gives_the_same_verdicts(episodes, tmp_path, score):
    monitor = fit_monitor(episodes, alpha=0.1, score=score, policy_sha="abc")
    loaded = load_monitor(monitor.save(tmp_path / "m"), policy_sha="abc", embedding_dim=4)
    fresh = episode(np.random.default_rng(9), length=30)
    for d in [*fresh, far(fresh[-1])]:
        assert replace(loaded.step(d), latency_s=0) == replace(monitor.step(d), latency_s=0)
    described = json.loads((tmp_path / "m" / "monitor.json").read_text())
    assert described["guarantee"] == monitor.guarantee()
    assert described["decision"] == {"embedding": 4, "candidates": 3, "horizon": 8, "action": 2, "n_execute": 4}
    assert loaded.provenance == monitor.provenance


def test_another_policy_is_refused_with_both_named(monitor, episodes, tmp_path):
    monitor.save(tmp_path)
    with pytest.raises(SpecMismatch, match=r"abc123.* this policy is def456"):
        load_monitor(tmp_path, policy_sha="def456")
    with pytest.raises(SpecMismatch, match=r"embeddings of 4, this policy gives 7"):
        load_monitor(tmp_path, policy_sha="abc123", embedding_dim=7)
    with pytest.raises(SpecMismatch, match=r"3 chunks of \(8, 2\).*gives.*1 chunks of \(8, 2\)"):
        load_monitor(tmp_path).step(replace(episodes[0][0], chunks=episodes[0][0].chunks[:1]))


def test_a_save_that_dies_leaves_a_whole_monitor_or_none(episodes, monitor, tmp_path, monkeypatch):
    other = fit_monitor(episodes, alpha=0.2, score="clock", policy_sha="abc123")
    really = os.replace
    for folder, before in ((tmp_path / "new", None), (tmp_path / "old", monitor)):
        if before is not None:
            before.save(folder)
        for survived in (0, 1):  # files

            def dies(source, target, survived=survived):
                if Path(target).name == ("arrays.npz", "monitor.json")[survived]:
                    raise KeyboardInterrupt
                really(source, target)

            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", dies)
                with pytest.raises(KeyboardInterrupt):
                    other.save(folder)
            if before is not None and survived == 0:
                assert load_monitor(folder).threshold == before.threshold
            else:
                with pytest.raises(MonitorError):
                    load_monitor(folder)
        other.save(folder)
        assert load_monitor(folder).threshold == other.threshold


def test_damaged_folders(monitor, tmp_path):
    with pytest.raises(MonitorError, match="not a monitor"):
        load_monitor(tmp_path)
    monitor.save(tmp_path)
    described = json.loads((tmp_path / "monitor.json").read_text())
    (tmp_path / "monitor.json").write_text(json.dumps(described | {"schema": 99}))
    with pytest.raises(MonitorError, match="schema 99"):
        load_monitor(tmp_path)
    (tmp_path / "monitor.json").write_text(json.dumps({"schema": 1}))
    with pytest.raises(MonitorError, match="not a monitor"):
        load_monitor(tmp_path)
    monitor.save(tmp_path)
    with (tmp_path / "arrays.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(MonitorError, match=r"arrays\.npz is not the file"):
        load_monitor(tmp_path)


def test_decisions_on_disk(episodes, tmp_path):
    with_aux = [replace(d, aux={"denoise_variance": np.full(8, d.index)}) for d in episodes[0]]
    path = save_decisions(tmp_path / "a" / "000001.npz", with_aux)
    assert [p.name for p in path.parent.iterdir()] == ["000001.npz"]
    for kept, original in zip(load_decisions(path), with_aux, strict=True):
        assert (kept.index, kept.stamp_ns, kept.n_execute) == (original.index, original.stamp_ns, original.n_execute)
        np.testing.assert_array_equal(kept.embedding, original.embedding)
        np.testing.assert_array_equal(kept.chunks, original.chunks)
        np.testing.assert_array_equal(kept.aux["denoise_variance"], original.aux["denoise_variance"])
    with pytest.raises(MonitorError, match="without decisions"):
        save_decisions(tmp_path / "b.npz", [])
    (tmp_path / "c.npz").write_bytes(b"not an archive")
    with pytest.raises(MonitorError, match=r"c\.npz"):
        load_decisions(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", other=np.zeros(3))
    with pytest.raises(MonitorError, match="index"):
        load_decisions(tmp_path / "d.npz")


class Replay:
    """An agent whose decisions are given."""

    def __init__(self, decisions):
        self._decisions = decisions
        self.decision = None

    def reset(self, seed=0):
        self._left = list(self._decisions)

    def act(self, observation):
        self.decision = self._left.pop(0)
        return Command(np.zeros(2, np.float32), "policy")


def test_decision_log_collects_through_the_guard(episodes):
    log = DecisionLog()
    assert isinstance(log, Monitor)
    for wanted in episodes[:2]:
        agent = Guarded(Replay(wanted), log)
        agent.reset()
        for _ in wanted:
            command = agent.act(None)
            assert command.source == "policy"
            assert command.verdict.state == "uncalibrated"
    assert log.episodes == [episodes[0], episodes[1]]
    log.reset()
    log.reset()
    assert log.episodes[2:] == [[]], "one without decisions is not kept"


def test_guarded_agent_holds_from_the_alarm_on(monitor, episodes):
    decisions = [*episodes[0][:2], far(episodes[0][2]), episodes[0][3]]
    agent = Guarded(Replay(decisions), monitor)
    agent.reset()
    assert [agent.act(None).source for _ in decisions] == ["policy", "policy", "hold", "hold"]


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe", b"[]", b'{"schema": 1}', b""], ids=["binary", "a list", "no keys", "empty"]
)
def test_a_damaged_monitor_file_is_said_in_one_line(tmp_path, episodes, damage):
    fit_monitor(episodes, alpha=0.1).save(tmp_path)
    (tmp_path / "monitor.json").write_bytes(damage)
    with pytest.raises(MonitorError, match="not a monitor") as caught:
        load_monitor(tmp_path)
    assert "\n" not in str(caught.value)
