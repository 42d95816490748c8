"""A hand's demonstrations recorded by the command; pictures as large as one asks for."""

from dataclasses import replace

import numpy as np
import pytest

from robopolicy.cli.main import main
from robopolicy.cli.worlds import make_robot, world_factory
from robopolicy.clock import SimClock
from robopolicy.errors import NoGLBackend, UsageError
from robopolicy.spec import CameraSpec, PolicySpec
from robopolicy_data.reader import Dataset
from sim_envs.worlds import make_world

VIEWS = ("front", "side")
SIZE = (48, 64)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two drawers opened by a hand, the left one both times."""
    world = make_world("hand:drawer", SimClock(), size=SIZE)
    try:
        world.read()
    except NoGLBackend as error:
        pytest.skip(str(error))
    world.close()
    path = tmp_path_factory.mktemp("hand") / "hand.zarr"
    words = "record --robot hand:drawer --episodes 2 --cameras front side --camera-size 48x64 --mode left --data"
    assert main([*words.split(), str(path)]) == 0
    return path


def test_a_hands_demonstrations_say_whose_they_are(recorded):
    data = Dataset(recorded)
    assert [(e.meta.embodiment, e.meta.extra["hand"]["handedness"], e.meta.robot) for e in data] == [
        ("human", "right", "hand:drawer")
    ] * 2
    assert data.spec.cameras == {name: CameraSpec(*SIZE) for name in VIEWS}
    world = make_world("hand:drawer", SimClock(), size=SIZE, cameras=())
    for episode in data:
        assert [entry["size"] for entry in episode.meta.cameras.values()] == [list(SIZE)] * 2
        world.reset(episode.meta.seed)
        start = world.observed_state()
        np.testing.assert_allclose(episode.state("landmarks")[0], start["landmarks"], atol=1e-6)
        assert episode.state("left_open")[-1] > 0.07 > 0.01 > episode.state("right_open").max()


def test_what_comes_next_is_to_import_what_its_cameras_saw(recorded, capsys):
    """No robot has a hand's joints: nothing can be trained on the recording itself."""
    words = "record --robot hand:drawer --episodes 2 --cameras front side --camera-size 48x64 --data"
    assert main([*words.split(), str(recorded)]) == 0
    assert f"Next: robopolicy data import landmarks {recorded} human.zarr" in capsys.readouterr().out


def test_the_arm_is_a_robot_and_takes_the_same_options(recorded, tmp_path):
    words = "record --robot twin:drawer --episodes 1 --cameras front side --camera-size 48x64 --mode right --data"
    assert main([*words.split(), str(tmp_path / "arm")]) == 0
    (episode,) = Dataset(tmp_path / "arm")
    assert episode.meta.embodiment == "robot"
    assert "hand" not in episode.meta.extra
    assert episode.state("right_open")[-1] > 0.07
    theirs = Dataset(recorded)[0].meta.cameras
    for name in VIEWS:
        assert episode.meta.cameras[name] == theirs[name]


def test_what_would_be_ignored_is_refused(tmp_path, capsys):
    asked = ["record", "--robot", "gymnasium:CartPole-v1", "--data", str(tmp_path / "d")]
    for more, says in (
        (["--teleop", "keyboard", "--mode", "left"], "--mode is of the expert"),
        (["--teleop", "keyboard", "--camera-size", "48x64"], "a size is of twin:TASK and hand:TASK"),
    ):
        assert main([*asked, *more]) != 0
        assert says in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_the_world_of_a_policy_draws_as_large_as_the_policy_saw():
    spec = PolicySpec({name: CameraSpec(*SIZE) for name in VIEWS}, rate_hz=10.0)
    for world in (
        world_factory("hand:lift", spec)(SimClock()),
        make_robot("twin:lift", SimClock(), spec, cameras=VIEWS),
    ):
        assert world.spec.cameras == spec.cameras
    mixed = replace(spec, cameras={"front": CameraSpec(*SIZE), "side": CameraSpec(96, 96)})
    assert set(world_factory("twin:lift", mixed)(SimClock()).spec.cameras.values()) == {CameraSpec(96, 96)}
    with pytest.raises(UsageError, match="a size is of twin:TASK and hand:TASK"):
        make_world("planar:pusht", SimClock(), size=SIZE)
