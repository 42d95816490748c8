import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robopolicy.agents import Guarded
from robopolicy.errors import ContractError, MonitorError, NotEnoughCalibration, SpecMismatch
from robopolicy.interfaces import Monitor
from robopolicy.monitor.artefact import FILES
from robopolicy.monitor.decisions import (
    DecisionLog,
    load_decisions,
    load_verdicts,
    save_decisions,
    save_verdicts,
    verdicts_path,
)
from robopolicy.monitor.episodes import score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.monitor import DEFAULT, MonitorConfig, fit_monitor, load_monitor, recalibrated
from robopolicy.monitor.roles import Roles
from robopolicy.monitor.statistic import Combination, Statistic
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
    return fit_monitor(episodes, config(seed=1), policy_sha="abc123", seeds=range(500, 560))


def config(alpha=0.1, scores=("kernel_density",), **rest):
    return MonitorConfig(scores, alpha=alpha, **rest)


def far(decision, by=50.0):
    return replace(decision, embedding=decision.embedding + np.float32(by))


def test_statistic_is_the_running_maximum_and_the_alarm_stays(monitor, episodes):
    assert isinstance(monitor, Monitor)
    monitor.reset()
    calm = [monitor.step(d) for d in episodes[0][:3]]
    standard = monitor.statistic.trace(np.array([[v.scores["kernel_density"]] for v in calm]))
    assert [v.statistic for v in calm] == list(np.maximum.accumulate(standard))
    assert {v.state for v in calm} == {"nominal"}
    alarm = monitor.step(far(episodes[0][3]))
    after = monitor.step(episodes[0][4])
    assert alarm.state == after.state == "alarm"
    assert after.statistic == alarm.statistic > 2 * after.threshold
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
        monitor = fit_monitor(pool, config())
        for _ in range(25):
            monitor.reset()
            alarms.append(any(monitor.step(d).state == "alarm" for d in episode(rng)))
    error = 3 * np.sqrt(0.1 * 0.9 / len(alarms)) + 3 * np.sqrt(0.1 * 0.9 / 21 / 12)
    assert np.mean(alarms) <= 0.1 + error
    assert np.mean(alarms) > 0.1 - 1 / 21 - error


def test_what_is_not_finite_is_a_fault(monitor, episodes):
    monitor.reset()
    broken = replace(episodes[0][0], embedding=np.full(4, np.nan, np.float32))
    verdict = monitor.step(broken)
    assert verdict.state == "fault"
    assert verdict.reason == "decision 1: the policy's embedding is not finite"
    assert monitor.step(episodes[0][1]).state == "fault", "latched"
    monitor.reset()
    chunks = episodes[0][0].chunks.copy()
    chunks[2, 0, 0] = np.inf
    assert monitor.step(replace(episodes[0][0], chunks=chunks)).state == "fault"
    monitor.reset()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_a_fault(monitor, episodes, monkeypatch, value):
    monkeypatch.setattr(monitor.scores[0], "update", lambda decision: value)
    monitor.reset()
    verdict = monitor.step(episodes[0][0])
    assert (verdict.state, verdict.statistic) == ("fault", np.inf)
    assert verdict.reason == "decision 1: score kernel_density is not finite"
    monitor.reset()


def test_a_fault_beyond_the_calibrated_decisions_is_one_too(monitor, episodes):
    monitor.reset()
    for t in range(monitor.calibration.calibrated + 3):
        monitor.step(replace(episodes[0][0], index=t))
    assert monitor.step(replace(episodes[0][0], embedding=np.full(4, np.inf, np.float32))).state == "fault"
    monitor.reset()


def test_a_fault_that_was_acknowledged_leaves_nothing_behind(monitor, episodes):
    def run():
        return [replace(monitor.step(d), latency_s=0) for d in episodes[1][:4]]

    monitor.reset()
    clean = run()
    monitor.reset()
    monitor.step(replace(episodes[0][0], chunks=np.full((3, 8, 2), np.nan, np.float32)))
    monitor.acknowledge()
    assert run() == clean
    monitor.reset()


def test_an_episode_three_times_as_long_ends_in_overrun(monitor, episodes):
    monitor.reset()
    last = monitor.calibration.longest
    assert last == monitor.calibration.calibrated
    assert last == max(len(episodes[i - 500]) for i in monitor.provenance.calibration_seeds)
    calm = min(episodes[0], key=lambda d: float(np.abs(d.embedding).sum()))
    verdicts = [monitor.step(replace(calm, index=t)) for t in range(3 * last)]
    states = [verdict.state for verdict in verdicts]
    assert set(states[:last]) <= {"nominal", "warn"}
    assert set(states[last:]) == {"overrun"}
    assert verdicts[last].reason.startswith(f"decision {last + 1}: more than the {last} decisions")
    assert f"told from decision {last + 1} on" in monitor.guarantee(), "both count from 1"
    assert monitor.step(far(calm)).state == "overrun", "beyond the calibrated decisions no score may alarm"
    monitor.acknowledge()
    assert monitor.step(calm).state == "uncalibrated"
    assert monitor.step(far(calm)).state == "uncalibrated"
    monitor.reset()


def test_overrun_has_an_alpha_of_its_own(episodes):
    strict = fit_monitor(episodes, config(alpha_time=0.2))
    lengths = np.sort([len(trace) for trace in strict.calibration.traces])
    assert strict.calibration.longest == lengths[int(np.ceil(31 * 0.8)) - 1] < lengths[-1]
    assert strict.threshold == fit_monitor(episodes, config()).threshold
    calm = min(episodes[0], key=lambda d: float(np.abs(d.embedding).sum()))
    states = [strict.step(replace(calm, index=t)).state for t in range(strict.calibration.longest + 1)]
    assert states[-1] == "overrun"
    assert strict.step(far(calm)).state == "alarm", "still calibrated: an alarm of the scores says more"
    with pytest.raises(NotEnoughCalibration, match=r"0\.01 needs at least 99"):
        fit_monitor(episodes, config(alpha_time=0.01))


def test_a_warning_comes_before_the_alarm_and_goes_by_the_p_value(monitor, episodes):
    z = monitor.calibration.z
    assert monitor.calibration.warn_rate == 0.2
    assert monitor.calibration.p(z[-6]) > 0.2 > monitor.calibration.p(z[-4])
    monitor.reset()
    near = [far(episodes[0][0], by=by) for by in np.linspace(0, 60, 20)]
    states = [monitor.step(d).state for d in np.array(near)[: monitor.calibration.calibrated]]
    assert states[0] == "nominal"
    assert states[-1] == "alarm"
    assert list(dict.fromkeys(states)) in (["nominal", "warn", "alarm"], ["nominal", "alarm"])
    monitor.reset()
    close = far(episodes[0][0], by=0.0)
    monitor.statistic.push, kept = (lambda scores: z[-4]), monitor.statistic.push
    try:
        assert monitor.step(close).state == "warn"
    finally:
        monitor.statistic.push = kept
    monitor.reset()


def test_acknowledged_it_alarms_again_only_at_something_new(monitor, episodes):
    monitor.reset()
    assert monitor.step(far(episodes[0][0])).state == "alarm"
    assert monitor.step(episodes[0][1]).state == "alarm"
    monitor.acknowledge()
    assert monitor.step(episodes[0][2]).state in ("nominal", "warn")
    assert monitor.step(far(episodes[0][3])).state == "alarm"
    monitor.reset()


def test_threshold_comes_from_the_largest_score_of_each_calibration_episode(monitor, episodes):
    scores = [score_episode(monitor.scores[0], episodes[i - 500]) for i in monitor.provenance.calibration_seeds]
    traces = [monitor.statistic.trace(one[:, None]) for one in scores]
    assert monitor.calibration.z.tolist() == sorted(one.max() for one in traces)
    assert sum(one.max() > max(one[0], one[-1]) for one in traces) > 5, "neither the first score nor the last"


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
    few = fit_monitor(episodes[:22], config(alpha=0.05))
    assert few.calibration.n == 19, "more than half, or there would be no threshold"
    with pytest.raises(NotEnoughCalibration, match=r"20 successful .* at least 21: 19 to calibrate and 2 to fit"):
        fit_monitor(episodes[:20], config(alpha=0.05))


def test_bad_calibration_episodes(episodes):
    with pytest.raises(MonitorError, match="episode 3 has no decisions"):
        fit_monitor([*episodes[:3], [], *episodes[3:]], config())
    odd = [replace(d, chunks=d.chunks[:1]) for d in episodes[0]]
    with pytest.raises(MonitorError, match=r"1 chunks of \(8, 2\).* and .*3 chunks"):
        fit_monitor([*episodes, odd], config())
    with pytest.raises(MonitorError, match=r"no score 'magic'; valid: .*kernel_density"):
        fit_monitor(episodes, config(scores=("magic",)))
    with pytest.raises(ContractError, match="alpha"):
        fit_monitor(episodes, config(alpha=2.0))


def test_by_default_two_scores_are_averaged_over_five_decisions(episodes):
    """Chosen on starts by which nothing is judged; an episode's first verdicts average what there is."""
    monitor = fit_monitor(episodes)
    assert monitor.statistic.names == ("mahalanobis", "chunk_overlap")
    assert (monitor.statistic.how, DEFAULT.how) == (Combination("sum", window=5, patience=0, shape="const"),) * 2
    monitor.reset()
    scores = [list(monitor.step(d).scores.values()) for d in episodes[0][:7]]
    trace, alone = (Statistic(monitor.statistic.names, how, monitor.statistic.arrays()).trace(np.array(scores))
                    for how in (DEFAULT.how, Combination()))  # fmt: skip
    for t in range(7):
        assert trace[t] == pytest.approx(alone[max(t - 4, 0) : t + 1].mean(), abs=1e-12)
    monitor.reset()
    assert monitor.step(far(episodes[0][0])).state == "alarm", "an episode of one decision is judged too"
    short = [one[:3] for one in episodes]  # shorter than the window
    assert len(fit_monitor(short).calibration.traces[0]) == 3


@pytest.mark.parametrize("score", ["kernel_density", "chunk_overlap", "clock"])
def test_saved_and_loaded_gives_the_same_verdicts(episodes, tmp_path, score):
    monitor = fit_monitor(episodes, config(scores=(score,)), policy_sha="abc")
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
    other = fit_monitor(episodes, config(alpha=0.2, scores=("clock",)), policy_sha="abc123")
    really = os.replace
    for folder, before in ((tmp_path / "new", None), (tmp_path / "old", monitor)):
        if before is not None:
            before.save(folder)
        for survived in (0, 1, 2):  # files

            def dies(source, target, survived=survived):
                if Path(target).name == (*FILES, "monitor.json")[survived]:
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
    (tmp_path / "monitor.json").write_text(json.dumps({"schema": 2}))
    with pytest.raises(MonitorError, match="not a monitor"):
        load_monitor(tmp_path)
    assert described["sha256"].keys() == {*FILES, "monitor.json"}
    for edit in ({"alpha_time": 0.9}, {"threshold": 99.0}, {"guarantee": "never wrong"},
                 {"provenance": described["provenance"] | {"policy_sha": "def456"}},
                 {"sha256": {name: described["sha256"][name] for name in FILES}}):  # fmt: skip
        (tmp_path / "monitor.json").write_text(json.dumps(described | edit))
        with pytest.raises(MonitorError, match=r"monitor\.json is not as it was written; .* monitor recalibrate") as no:
            load_monitor(tmp_path)
        assert "\n" not in str(no.value)
    (tmp_path / "monitor.json").write_text(json.dumps(dict(reversed(described.items()))))
    assert load_monitor(tmp_path).threshold == monitor.threshold, "it is what is said that counts, not how"
    for name in FILES:
        monitor.save(tmp_path)
        with (tmp_path / name).open("ab") as file:
            file.write(b"x")
        with pytest.raises(MonitorError, match=rf"{name} is not the file"):
            load_monitor(tmp_path)
    monitor.save(tmp_path)
    described = json.loads((tmp_path / "monitor.json").read_text())
    (tmp_path / "monitor.json").write_text(json.dumps(described | {"schema": 1}))
    with pytest.raises(MonitorError, match="schema 1, this robopolicy reads 2: calibrate anew"):
        load_monitor(tmp_path)


def test_other_actions_are_refused_with_both_named(episodes, tmp_path):
    layout = ActionLayout(2, (0,), (), (1,), "absolute", 0.05)
    fit_monitor(episodes, config(), layout=layout).save(tmp_path)
    assert load_monitor(tmp_path, layout=layout).layout == layout
    with pytest.raises(SpecMismatch, match=r"dt_s=0\.05.*this policy gives.*dt_s=0\.1"):
        load_monitor(tmp_path, layout=replace(layout, dt_s=0.1))


def test_recalibrated_on_more_successes(monitor, episodes):
    rng = np.random.default_rng(77)
    more = [episode(rng) for _ in range(20)]
    z, threshold = monitor.calibration.z.copy(), monitor.threshold
    new = recalibrated(monitor, more, range(900, 920), parent="f00")
    assert new.calibration.n == 50
    assert set(z) < set(new.calibration.z)
    assert (new.provenance.parent, new.provenance.policy_sha) == ("f00", "abc123")
    assert new.provenance.calibration_seeds == (*monitor.provenance.calibration_seeds, *range(900, 920))
    assert monitor.threshold == threshold
    monitor.reset()
    kept = [monitor.step(d).state for d in more[0]]
    new.step(far(more[0][0]))
    monitor.reset()
    assert [monitor.step(d).state for d in more[0]] == kept, "the two share no memory"
    only = recalibrated(monitor, more, range(900, 920), only_new=True)
    assert only.calibration.n == 20
    with pytest.raises(MonitorError, match="episode 501 was used"):
        recalibrated(monitor, more, [501, *range(900, 919)])
    with pytest.raises(NotEnoughCalibration, match="5 successful"):
        recalibrated(monitor, more[:5], range(5), only_new=True)


def test_roles_say_which_episode_is_for_what(episodes, tmp_path):
    roles = Roles.split(range(60), alpha=0.1, seed=3, test=10)
    assert (len(roles.fit), len(roles.calibrate), len(roles.test)) == (25, 25, 10)
    path = roles.save(tmp_path / "roles.json")
    assert Roles.load(path) == roles
    roles.save(path)
    with pytest.raises(MonitorError, match="frozen"):
        Roles.split(range(60), alpha=0.1, seed=4, test=10).save(path)
    made = fit_monitor(episodes, config(), roles=roles)
    assert (made.provenance.fit_seeds, made.provenance.calibration_seeds) == (roles.fit, roles.calibrate)
    with pytest.raises(MonitorError, match="two roles"):
        Roles((1, 2), (2, 3))
    with pytest.raises(MonitorError, match="no successful episode"):
        fit_monitor(episodes, config(), roles=Roles(tuple(range(30)), tuple(range(31, 61))))
    with pytest.raises(NotEnoughCalibration, match="8 successful"):
        fit_monitor(episodes, config(), roles=Roles(tuple(range(30)), tuple(range(31, 39))))


def test_verdicts_on_disk(monitor, episodes, tmp_path):
    monitor.reset()
    verdicts = [monitor.step(d) for d in [*episodes[0][:3], far(episodes[0][3])]]
    path = save_verdicts(verdicts_path(tmp_path / "000007.npz"), verdicts)
    assert path == tmp_path / "000007.verdicts.npz"
    assert load_verdicts(path) == [replace(v, reason="") for v in verdicts]
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(MonitorError, match="does not hold an episode's verdicts"):
        load_verdicts(tmp_path / "other.npz")
    with pytest.raises(MonitorError, match="without verdicts"):
        save_verdicts(path, [])


def test_decisions_on_disk(episodes, tmp_path):
    with_aux = [replace(d, aux={"denoise_variance": np.full(8, d.index)}, after=4 * d.index) for d in episodes[0]]
    with_aux[-1] = replace(with_aux[-1], after=None)
    path = save_decisions(tmp_path / "a" / "000001.npz", with_aux)
    assert [p.name for p in path.parent.iterdir()] == ["000001.npz"]
    for kept, original in zip(load_decisions(path), with_aux, strict=True):
        assert (kept.index, kept.stamp_ns, kept.n_execute) == (original.index, original.stamp_ns, original.n_execute)
        assert kept.after == original.after
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
    "damage", [b"\xff\xfe", b"[]", b'{"schema": 2}', b""], ids=["binary", "a list", "no keys", "empty"]
)
def test_a_damaged_monitor_file_is_said_in_one_line(tmp_path, episodes, damage):
    fit_monitor(episodes, config()).save(tmp_path)
    (tmp_path / "monitor.json").write_bytes(damage)
    with pytest.raises(MonitorError, match="not a monitor") as caught:
        load_monitor(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "text"])
def test_damaged_decisions_and_verdicts_are_said_in_one_line(damage, monitor, episodes, tmp_path):
    monitor.reset()
    decisions = save_decisions(tmp_path / "1.npz", episodes[0])
    verdicts = save_verdicts(tmp_path / "1.verdicts.npz", [monitor.step(d) for d in episodes[0]])
    for path, load in ((decisions, load_decisions), (verdicts, load_verdicts)):
        whole = path.read_bytes()
        at = whole.index(b"NUMPY") + 150  # within the first array's numbers
        flipped = whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "flipped": flipped, "text": b"no"}[damage])
        with pytest.raises(MonitorError, match=rf"{path.name} does not hold"):
            load(path)


@pytest.mark.parametrize("what", ["embedding", "chunks"])
def test_what_is_not_finite_among_the_calibration_episodes_is_named(what, episodes):
    bad = np.array(getattr(episodes[7][3], what))
    bad.flat[-1] = np.nan
    spoilt = [list(one) for one in episodes]
    spoilt[7][3] = replace(spoilt[7][3], **{what: bad})
    with pytest.raises(MonitorError, match=r"episode 507, decision 4: the (embedding|chunk) is not finite"):
        fit_monitor(spoilt, config(), seeds=range(500, 560))


def test_patience_beyond_every_episode_is_refused(episodes):
    short = [one[:5] for one in episodes]
    fit_monitor(short, config(how=Combination(patience=4)))
    with pytest.raises(MonitorError, match="patience 5: no calibration episode has more than 5 decisions"):
        fit_monitor(short, config(how=Combination(patience=5)))


def test_acknowledged_the_window_is_empty_and_the_band_goes_on(episodes):
    how = Combination(window=3, shape="band")
    monitor = fit_monitor(episodes, config(how=how))
    quiet = episodes[monitor.provenance.fit_seeds[0]]
    monitor.reset()
    assert monitor.step(far(quiet[0])).state == "alarm"
    monitor.acknowledge()
    after = monitor.step(quiet[1])
    alone = monitor.statistic.trace(np.array([[0.0], [after.scores["kernel_density"]]]))
    assert after.state != "alarm", "out of the window"
    single = Statistic(monitor.statistic.names, replace(how, window=1), monitor.statistic.arrays())
    expected = single.trace(np.array([[0.0], [after.scores["kernel_density"]]]))
    assert after.statistic == expected[1] != alone[1]
    monitor.reset()
    for _ in range(3):
        monitor.step(replace(quiet[0], embedding=np.full(4, np.nan, np.float32)))
    monitor.acknowledge()
    after = monitor.step(quiet[3])
    assert after.statistic == single.trace(np.full((4, 1), after.scores["kernel_density"]))[3], "the band's own time"
    monitor.reset()
