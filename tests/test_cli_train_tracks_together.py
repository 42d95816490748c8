"""What `robopolicy train` makes of datasets of tracks that do not go together by themselves: rates, grasps, tasks."""

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli.main import main
from robopolicy.cli.train_together import strides
from robopolicy.cli.train_tracks import plan_tracks
from robopolicy.cli.training_data import DataChoice, load_windows, policy_spec
from robopolicy.errors import SpecMismatch
from robopolicy.geometry.keypoints import TWIN
from robopolicy.training.checkpoint import load_policy, read_cameras, read_train
from robopolicy.types import EpisodeMeta
from robopolicy_data.human import HumanEpisode, write_human
from robopolicy_data.reader import Dataset
from robopolicy_data.tracked import TrackedDataset

sys.path.insert(0, str(Path(__file__).parent))
import track_data

VIEWS = tuple(track_data.CAMERAS)
TRAIN = shlex.split(
    "--policy motion-track --net.width 32 --net.depth 1 --vision.width 16 --vision.feature-dim 8 --horizon 8 "
    "--n-execute 4 --batch-size 8 --threads 1 --steps 1"
)


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    return track_data.make_robot(tmp_path_factory.mktemp("robot") / "robot.zarr", 2)


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    return track_data.make_hand(tmp_path_factory.mktemp("hand") / "hand.zarr", 2)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """A robot at 20 Hz, the hand being at 10."""
    spec = replace(track_data.SPEC, rate_hz=20.0)
    return track_data.make_robot(tmp_path_factory.mktemp("fast") / "fast.zarr", 2, spec=spec)


def still_hand(folder, grasp, *, rate_hz=10.0, task="reach", imported="video"):
    """A hand whose grasp never changes."""
    points = {view: np.full((12, 5, 2), 20.0) + np.arange(10).reshape(5, 2) for view in VIEWS}
    seen = {view: np.full((12, *track_data.SIZE, 3), 90, np.uint8) for view in VIEWS}
    episode = HumanEpisode(seen, points, np.full(12, grasp), track_data.CAMERAS, rate_hz)
    write_human(folder, episode, EpisodeMeta(task, "hand", extra={"imported": imported}))
    return folder


def scaled(folder, factor, *, state=True):
    """A robot whose gripper is commanded, and measured, as ``factor`` (scale, more) of what it is."""
    scale, more = factor

    def sent(values, t):
        return np.append(values[:-1], scale * values[-1] + more).astype(np.float32)

    def told(values, t):
        return {**values, "gripper": (scale * values["gripper"] + more).astype(np.float32)} if state else values

    return track_data.make_robot(folder, 1, sent_as=sent, told=told)


def train(out, *data, more=()):
    return main(["train", *TRAIN, "--data", *map(str, data), "--out", str(out), *more])


def refused(capsys, out, *data, more=()):
    capsys.readouterr()
    assert train(out, *data, more=more) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert not out.exists()
    return said


class TestGrasps:
    @pytest.mark.parametrize(
        ("factor", "words"),
        [
            ((0.7, 0.0), "between 0.00 and 0.70, so closed throughout: it grasps below 0.75; want 0 closed to 1 open"),
            ((0.04, 0.0), "between 0.00 and 0.04, so closed throughout"),  # metres that are called opening
            ((0.2, 0.8), "between 0.80 and 1.00, so open throughout"),
        ],
    )
    @pytest.mark.parametrize("state", [True, False])
    def test_a_gripper_commanded_over_a_range_that_is_all_closed_or_all_open_is_refused(
        self, factor, words, state, robot, tmp_path, capsys
    ):
        """Else every label were the same, and the policy never opened, or never closed; another robot's do not help."""
        odd = scaled(tmp_path / "odd.zarr", factor, state=state)
        want = f"robopolicy: the gripper of {odd} is commanded {words}"
        assert refused(capsys, tmp_path / "run", odd).startswith(want)
        assert refused(capsys, tmp_path / "run", robot, odd).startswith(want)

    @pytest.mark.parametrize("opening", [0.0, 1.0])
    def test_a_gripper_that_is_not_to_move_is_trained_from(self, opening, tmp_path, capsys):
        """As in pushing; it is measured with some noise, and some more of it commanded than nothing."""

        def sent(values, t):
            return np.append(values[:-1], opening + 0.01 * (t % 3)).astype(np.float32)

        def told(values, t):
            return {**values, "gripper": np.array([opening + 0.05 * (t % 2)], np.float32)}

        pushing = track_data.make_robot(tmp_path / "push.zarr", 1, sent_as=sent, told=told)
        assert train(tmp_path / "run", pushing) == 0
        assert "grasp" not in capsys.readouterr().out

    def test_hands_that_never_change_beside_robots_that_do_are_refused(self, robot, tmp_path, capsys):
        flat = still_hand(tmp_path / "flat.zarr", 0)
        assert refused(capsys, tmp_path / "run", robot, flat) == (
            f"robopolicy: the gripper of {robot} opens and closes, the hand of {flat} is open throughout; import it "
            "with other --grasp-close and --grasp-open (data import video) or --closed-below (data import landmarks)"
        )
        assert train(tmp_path / "alone", flat) == 0

    def test_robots_that_never_change_beside_hands_that_do_are_told_or_refused_where_they_moved(
        self, hand, tmp_path, capsys
    ):
        dead = scaled(tmp_path / "dead.zarr", (0.0, 1.0), state=False)
        said = refused(capsys, tmp_path / "run", dead, hand)
        assert f"the gripper of {dead} is commanded open throughout, though it moves; want its commands" in said
        still = scaled(tmp_path / "still.zarr", (0.0, 1.0))
        assert train(tmp_path / "run", still, hand) == 0
        said = capsys.readouterr().out
        assert f"the hand of {hand} opens and closes, the gripper of {still} is commanded open throughout: " in said
        assert "learns to grasp from hands alone" in said

    def test_those_that_change_in_both_are_not_talked_about(self, robot, hand, tmp_path, capsys):
        assert train(tmp_path / "run", robot, hand) == 0
        assert not re.search("throughout|opens and closes|tasks|recorded at", capsys.readouterr().out)


class TestRates:
    @pytest.mark.parametrize(
        ("rates", "want"),
        [
            ((20.0,), (1,)),
            ((20.0, 20.0), (1, 1)),
            ((20.0, 10.0), (2, 1)),
            ((10.0, 20.0, 30.0), (1, 2, 3)),
            ((50.0, 30.0), (5, 3)),
            ((59.94, 29.97), (2, 1)),
            ((30.0, 29.97), (1, 1)),  # none
            ((50.0, 24.0), (1, 1)),  # 2 Hz
            ((2.0, 2.0), (1, 1)),
        ],
    )
    def test_all_are_brought_to_the_highest_rate_that_they_have_in_common(self, rates, want):
        assert strides(rates) == want

    def test_a_faster_robot_is_thinned_to_a_hand_and_its_checkpoint_steps_at_that_rate(
        self, fast, hand, tmp_path, capsys
    ):
        assert train(tmp_path / "run", fast, hand) == 0
        said = capsys.readouterr().out
        assert f"recorded at 20, 10 Hz, learnt at 10 Hz; of the rows 1 of 2 of {fast}, all of {hand}" in said
        assert load_policy(tmp_path / "run").spec.rate_hz == 10.0
        assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "2"]) == 0
        assert read_train(tmp_path / "run")["steps"] == 2
        assert train(tmp_path / "half", fast, hand, more=["--every", "2"]) == 0
        said = capsys.readouterr().out
        assert f"recorded at 20, 10 Hz, learnt at 5 Hz; of the rows 1 of 4 of {fast}, 1 of 2 of {hand}" in said
        assert load_policy(tmp_path / "half").spec.rate_hz == 5.0

    def test_windows_of_what_was_thinned_are_those_of_every_second_row(self, fast, hand):
        """The pictures too; and the points go where they are two rows on."""
        plan = plan_tracks(DataChoice((fast, hand)), {}, {}, None, None)
        assert [episode.length for episode in plan.data.episodes] == [15, 15, 30, 30]
        assert plan.data.choice.weights == pytest.approx((0.5, 0.5))
        whole = TrackedDataset(Dataset(fast), VIEWS, TWIN, 2)[1]
        windows = load_windows(plan.data, policy_spec(plan.data, 1, 8, 4), batch_size=4, seed=0, device="cpu")
        try:
            rows = slice(15, 30)  # of the second episode
            arrays = windows.arrays
            for name in ("keypoints_left", "keypoints_right", "grasp"):
                np.testing.assert_array_equal(arrays.state[name][rows], whole.state(name)[::2])
            np.testing.assert_array_equal(arrays.action[rows], whole.action()[::2])
            np.testing.assert_array_equal(arrays.seen["left"][rows], 30 + np.arange(0, 30, 2))
        finally:
            windows.close()

    def test_marks_are_thinned_with_the_rows(self, fast):
        def marked(name):
            return {"idle": np.arange(30) % 4 == 2, "about": np.arange(3)}

        tracked = TrackedDataset(Dataset(fast), VIEWS, TWIN, 1, 2)[0]
        tracked._episode.derived = marked
        np.testing.assert_array_equal(tracked.derived("quality@1")["idle"], np.arange(15) % 2 == 1)
        np.testing.assert_array_equal(tracked.derived("quality@1")["about"], np.arange(3))

    @pytest.mark.parametrize(
        ("rate_hz", "imported", "words"),
        [
            (24.0, "video", "import the videos of {} into a new dataset with --rate 20 (data import video)"),
            (13.0, "video", "into a new dataset with --rate 10 (data import video), to which the rest is thinned"),
            (13.0, "landmarks of x", "record what {} was made of with --rate 10, then import its landmarks"),
            (4.0, "video", "want rates that are whole multiples of one of 5 Hz or more"),
        ],
    )
    def test_hands_without_a_common_rate_are_told_at_which_to_be_imported(
        self, rate_hz, imported, words, fast, tmp_path
    ):
        odd = still_hand(tmp_path / "odd.zarr", 0, rate_hz=rate_hz, imported=imported)
        choice = DataChoice((fast, odd))
        with pytest.raises(SpecMismatch, match=re.escape(words.format(odd))) as error:
            plan_tracks(choice, {}, {}, None, None)
        assert f"has 20 Hz, dataset {odd} has {rate_hz:g} Hz; " in str(error.value)
        if found := re.search(r"--rate (\d+)", str(error.value)):
            again = still_hand(tmp_path / "again.zarr", 0, rate_hz=float(found[1]))
            assert plan_tracks(DataChoice((fast, again)), {}, {}, None, None).robot.rate_hz == float(found[1])

    def test_every_nth_row_is_the_rate_at_which_the_robot_is_driven(self, robot, tmp_path):
        assert train(tmp_path / "run", robot, more=["--every", "2"]) == 0
        policy = load_policy(tmp_path / "run")
        assert policy.spec.rate_hz == 5.0


def test_datasets_of_several_tasks_are_told_in_one_line(robot, hand, tmp_path, capsys):
    drawer = still_hand(tmp_path / "drawer.zarr", 1, task="open the drawer")
    assert train(tmp_path / "run", robot, hand, drawer) == 0
    assert (
        f"2 tasks, which the policy is not told and learns as one: 'reach' ({robot}, {hand}); "
        f"'open the drawer' ({drawer})" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
    )


def test_hands_alone_are_no_actions_of_another_policy(hand, robot, tmp_path, capsys):
    """Trained so, no world and no robot would take what it says."""
    for more in ([], ["--policy", "diffusion"]):
        words = ["train", "--data", str(hand), "--out", str(tmp_path / "run"), "--steps", "1", "--device", "cpu", *more]
        assert main(words) == 1
        assert capsys.readouterr().err.strip() == (
            "robopolicy: --data holds only hands, whose tracks no robot takes as the actions of a diffusion policy; "
            "want --policy motion-track, with a robot's --data as well"
        )
        assert not (tmp_path / "run").exists()


def test_the_checkpoint_has_the_robots_cameras_though_the_hand_was_named_first(hand, tmp_path):
    cameras = {"left": track_data.look((1.1, 0.2, 0.6)), "right": track_data.look((0.45, 1.1, 0.5))}
    moved = track_data.make_robot(tmp_path / "moved.zarr", 1, cameras=cameras)
    assert train(tmp_path / "run", hand, moved) == 0
    for view, entry in read_cameras(tmp_path / "run").items():
        np.testing.assert_allclose(entry["T_base_cam"], cameras[view].T_base_cam)
        assert not np.allclose(entry["T_base_cam"], track_data.CAMERAS[view].T_base_cam)
