"""--perturb on the command line: what is evaluated, recorded and deployed then, what is refused, what is shown."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from robopolicy.cli.deploy import deploy
from robopolicy.cli.evaluate import Subject, _folder
from robopolicy.cli.main import build_parser, main
from robopolicy.cli.perturbing import perturbations_of, unseen
from robopolicy.cli.record import record
from robopolicy.cli.train import train
from robopolicy.clock import SimClock
from robopolicy.errors import NoGLBackend, UsageError
from robopolicy.evaluation.rollouts import Rollout
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter
from sim_envs.perturbations import AXES
from sim_envs.rendering import probe
from sim_envs.worlds import make_world

sys.path.insert(0, str(Path(__file__).parent))
import recordings


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """A policy of the twin that sees states only, hardly trained."""
    folder = tmp_path_factory.mktemp("perturbing")
    world = make_world("twin:lift", SimClock(), cameras=())
    with DatasetWriter(folder / "d.zarr", world.spec) as writer:
        episode = writer.begin(recordings.META)
        for step in recordings.make_steps(0, 6, spec=world.spec):
            episode.add(step)
        episode.commit()
    world.close()
    train(
        folder / "d.zarr", folder / "policy",
        settings={"steps": 1, "batch_size": 4, "device": "cpu", "num_threads": 1},
    )  # fmt: skip
    return folder / "policy"


def asked(*words):
    return build_parser().parse_args(["eval", "--checkpoint", "runs/x", "--env", "twin:lift", *words])


def test_what_is_asked_for_has_one_order_and_no_zeros(tmp_path):
    (tmp_path / "p.yaml").write_text("push: 0.2\ncamera: 0\n")
    args = asked("--perturb", "slip:1", "--perturb", "mass:0.5", "--perturbations", str(tmp_path / "p.yaml"))
    assert perturbations_of(args) == ("mass:0.5", "push:0.2", "slip:1")
    assert perturbations_of(asked()) == ()
    with pytest.raises(UsageError, match="push comes twice"):
        perturbations_of(asked("--perturb", "push:1", "--perturbations", str(tmp_path / "p.yaml")))
    assert _folder(args, perturbations_of(args)) == "eval-twin-lift-mass-0.5-push-0.2-slip-1"
    assert _folder(asked()) == "eval-twin-lift"


def test_an_outcome_of_another_perturbation_is_never_taken_for_this_one(blind):
    subjects = [Subject.of(blind, "twin:lift", perturbations=one) for one in ((), ("mass:0.5",), ("mass:0.6",))]
    assert len({subject.identity for subject in subjects}) == 3
    assert subjects[0].identity == Subject.of(blind, "twin:lift").identity
    assert [subject.changes.get("perturbations") for subject in subjects] == [None, "mass:0.5", "mass:0.6"]
    assert [subject.about.get("perturbations") for subject in subjects] == [None, "mass:0.5", "mass:0.6"]
    with pytest.raises(UsageError, match="perturbation goal: this world"):  # before any process is started
        Subject.of(blind, "twin:lift", perturbations=("goal:1",))


def test_a_policy_without_cameras_is_not_called_robust_to_looks(blind, tmp_path, capsys):
    assert unseen(("camera:0.5", "mass:1", "lighting:1"), ()) == (
        "camera:0.5, lighting:1: that changes pictures only, and this policy sees none"
    )
    assert unseen(("camera:0.5",), ("front",)) == unseen(("mass:1", "push:1", "dropout:1"), ()) == unseen((), ()) == ""
    told = "camera:0.5: that changes pictures only, and this policy sees none"
    assert Subject.of(blind, "twin:lift", perturbations=("camera:0.5",)).changes["unseen"] == told
    assert "unseen" not in Subject.of(blind, "twin:lift", perturbations=("mass:0.5",)).changes
    suite = tmp_path / "s.yaml"
    suite.write_text(f"checkpoints: {{new: {blind}}}\nworlds: twin:lift\nseeds: 0:2\nperturbations: {{camera: 0.5}}\n")
    assert main(["sweep", str(suite), "--dry-run"]) == 0
    assert f"note:   new: {told}" in " ".join(capsys.readouterr().out.split("\n"))


def test_a_rollout_is_of_the_perturbed_world_and_says_so(blind):
    from robopolicy.cli.worlds import make_safety

    found = {}
    for perturbations in ((), ("action_noise:1", "pose:1")):
        subject = Subject.of(blind, "twin:lift", perturbations=perturbations)
        rollout = Rollout(subject.make_world, subject.make_agent, make_safety)
        found[perturbations] = rollout.run(3)
        again = rollout.run(3)
        rollout.close()
        assert found[perturbations].perturbations == perturbations
        assert ("cube moved 8.0 cm" in found[perturbations].drawn) is bool(perturbations)
        assert (again.smoothness, again.score, again.steps) == (
            found[perturbations].smoothness, found[perturbations].score, found[perturbations].steps,
        )  # fmt: skip
    plain, noisy = found.values()
    assert plain.smoothness != noisy.smoothness


def test_what_was_drawn_is_stored_with_what_is_recorded(tmp_path):
    options = {"cameras": (), "keep_failures": True, "perturbations": ("pose:0.5", "dropout:0.3")}
    assert record("twin:lift", tmp_path / "d.zarr", 2, **options) == 2
    drawn = [episode.meta.extra["perturbations"] for episode in Dataset(tmp_path / "d.zarr")]
    assert [one["pose"]["severity"] for one in drawn] == [0.5, 0.5]
    assert all("cube moved 4.0 cm" in one["pose"]["drawn"] for one in drawn)
    assert drawn[0]["pose"] != drawn[1]["pose"]
    with pytest.raises(UsageError, match=r"perturbation slip: .* it holds a stick"):
        record("twin:pusht", tmp_path / "e.zarr", 1, cameras=(), perturbations=("slip:1",))
    assert not (tmp_path / "e.zarr").exists()


def test_a_policy_is_deployed_on_a_perturbed_twin_and_the_recording_says_so(blind, tmp_path):
    path = tmp_path / "d.zarr"
    outcome = deploy("twin:lift", blind, record=path, max_steps=4, perturbations=("camera:1", "mass:0.5"))
    assert outcome.perturbations == ("camera:1", "mass:0.5")
    (episode,) = Dataset(path)
    assert set(episode.meta.extra["perturbations"]) == {"camera", "mass"}
    bare = make_world("twin:lift", SimClock())
    assert episode.meta.cameras == {k: v for k, v in bare.camera_calibration().items() if k in episode.meta.cameras}
    with pytest.raises(UsageError, match="robot mock is no simulation"):
        deploy("mock", blind, max_steps=4, perturbations=("mass:0.5",))


def test_the_list_names_every_axis_and_needs_no_other_argument(capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["eval", "--list-perturbations"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for name, axis in AXES.items():
        assert f"  {name:<13}{axis.most}" in told


def test_twin_perturbations_lists_those_of_a_task_and_draws_a_sheet(tmp_path, capsys):
    assert main(["twin", "perturbations", "--task", "avoid"]) == 0
    assert "camera" in (told := capsys.readouterr().out)
    assert "slip" not in told
    try:
        probe()
    except NoGLBackend as error:
        pytest.skip(str(error))
    out = tmp_path / "sheet.png"
    words = ["twin", "perturbations", "--task", "lift", "--out", str(out), "--axis", "lighting", "--axis", "size"]
    assert main(words) == 0
    assert "light x 0.40" in capsys.readouterr().out
    sheet = cv2.imread(str(out))
    pictures = [sheet[22:202, 110 + k * 244 : 350 + k * 244].astype(float).mean() for k in range(4)]
    assert (np.diff(pictures) < -3).all()  # darker from column to column


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--out", "x.png"], "say of which task"),
        (["--task", "lift", "--out", "x.jpg"], "ends in .png"),
        (["--task", "lfit"], "no task 'lfit'"),
        (["--axis", "cam"], "no perturbation 'cam'; valid: action_delay, "),
        (["--task", "lift", "--axis", "goal"], "no perturbation of lift 'goal'; valid: action_delay, "),
        (["--task", "lift", "--out", "x.png", "--axis", "push"], "push cannot be seen in a picture of the start"),
        (["--task", "lift", "--out", "x.png", "--axis", "goal"], "perturbation goal: this world"),
        (["--task", "lift", "--out", "x.png", "--camera", "top"], "no camera 'top'; valid: front, side, view, wrist"),
    ],
)
def test_a_sheet_that_cannot_be_is_refused_in_one_line(words, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["twin", "perturbations", *words]) == 1
    told = capsys.readouterr().err
    assert why in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())
