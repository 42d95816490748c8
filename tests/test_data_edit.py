import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import track_data
from recordings import META, SECOND, SPEC, make_steps, record, require_intact

from robopolicy.errors import (
    ConfigError,
    ContractError,
    DatasetBusy,
    DatasetError,
    SpecMismatch,
    UnknownCamera,
    UsageError,
)
from robopolicy.geometry.calibrations import write_calibrations
from robopolicy.geometry.cameras import cameras_of
from robopolicy.spec import CameraSpec
from robopolicy.types import Observation, Step
from robopolicy_data.check import check
from robopolicy_data.derived import write_derived
from robopolicy_data.edit import delete, empty_trash, undelete, undo
from robopolicy_data.history import edits
from robopolicy_data.labels import label
from robopolicy_data.merge import merge
from robopolicy_data.numbers import numbers_in_words, parse_numbers
from robopolicy_data.reader import Dataset
from robopolicy_data.split import split
from robopolicy_data.trim import active_steps, steps_of_seconds, trim
from robopolicy_data.writer import DatasetWriter


@pytest.fixture
def path(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC, lossless=True) as writer:
        for seed in range(5):
            record(writer, seed, success=seed % 2 == 0)
    return tmp_path / "d"


def numbers(path):
    return [episode.number for episode in Dataset(path)]


def intact(path):
    for episode in Dataset(path):
        require_intact(episode)


def test_delete_and_undo_are_renames(path):
    inodes = {p.name: p.stat().st_ino for p in (path / "episodes" / "000002").rglob("c.*")}
    delete(path, 2)
    assert numbers(path) == [0, 1, 3, 4]
    assert (path / ".trash" / "episode-000002").is_dir()
    (undone,) = undo(path)
    assert undone.words == "deleted episode 2"
    assert numbers(path) == [0, 1, 2, 3, 4]
    assert {p.name: p.stat().st_ino for p in (path / "episodes" / "000002").rglob("c.*")} == inodes
    intact(path)


def test_numbers_of_deleted_episodes_are_not_used_again(path):
    delete(path, 4)
    (path / ".lock").unlink()
    label(path, 0, notes="x")  # any edit makes up for the lost file
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        assert record(writer, 9) == 5
    undo(path), undo(path)
    assert numbers(path) == [0, 1, 2, 3, 4, 5]


def test_undo_goes_back_step_by_step_and_a_command_at_a_time(path):
    delete(path, [0, 3])
    label(path, [1, 2], success="unknown", task="push")
    delete(path, 4)
    undelete(path, 3)
    assert [e.kind for e in undo(path)] == ["undelete"]
    assert [e.kind for e in undo(path)] == ["delete"]
    assert [e.number for e in undo(path)] == [2, 1]
    assert sorted(e.removes[0].number for e in undo(path)) == [0, 3]
    with pytest.raises(DatasetError, match="nothing to undo"):
        undo(path)
    assert numbers(path) == [0, 1, 2, 3, 4]
    assert [e.meta.success for e in Dataset(path)] == [True, False, True, False, True]
    intact(path)
    assert [e.kind for e in edits(path)].count("undo") == 6


def test_what_is_not_there_is_named_with_what_is_and_nothing_is_done(path):
    delete(path, 3)
    with pytest.raises(DatasetError, match=r"has no episode 3 7-8; it has 0-2 4"):
        delete(path, [1, 3, 7, 8])
    with pytest.raises(DatasetError, match=r"the trash of .* has no episode 1; it has 3"):
        undelete(path, [3, 1])
    with pytest.raises(ContractError, match="nothing to change"):
        label(path, 1)
    assert numbers(path) == [0, 1, 2, 4]
    with pytest.raises(DatasetError, match="not a robopolicy dataset"):
        delete(path.parent, 1)


def test_a_dataset_that_is_being_written_is_busy(path):
    with DatasetWriter(path, SPEC, lossless=True):
        for edit in (lambda: delete(path, 1), lambda: undo(path), lambda: label(path, 1, notes="n")):
            with pytest.raises(DatasetBusy, match=f"being written by process {os.getpid()}"):
                edit()
    assert not (path / "edits.jsonl").exists()


def test_label_is_seen_by_stock_zarr_and_by_the_reader(path):
    zarr = pytest.importorskip("zarr")
    before = (path / "episodes" / "000001" / "zarr.json").read_bytes()
    label(path, 1, success=True, task="größer", notes="a note", marks=[{"name": "slip", "start": 1, "stop": 3}])
    own = dict(zarr.open_group(path / "episodes" / "000001", mode="r").attrs)["robopolicy"]
    assert (own["success"], own["task"], own["notes"]) == (True, "größer", "a note")
    stamps = Dataset(path)[1].stamps_ns("step").tolist()
    assert own["marks"][-1] == {"name": "slip", "stamp_ns": stamps[1], "until_ns": stamps[2]}
    meta = Dataset(path)[1].meta
    assert (meta.success, meta.task, meta.seed) == (True, "größer", 1)
    assert label(path, 1, success=True) == []
    assert len(edits(path)) == 1, "what is labelled so already is no edit"
    label(path, 1, unmark=["slip"])
    assert dict(zarr.open_group(path / "episodes" / "000001", mode="r").attrs)["robopolicy"]["marks"] == []
    undo(path), undo(path)
    assert json.loads((path / "episodes" / "000001" / "zarr.json").read_bytes()) == json.loads(before)


def test_where_cameras_stood_can_be_said_afterwards_and_undone(tmp_path):
    path = track_data.make_robot(tmp_path / "d.zarr", 2, calibrated=("left",))
    before = Dataset(path)[1].meta.cameras
    with pytest.raises(UnknownCamera, match="right"):
        cameras_of(before, ("left", "right"))
    told = {name: camera.to_json() for name, camera in track_data.CAMERAS.items()}
    told["left"]["T_base_cam"] = track_data.look((1.0, 0.1, 0.7)).to_json()["T_base_cam"]
    cams = tmp_path / "cams.yaml"
    write_calibrations(cams, {**told, "elsewhere": told["left"]})
    (edit,) = label(path, 1, calibration=cams)
    assert edit.words == "labelled episode 1: cameras left, right"
    now = Dataset(path)[1].meta.cameras
    assert set(now) == {"left", "right"}, "the dataset has no other"
    for name, camera in cameras_of(now, ("left", "right")).items():
        assert camera.is_like(cameras_of(told, (name,))[name])
    assert Dataset(path)[0].meta.cameras == before
    assert label(path, 1, calibration=cams) == []
    write_calibrations(cams, {"right": track_data.look((0.2, 0.9, 0.5)).to_json()})
    label(path, 1, calibration=cams)
    assert Dataset(path)[1].meta.cameras["left"] == now["left"], "what the file lacks stays as it was"
    assert Dataset(path)[1].meta.cameras["right"] != now["right"]
    undo(path), undo(path)
    assert Dataset(path)[1].meta.cameras == before
    for wrong, message in (
        ({"top": told["left"]}, "it has none of the cameras of .*d.zarr: left, right"),
        ({"left": {**told["left"], "size": (480, 640)}}, "camera 'left' was calibrated at 640 x 480"),
    ):
        write_calibrations(cams, wrong)
        with pytest.raises(ConfigError, match=message):
            label(path, 1, calibration=cams)
    assert Dataset(path)[1].meta.cameras == before


def test_gc_deletes_for_good_and_undo_passes_it_over(path):
    label(path, 0, notes="kept")
    delete(path, [1, 2])
    folders, size = empty_trash(path)
    assert folders == 2
    assert size > 1000
    assert not (path / ".trash").exists()
    assert [e.kind for e in undo(path)] == ["label"]
    with pytest.raises(DatasetError, match="nothing to undo"):
        undo(path)
    assert numbers(path) == [0, 3, 4]
    assert empty_trash(path) == (0, 0)


def test_trim_keeps_the_bytes_of_the_steps_asked_for(path):
    whole = Dataset(path)[3]
    frames = {name: list(whole.frame_bytes(name)) for name in SPEC.cameras}
    want = {name: whole.images(name)[2:5] for name in SPEC.cameras}
    numbers_ = whole.state("q")[2:5], whole.action()[2:5], whole.stamps_ns("step")[2:5], whole.stamps_ns("front")[2:5]
    new, edit = trim(path, 3, 2, 5)
    assert (new, edit.words) == (5, "trimmed episode 3 to its steps 2 to 4, which are episode 5")
    part = {e.number: e for e in Dataset(path)}
    assert sorted(part) == [0, 1, 2, 4, 5]
    part = part[5]
    assert part.length == 3
    for name in SPEC.cameras:
        assert list(part.frame_bytes(name)) == frames[name][2:5]
        assert np.array_equal(part.images(name), want[name])
    got = part.state("q"), part.action(), part.stamps_ns("step"), part.stamps_ns("front")
    assert all(np.array_equal(a, b) for a, b in zip(got, numbers_, strict=True))
    own = part.attributes
    assert own["parent"] == {"number": 3, "uuid": whole.attributes["uuid"], "start": 2, "stop": 5}
    assert own["uuid"] != whole.attributes["uuid"]
    assert own["timing"]["step"]["hz"] == pytest.approx(20)
    assert [str(p) for p in check(path) if p.severity == "error"] == []
    (undone,) = undo(path)
    assert undone.kind == "trim"
    assert numbers(path) == [0, 1, 2, 3, 4]
    intact(path)


def test_trim_of_cameras_slower_than_the_steps_and_of_depth(tmp_path):
    spec = replace(SPEC, cameras={"slow": CameraSpec(16, 16), "deep": CameraSpec(16, 24, "depth")})
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "d", spec, lossless=True) as writer:
        episode = writer.begin(META)
        for k in range(12):
            if k % 3 == 0:
                colour, depth = rng.integers(0, 255, (16, 16, 3), np.uint8), rng.integers(0, 4000, (16, 24), np.uint16)
                taken = SECOND + k * spec.period_ns
            state = {"q": np.full(3, k, np.float32), "gripper": np.zeros(1, np.float32)}
            stamps = {"slow": taken, "deep": taken}
            seen = Observation(SECOND + k * spec.period_ns, state, {"slow": colour, "deep": depth}, stamps)
            episode.add(Step(seen, np.zeros(2, np.float32), seen.stamp_ns, "human"))
        episode.commit()
    whole = Dataset(tmp_path / "d")[0]
    assert whole.frame_count("slow") == 4
    want = {name: (whole.images(name)[4:9], whole.stamps_ns(name)[4:9]) for name in spec.cameras}
    trim(tmp_path / "d", 0, 4, 9)
    (part,) = Dataset(tmp_path / "d")
    assert part.frame_count("slow") == 2, "frames that no step saw are left behind"
    assert part.frame_rows("slow").tolist() == [0, 0, 1, 1, 1]
    for name, (images, stamps) in want.items():
        assert np.array_equal(part.images(name), images)
        assert np.array_equal(part.stamps_ns(name), stamps)
    assert [str(p) for p in check(tmp_path / "d") if p.severity == "error"] == []


def test_trim_by_seconds_and_by_idle_marks_keeps_the_marks_within(path):
    length = Dataset(path)[4].length
    label(path, 4, marks=[{"name": "slip", "start": 3, "stop": 6}, {"name": "late", "start": length - 1}, "plain"])
    marks = Dataset(path)[4].attributes["marks"]
    with pytest.raises(ContractError, match=f"mark 'x': episode 4 has the steps 0 to {length - 1}"):
        label(path, 4, marks=[{"name": "x", "start": length}])
    assert steps_of_seconds(path, 4, 0.1, None) == (2, length)
    assert steps_of_seconds(path, 4, None, 0.2) == (0, 4)
    with pytest.raises(DatasetError, match="no idle marks; make them: robopolicy data quality"):
        active_steps(path, 4)
    idle = np.zeros(length, bool)
    idle[[0, 1, 3, length - 1]] = True
    write_derived(path, 4, "quality@1", {"idle": idle})
    start, stop = active_steps(path, 4)
    assert (start, stop) == (2, length - 1)
    trim(path, 4, start, stop)
    part = Dataset(path)[-1]
    assert part.attributes["marks"] == [marks[0], "plain"], "what lies outside is gone"
    assert part.derived_names() == []
    for wrong in ((0, part.length), (-1, 2), (3, 3), (2, 99)):
        with pytest.raises(ContractError, match="steps"):
            trim(path, part.number, *wrong)


def test_trim_of_an_episode_of_format_1(path):
    episode = path / "episodes" / "000003"
    group = json.loads((episode / "zarr.json").read_bytes())
    for key in ("version", "frames", "timing"):  # what format 1 did not have
        del group["attributes"]["robopolicy"][key]
    (episode / "zarr.json").write_text(json.dumps(group))
    shutil.rmtree(episode / "align")
    want = Dataset(path)[3].images("front")[1:4]
    new, _ = trim(path, 3, 1, 4)
    part = Dataset(path)[-1]
    assert (part.number, part.frame_count("front")) == (new, 3)
    assert np.array_equal(part.images("front"), want)
    assert not (part.path / "align").exists()


def test_trim_keeps_the_verdicts(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC) as writer:
        episode = writer.begin(META)
        for step in make_steps(3, 6, verdict=True):
            episode.add(step)
        episode.commit()
    before = Dataset(tmp_path / "d")[0].verdicts()
    trim(tmp_path / "d", 0, 1, 4)
    after = Dataset(tmp_path / "d")[0].verdicts()
    assert all(np.array_equal(after[k], before[k][1:4]) for k in before)


def test_split_shares_out_every_episode_once_by_links(path, tmp_path):
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        for seed in range(5, 10):
            record(writer, seed, success=seed % 2 == 0)
    shares = {tmp_path / "train": 0.8, tmp_path / "val": 0.2}
    made = split(path, shares, seed=3, by="success")
    assert [(m.episodes, m.linked) for m in made] == [(8, True), (2, True)]
    train, val = Dataset(tmp_path / "train"), Dataset(tmp_path / "val")
    seeds = [[e.meta.seed for e in part] for part in (train, val)]
    assert sorted(seeds[0] + seeds[1]) == list(range(10))
    assert [sum(s % 2 == 0 for s in part) for part in seeds] == [4, 1], "each part has the same mix"
    for episode in [*train, *val]:
        require_intact(episode)
    (file,) = (tmp_path / "val/episodes/000000/action/command").glob("c.*")
    assert file.stat().st_nlink == 2
    again = split(path, {tmp_path / "a": 0.8, tmp_path / "b": 0.2}, seed=3, by="success")
    assert [[e.meta.seed for e in Dataset(m.path)] for m in again] == seeds, "one seed, one draw"
    label(tmp_path / "val", 0, notes="mine")
    assert not any(e.meta.notes for e in Dataset(path)), "an edit of a part leaves the source alone"
    with DatasetWriter(tmp_path / "val", SPEC, lossless=True) as writer:
        assert record(writer, 77) == 2


def test_split_refuses_what_makes_no_sense(path, tmp_path):
    for shares in ({"a": 0.5}, {"a": 0.5, "b": 0.6}, {"a": 1.5, "b": -0.5}):
        with pytest.raises(UsageError, match="want two or more, sum 1"):
            split(path, {tmp_path / k: v for k, v in shares.items()})
    with pytest.raises(UsageError, match="would get none of the 5 episodes"):
        split(path, {tmp_path / "a": 0.99, tmp_path / "b": 0.01})
    (tmp_path / "b").mkdir()
    with pytest.raises(DatasetError, match="b exists; name a new dataset"):
        split(path, {tmp_path / "a": 0.5, tmp_path / "b": 0.5})
    assert not (tmp_path / "a").exists()


def test_merge_takes_all_and_refuses_other_specs_and_doubles(path, tmp_path):
    with DatasetWriter(tmp_path / "other", SPEC, lossless=True) as writer:
        for seed in (7, 8):
            record(writer, seed)
    made = merge([path, tmp_path / "other"], tmp_path / "sum")
    assert (made.episodes, made.linked) == (7, True)
    assert [e.meta.seed for e in Dataset(tmp_path / "sum")] == [0, 1, 2, 3, 4, 7, 8]
    intact(tmp_path / "sum")
    with pytest.raises(DatasetError, match=r"episode 0 of .*sum is the same recording as episode 0 of"):
        merge([path, tmp_path / "sum"], tmp_path / "twice")
    assert merge([path, tmp_path / "sum"], tmp_path / "twice", duplicates="skip").skipped == 5
    with DatasetWriter(tmp_path / "fast", replace(SPEC, rate_hz=50.0)):
        pass
    with pytest.raises(SpecMismatch, match=r"20 Hz.*50 Hz"):
        merge([path, tmp_path / "fast"], tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_merge_copies_where_it_cannot_link(path, in_memory):
    if in_memory.stat().st_dev == path.stat().st_dev:
        pytest.skip("only one file system here")
    assert not merge([path], in_memory / "sum").linked
    intact(in_memory / "sum")


FULL = """
import resource, sys
from robopolicy.errors import DiskFull
from robopolicy_data.trim import trim
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    trim(sys.argv[1], 4, 1, 7)
except DiskFull as error:
    print(error)
"""


def test_a_full_disk_leaves_the_episode_as_it_was(path):
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("File too large: ")
    assert numbers(path) == [0, 1, 2, 3, 4]
    assert not list((path / ".trash").glob("*"))
    intact(path)


KILL = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from robopolicy_data.edit import delete, empty_trash, undelete, undo
from robopolicy_data.labels import label
from robopolicy_data.merge import merge
from robopolicy_data.reader import Dataset
from robopolicy_data.split import split
from robopolicy_data.trim import trim

OPERATIONS = ("pwrite", "fsync", "rename", "replace", "link", "mkdir", "rmdir", "unlink", "truncate", "ftruncate")

def dies_at(n):
    count = 0
    def step():
        nonlocal count
        count += 1
        if count == n:
            os.kill(os.getpid(), signal.SIGKILL)
    def killing(name):
        really = getattr(os, name)
        def call(*a, **k):
            step()
            if name == "pwrite" and count == n - 1:  # the next is this write, torn in its middle
                really(a[0], bytes(a[1])[: len(a[1]) // 2], *a[2:])
                step()
            return really(*a, **k)
        setattr(os, name, call)
    for name in OPERATIONS:
        killing(name)

def state(root):
    return {p.name: [(e.number, e.attributes, e.state("q").tobytes(), [*e.frame_bytes("front")]) for e in Dataset(p)]
            for p in sorted(root.iterdir()) if not p.name.startswith(".")}

EDITS = {
    "delete": lambda d: delete(d, 1),
    "undelete": lambda d: undelete(d, 0),
    "undo": lambda d: undo(d),
    "label": lambda d: label(d, 2, success=False, notes="x", marks=["m"]),
    "trim": lambda d: trim(d, 2, 1, 3),
    "untrim": lambda d: undo(d),
    "gc": lambda d: empty_trash(d),
    "merge": lambda d: merge([d], d.with_name("sum")),
}

def comparable(found):  # what a trim makes has a uuid of its own
    return repr([[(n, {k: v for k, v in own.items() if k != "uuid"}, q, f) for n, own, q, f in episodes]
                 for episodes in found.values()])

import shutil
name, home = sys.argv[2], Path(sys.argv[3])
prepared = home / "prepared"
fresh = lambda: (shutil.rmtree(home / "work", ignore_errors=True), shutil.copytree(prepared, home / "work"))
work = home / "work" / "d"
fresh(); before = comparable(state(home / "work"))
EDITS[name](work); after = comparable(state(home / "work"))
assert before != after or name == "gc"
count, really = [0], {}
def counted(name):
    really[name] = getattr(os, name)
    setattr(os, name, lambda *a, **k: (count.__setitem__(0, count[0] + 1), really[name](*a, **k))[1])
fresh()
for each in OPERATIONS:
    counted(each)
EDITS[name](work)
for each in OPERATIONS:
    setattr(os, each, really[each])
operations = count[0] + 2  # a torn write counts twice
points = sorted(set(range(1, operations + 1)[:: max(1, operations // int(sys.argv[4]))]) | {operations - 1, operations})
kills = 0
seen = set()
for n in [*points, 10**6]:
    fresh()
    child = os.fork()
    if child == 0:
        dies_at(n)
        EDITS[name](work)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = comparable(state(home / "work"))
    assert found in (before, after), (name, n)
    seen.add(found)
    if os.WIFEXITED(status):
        assert found == after, (name, n)
        continue
    kills += 1
    label(work, Dataset(work)[-1].number, task="after the kill")
    numbers = {e.number for e in Dataset(work)}
    assert [e for e in os.listdir(work / "episodes") if e.isdigit() and int(e) not in numbers] == []
    assert not (home / "work" / "sum").exists() or len(Dataset(home / "work" / "sum"))
    try:
        while True:
            undo(work)
    except Exception as error:
        assert "nothing to undo" in str(error), error
assert seen == {before, after}, (name, "kills hit only one side")
print(kills)
"""


@pytest.fixture
def in_memory(tmp_path):
    """A folder that needs no disk, where there is one: a kill does not care, and there are hundreds."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


EDITS = ("delete", "undelete", "undo", "label", "trim", "untrim", "gc", "merge")


@pytest.mark.parametrize("edit", EDITS)
def test_a_kill_at_a_file_operation_leaves_before_or_after(edit, in_memory):
    killed(edit, in_memory, 6)


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_a_kill_at_any_file_operation_leaves_before_or_after(edit, in_memory):
    killed(edit, in_memory, 60)


def killed(edit, home, points):
    prepared = home / "prepared" / "d"
    with DatasetWriter(prepared, SPEC, lossless=True) as writer:
        for seed in range(3):
            record(writer, seed)
    delete(prepared, 0)
    if edit == "untrim":
        trim(prepared, 2, 0, 3)
    command = [sys.executable, "-W", "error", "-c", KILL, str(Path(__file__).parent), edit, str(home), str(points)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3, "the kills hit nothing"


def test_a_torn_line_of_the_log_is_no_edit(path):
    label(path, 0, notes="one")
    with (path / "edits.jsonl").open("ab") as log:
        log.write(b'{"id": 2, "kind": "del')
    assert len(edits(path)) == 1
    delete(path, 1)
    assert [e.id for e in edits(path)] == [1, 2]
    with (path / "edits.jsonl").open("ab") as log:
        log.write(b"nonsense\n")
    with pytest.raises(DatasetError, match=r"edits\.jsonl, line 3, is no edit"):
        undo(path)


def test_ranges():
    assert parse_numbers(["3", "5-8", "6,1"]) == [1, 3, 5, 6, 7, 8]
    assert numbers_in_words([8, 3, 5, 6, 7]) == "3 5-8"
    assert numbers_in_words([]) == "none"
    for wrong in ("x", "-3", "8-5", "3-", "1.5"):
        with pytest.raises(UsageError, match="3 5-8"):
            parse_numbers(["1", wrong])
