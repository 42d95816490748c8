"""What data quality says of episodes whose faults are known."""

import copy
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from reaching import SPEC, reach, write

from robopolicy.cli.main import main
from robopolicy.errors import ContractError, DatasetError, UnknownName
from robopolicy.smoothness import log_dimensionless_jerk, spectral_arc_length, speeds
from robopolicy.spec import CameraSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.quality.commands import follow_lag_s
from robopolicy_data.quality.likeness import coverage, novelty
from robopolicy_data.quality.measure import MARKS, Options, measure, write_marks
from robopolicy_data.quality.motion import only_long, path_length, spans
from robopolicy_data.quality.outliers import robust_z
from robopolicy_data.quality.page import write_page
from robopolicy_data.quality.signals import Pair
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

RATE = 100.0


def minimum_jerk(duration_s=1.0, distance=0.3):
    t = np.linspace(0, 1, round(duration_s * RATE) + 1)
    return (distance * (10 * t**3 - 15 * t**4 + 6 * t**5))[:, None]


def smoothness(positions):
    # a speed of one step each side: the published numbers are of the true speed
    return spectral_arc_length(speeds(positions, RATE, 1 / RATE), RATE), log_dimensionless_jerk(positions, RATE)


def test_smoothness_of_a_minimum_jerk_reach_is_what_theory_says():
    sparc, jerk = smoothness(minimum_jerk())
    assert sparc == pytest.approx(-1.41, abs=0.03)  # Balasubramanian et al. 2015, figure 2
    assert jerk == pytest.approx(-np.log(720 / 1.875**2), abs=0.12)  # of differences, which lose a step at each end


def test_smoothness_does_not_depend_on_size_or_speed_but_on_strokes_and_noise():
    one, rng = minimum_jerk(), np.random.default_rng(0)
    for other in (minimum_jerk(distance=2.0), minimum_jerk(duration_s=2.5)):
        assert smoothness(other) == pytest.approx(smoothness(one), abs=0.06)
    two = np.concatenate([one, one[-1] + one])
    shaky = one + rng.normal(0, 0.003, one.shape)
    for worse in (two, shaky):
        assert all(a < b - 0.1 for a, b in zip(smoothness(worse), smoothness(one), strict=True))


def test_smoothness_of_what_does_not_move_is_nothing():
    assert all(np.isnan(smoothness(np.ones((50, 2)))))
    assert all(np.isnan(smoothness(np.ones((3, 2)))))


def test_speed_is_displacement_over_time_and_shaking_on_the_spot_is_none():
    assert speeds(np.arange(30.0)[:, None] * [0.3, 0.4], 10.0) == pytest.approx(5.0)
    shaking = np.tile([[0.0], [0.01]], (25, 1))
    assert speeds(shaking, 50.0, 0.04)[2:-2].max() == 0
    assert path_length(shaking) == pytest.approx(0.49)


def test_spans_are_the_runs_long_enough():
    marked = np.array([1, 1, 0, 1, 0, 1, 1, 1], bool)
    assert spans(marked) == [(0, 2), (3, 4), (5, 8)]
    assert spans(marked, 2) == [(0, 2), (5, 8)]
    assert only_long(marked, 3).tolist() == [False] * 5 + [True] * 3


def test_lag_of_a_state_that_follows_three_and_a_half_steps_later():
    t = np.arange(200) / 20.0
    command, state = np.sin(2 * t) + np.cos(3.1 * t), np.sin(2 * (t - 0.175)) + np.cos(3.1 * (t - 0.175))
    lag = follow_lag_s(command[:, None], {"x": state[:, None]}, [Pair(0, "x", 0, "m")], 20.0)
    assert lag == pytest.approx(0.175, abs=0.01)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 200, 1))
    assert follow_lag_s(noise[0], {"x": noise[1].cumsum(0)}, [Pair(0, "x", 0, "m")], 20.0) is None


def test_robust_z_is_not_pulled_by_what_it_should_find():
    values = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 50.0, np.nan])
    z = robust_z(values)
    assert z[5] > 100
    assert np.isnan(z[6])
    assert np.abs(z[:5]).max() < 3
    assert robust_z(np.array([0.0] * 9 + [1.0]))[-1] > 3.5  # most are equal: no MAD
    assert robust_z(np.ones(5)).tolist() == [0.0] * 5


def test_coverage_and_novelty_of_episodes_here_and_there():
    rng = np.random.default_rng(0)
    here = [rng.uniform(0, 1, (50, 2)) for _ in range(5)]
    positions = np.concatenate([*here, rng.uniform(3, 4, (50, 2))])
    ends = np.arange(50, 301, 50)
    new = novelty(positions, ends)
    assert new[5] > 10 * new[:5].max()
    share = coverage(np.concatenate([here[0], here[0], here[0][:1]]), np.array([50, 100, 101]))
    assert share[0] == share[1] == 1.0
    assert 0 < share[2] < 0.1


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Twelve reaches: 3 stops for 1.5 s, 4 too but closes its hand, 5 is slow, 6 is 2 again, 7 shakes, 8 fails."""
    rng = np.random.default_rng(0)
    episodes = [reach(rng) for _ in range(12)]
    for i in (3, 4):
        for name, values in episodes[i].state.items():
            episodes[i].state[name] = np.insert(values, [10] * 30, values[10], axis=0)
        episodes[i].action = np.insert(episodes[i].action, [10] * 30, episodes[i].action[10], axis=0)
    episodes[4].state["grip"][10:40] = np.linspace(1, 0, 30)[:, None]
    episodes[4].state["grip"][40:] = 0.0
    episodes[4].action[:, 2] = episodes[4].state["grip"][:, 0]
    episodes[5] = reach(rng, pace=0.4, steps=130)
    episodes[6] = copy.deepcopy(episodes[2])
    episodes[7] = reach(rng, shake=0.02)
    return write(tmp_path_factory.mktemp("quality") / "faulty.zarr", episodes, {8: False}.items())


def reasons(quality, number):
    return {outlier.measure for outlier in quality.outliers if outlier.episode == number}


def test_every_fault_is_named_and_nothing_else(faulty):
    quality = measure(Dataset(faulty))
    assert quality.motion == ("hand[0]", "hand[1]")  # found: it follows the commands, the goal does not
    assert quality.unit == "m"
    assert "idle_share" in reasons(quality, 3)
    assert "duration_s" in reasons(quality, 5)
    assert reasons(quality, 6) == {"duplicate"}
    assert reasons(quality, 7) & {"sparc", "jerk", "path"}
    assert reasons(quality, 8) == {"label"}
    assert not any(reasons(quality, number) for number in (0, 1, 2, 9, 10, 11))
    worst = next(o for o in quality.outliers if o.measure == "duration_s" and o.episode == 5)
    assert str(worst).startswith("episode 5: duration 6.5 s, median 2.7 s (z +")


def test_a_stop_is_met_again_and_again_a_place_where_one_waited_is_none(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [reach(rng) for _ in range(4)]
    far = 1 + max(np.abs(episode.action).max() for episode in episodes)
    episodes[0].action[:15, 0] = -far  # all begin there: a home
    episodes[1].action[:15, 0] = -far
    episodes[2].action[10:30, 0] = far  # somebody waited
    waited = measure(Dataset(write(tmp_path / "waited.zarr", episodes)))
    assert [episode.saturated_share for episode in waited.episodes] == [0, 0, 0, 0]
    episodes[3].action[10:30, 0] = far
    stopped = measure(Dataset(write(tmp_path / "stopped.zarr", episodes)))
    shares = [episode.saturated_share for episode in stopped.episodes]
    assert shares == pytest.approx([0, 0, *(20 / len(episode.action) for episode in episodes[2:])])


def test_idle_is_where_everything_stands_still(faulty):
    quality = measure(Dataset(faulty), Options(idle_s=1.0))
    ((first, end),) = quality.episodes[3].idle
    assert abs(first - 11) <= 3
    assert abs(end - 40) <= 3
    assert quality.episodes[4].idle == ()  # the hand closes meanwhile
    assert measure(Dataset(faulty), Options(idle_s=3.0)).episodes[3].idle == ()


def test_marks_are_written_beside_the_data_and_replaced(faulty):
    quality = measure(Dataset(faulty), Options(idle_s=1.0))
    write_marks(faulty, measure(Dataset(faulty), Options(idle_s=3.0)))
    write_marks(faulty, quality)
    episode = Dataset(faulty)[3]
    marks = episode.derived(MARKS)
    assert marks["idle"].dtype == bool
    assert marks["idle"].shape == marks["speed"].shape == (episode.length,)
    assert marks["idle"].sum() == sum(b - a for a, b in quality.episodes[3].idle) > 20
    assert episode.derived_attributes(MARKS)["idle_share"] == pytest.approx(quality.episodes[3].idle_share)


def test_the_page_holds_every_episode_and_asks_no_network(faulty, tmp_path):
    page = write_page(tmp_path / "sub" / "page.html", measure(Dataset(faulty)), spans={1: [(2, 9)]}).read_text()
    assert [int(n) for n in re.findall(r'id="e(\d+)"', page)][:1] != [0]  # what sticks out comes first
    assert {int(n) for n in re.findall(r'id="e(\d+)"', page)} == set(range(12))
    assert not re.search(r"(src|href)=\"?(https?:)?//", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) == 8 + 12
    for drawing in drawings:
        ET.fromstring(drawing)
    assert 'class="span extraneous"' in page
    assert "runs through the same states as episode 2" in page


def test_few_episodes_have_no_outliers_and_one_is_enough_to_measure(tmp_path):
    rng = np.random.default_rng(1)
    path = write(tmp_path / "few.zarr", [reach(rng), reach(rng, steps=300)])
    assert measure(Dataset(path)).outliers == ()
    alone = measure(Dataset(write(tmp_path / "one.zarr", [reach(rng)])))
    assert alone.episodes[0].coverage == 1.0
    assert alone.to_json()["episodes"][0]["duration_s"] == 2.7


def test_what_makes_no_sense_is_refused(faulty):
    with pytest.raises(UnknownName, match="valid: goal, grip, hand"):
        measure(Dataset(faulty), Options(motion="hnd"))
    with pytest.raises(ContractError, match="idle_speed is 2"):
        Options(idle_speed=2)
    assert SPEC.rate_hz == 20.0


def test_one_nan_is_named_before_it_spoils_every_measure(tmp_path):
    rng = np.random.default_rng(2)
    episodes = [reach(rng) for _ in range(3)]
    episodes[1].state["hand"][10] = np.nan
    with pytest.raises(DatasetError, match="episode 1, state hand is not finite at step 10"):
        measure(Dataset(write(tmp_path / "nan.zarr", episodes)))


def test_an_episode_many_times_is_named_once_each(tmp_path):
    same = reach(np.random.default_rng(3))
    rng = np.random.default_rng(4)
    quality = measure(Dataset(write(tmp_path / "d.zarr", [same, reach(rng), same, same, reach(rng)])))
    twins = [str(outlier) for outlier in quality.outliers if outlier.measure == "duplicate"]
    assert twins == [f"episode {i}: runs through the same states as episode 0" for i in (2, 3)]


def test_pictures_alone_are_one_line(tmp_path, capsys):
    spec = replace(SPEC, state={}, cameras={"top": CameraSpec(16, 16)})
    with DatasetWriter(tmp_path / "d.zarr", spec) as writer:
        recording = writer.begin(EpisodeMeta("look", "plane"))
        for k in range(1, 5):
            seen = Observation(k * 50_000_000, {}, {"top": np.zeros((16, 16, 3), np.uint8)})
            recording.add(Step(seen, np.zeros(3, np.float32), seen.stamp_ns, "human"))
        recording.commit(EpisodeMeta("look", "plane"))
    assert main(["data", "quality", str(tmp_path / "d.zarr")]) == 1
    assert "there are no states to measure; pictures alone do not do" in capsys.readouterr().err


def test_the_command_says_scores_and_refuses_a_judge_in_its_own_case(faulty, tmp_path, capsys):
    rng = np.random.default_rng(5)
    good = write(tmp_path / "good.zarr", [reach(rng) for _ in range(12)])
    assert main(["data", "quality", str(faulty), "--base", str(good)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^compatibility( +[\de.-]+){3}$", printed, re.M)
    assert "episode 7: does not fit the base" in printed
    for command, words in (
        (["--base", str(tmp_path / "." / "good.zarr")], "--base is the dataset itself"),
        (["--write"], "want a folder"),
    ):
        path = good if "--base" in command else tmp_path / "good.zip"
        assert main(["data", "quality", str(path), *command]) == 1
        assert words in capsys.readouterr().err
