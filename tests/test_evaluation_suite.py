from itertools import permutations

import pytest

from robopolicy.errors import ConfigError, RobopolicyError, UsageError
from robopolicy.evaluation.suite import (
    Cell,
    Entrant,
    Suite,
    identity_of,
    items_of,
    make_suite,
    parse_shard,
    parsed,
    read_suite,
    written,
)

WHOLE = """
checkpoints:
  new: runs/new
  fast: {folder: runs/new, solver: ddim, solver_steps: 4, monitor: runs/guard}
  pair: {folder: runs/new, companions: [runs/b, runs/c]}
worlds: [twin:lift, twin:stack]
perturbations:
  camera: [0.25, 1]
  friction: 0.5
combined:
  - {friction: 0.5, camera: 0.25}
seeds: 100:103,7
max_steps: 60
"""


def test_a_whole_suite(tmp_path):
    path = tmp_path / "night.yaml"
    path.write_text(WHOLE)
    suite = read_suite(path)
    assert suite.checkpoints == {
        "new": Entrant(str(tmp_path / "runs/new")),
        "fast": Entrant(str(tmp_path / "runs/new"), "ddim", 4, None, str(tmp_path / "runs/guard")),
        "pair": Entrant(str(tmp_path / "runs/new"), companions=(str(tmp_path / "runs/b"), str(tmp_path / "runs/c"))),
    }
    assert suite.perturbations == (
        (), ("camera:0.25",), ("camera:1",), ("friction:0.5",), ("camera:0.25", "friction:0.5"),
    )  # fmt: skip
    assert (suite.seeds, suite.max_steps, suite.disturb_at) == ((100, 101, 102, 7), 60, None)
    assert len(suite.cells()) == len(set(suite.cells())) == 3 * 2 * 5


@pytest.mark.parametrize(
    ("seeds", "want"), [("5", (5,)), ("[3, 1]", (3, 1)), ("'0:3'", (0, 1, 2)), ("['0:2', 9]", (0, 1, 9))]
)
def test_seeds_in_every_way_and_folders_without_names(tmp_path, seeds, want):
    path = tmp_path / "s.yaml"
    path.write_text(f"checkpoints: [a/x, b/y]\nworlds: twin:lift\nseeds: {seeds}\n")
    suite = read_suite(path)
    assert suite.seeds == want
    assert suite.worlds == ("twin:lift",)
    assert list(suite.checkpoints) == ["x", "y"]
    assert suite.perturbations == ((),)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max_steps: 60", "max_step: 60", r"no key in the suite 'max_step'; valid: .*max_steps"),
        ("max_steps: 60", "max_steps: soon", "max_steps is 'soon'; want a number"),
        ("max_steps: 60", "max_steps: 0", "max_steps is 0; want at least 1"),
        ("worlds: [twin:lift, twin:stack]", "", "has no 'worlds'"),
        ("worlds: [twin:lift, twin:stack]", "worlds: []", "worlds names nothing"),
        ("worlds: [twin:lift, twin:stack]", "worlds: ['']", "worlds has a name without a letter"),
        ("new: runs/new", "'': runs/new", "checkpoints has a name without a letter"),
        ("solver: ddim", "candidates: 0", "checkpoints.fast.candidates is 0; want at least 1"),
        ("worlds: [twin:lift, twin:stack]", "worlds: [a:b, a:b]", "worlds names one twice"),
        ("seeds: 100:103,7", "seeds: 3:3", "is empty"),
        ("seeds: 100:103,7", "seeds: 3,3", "a seed appears twice"),
        ("seeds: 100:103,7", "seeds: many", "neither a number nor"),
        ("camera: [0.25, 1]", "camera: [0.25, 2]", "severity 2; want above 0"),
        ("camera: [0.25, 1]", "camera: [0]", r"severity 0; want above 0 \(that is: undisturbed\)"),
        ("camera: [0.25, 1]", "camera: much", "perturbations.camera is 'much'; want a severity"),
        ("camera: [0.25, 1]", "camera: []", "want a severity"),
        ("camera: [0.25, 1]", "camera: [0.5, 0.5]", "camera:0.5 come twice"),
        ("camera: [0.25, 1]", "camera: .nan", "want above 0"),
        ("{friction: 0.5, camera: 0.25}", "{friction: [0.5, 1]}", "has several severities"),
        ("{friction: 0.5, camera: 0.25}", "{}", r"combined\[0\] is empty"),
        ("solver: ddim", "solvers: ddim", "no key in checkpoints.fast 'solvers'; valid: candidates, companions, f"),
        ("new: runs/new", "new: {}", "checkpoints.new has no 'folder'"),
        ("new: runs/new", "new: 3", "checkpoints.new"),
        ("checkpoints:", "checkpoints: 3\nother:", "no key in the suite 'other'"),
        ("max_steps: 60", "compare: speed", "no compare 'speed'; valid: score, success"),
        ("max_steps: 60", "undisturbed: maybe", "want true or false"),
        ("worlds:", "worlds: [", "is no YAML"),
    ],
)
def test_what_makes_no_sense_is_one_line_with_the_key(tmp_path, old, new, words):
    path = tmp_path / "night.yaml"
    assert old in WHOLE
    path.write_text(WHOLE.replace(old, new))
    with pytest.raises(ConfigError, match=words) as caught:
        read_suite(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [None, 3, "x", [], {"checkpoints": ["a/x", "b/x"], "worlds": "w", "seeds": 1},
                                  {"checkpoints": "x", "worlds": "w", "seeds": 1, "undisturbed": False},
                                  {"checkpoints": {}, "worlds": "w", "seeds": 1}])  # fmt: skip
def test_no_suite_at_all(data):
    with pytest.raises(RobopolicyError):
        make_suite(data)


def test_no_such_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: No such file .*; want a YAML file with checkpoints"):
        read_suite(tmp_path / "none.yaml")


def test_identities_tell_everything_apart_that_decides_and_nothing_else():
    base = {"policy": "p", "world": "w", "perturbations": ("a:1", "b:0.5"), "seed": 1, "options": "o"}
    other = {"policy": "q", "world": "v", "perturbations": ("a:1",), "seed": 2, "options": "x"}
    names = [identity_of(**base)] + [identity_of(**{**base, key: value}) for key, value in other.items()]
    assert len(set(names)) == len(names)
    for order in permutations(base["perturbations"]):
        assert identity_of(**{**base, "perturbations": order}) == names[0]
    assert identity_of("p|1", "w", (), 1, "") != identity_of("p", "|1w", (), 1, "")


def test_items_are_seed_by_seed_with_every_checkpoint():
    suite = Suite({"a": Entrant("a"), "b": Entrant("b")}, ("w",), (1, 2), ((), ("x:1",)))
    items = items_of(suite, {("a", "w"): "1", ("b", "w"): "2"}, "")
    assert [(item.cell.checkpoint, item.cell.perturbations, item.seed) for item in items] == [
        ("a", (), 1), ("b", (), 1), ("a", (), 2), ("b", (), 2),
        ("a", ("x:1",), 1), ("b", ("x:1",), 1), ("a", ("x:1",), 2), ("b", ("x:1",), 2),
    ]  # fmt: skip
    assert len({item.identity for item in items}) == 8


def test_shards():
    assert parse_shard("0/8") == (0, 8)
    with pytest.raises(UsageError, match=r"the shards of 8 are 0 to 7 \(sbatch --array=0-7\)"):
        parse_shard("8/8")
    for text in ("", "1", "a/b", "1/0", "-1/3", "1/2/3"):
        with pytest.raises(UsageError, match="want I/N"):
            parse_shard(text)


def test_perturbations_are_written_and_read():
    assert written("camera", 0.50) == "camera:0.5"
    assert parsed("camera:0.5") == ("camera", 0.5)
    with pytest.raises(ConfigError, match="want axis:severity"):
        parsed("camera")
    assert str(Cell("a", "w", ("camera:1",))) == "a in w with camera:1"
