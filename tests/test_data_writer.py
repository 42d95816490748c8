import errno
import json
import os
import shutil
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, SPEC, make_step, make_steps, record, require_intact

from robopolicy.errors import ContractError, DatasetError, DiskFull, NewerFormat, SpecMismatch
from robopolicy.spec import CameraSpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.edit import delete
from robopolicy_data.files import AppendFile
from robopolicy_data.journal import read_journal
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "d"


def begun(writer, steps=5, seed=3, **options):
    episode = writer.begin(META)
    for step in make_steps(seed, steps, **options):
        episode.add(step)
    return episode


def test_lossless_is_bit_for_bit(path):
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        assert [record(writer, seed) for seed in (4, 5)] == [0, 1]
    for episode in Dataset(path):
        require_intact(episode)


def test_jpeg_changes_only_the_pictures_and_those_little(path):
    with DatasetWriter(path, SPEC) as writer:
        record(writer, 4, 40)
    episode, steps = Dataset(path)[0], make_steps(4, 40)
    assert np.array_equal(episode.action(), np.stack([step.sent for step in steps]))
    for camera in SPEC.cameras:
        truth = np.stack([step.observation.images[camera] for step in steps]).astype(float)
        error = episode.images(camera) - truth
        assert 0 < np.sqrt(np.mean(error**2)) < 12  # of 255; the test's pictures are hard on 4:2:0
    assert episode.frame_sizes("front").mean() < 24 * 32 * 3


def test_meta_comes_back_as_it_was(path):
    meta = EpisodeMeta(
        "lift", "mock", 7, "ana", "human", True, 20.0, "software 1",
        {"front": {"K": np.eye(3), "T_base_cam": np.eye(4)}}, "a note", {"score": np.float32(0.5)},
    )  # fmt: skip
    with DatasetWriter(path, SPEC) as writer:
        begun(writer).commit(meta)
    back = Dataset(path)[0].meta
    assert replace(back, cameras={}, extra={}) == replace(meta, cameras={}, extra={})
    assert back.cameras["front"]["K"] == np.eye(3).tolist()
    assert back.extra == {"score": 0.5}


def test_rate_and_software_are_filled_in(path):
    with DatasetWriter(path, SPEC) as writer:
        begun(writer).commit()
    meta = Dataset(path)[0].meta
    assert meta.rate_hz == SPEC.rate_hz
    assert meta.software.startswith("robopolicy ")


def test_an_episode_is_invisible_until_committed(path):
    with DatasetWriter(path, SPEC) as writer:
        episode = begun(writer)
        assert len(Dataset(path)) == 0
        episode.commit()
        assert len(Dataset(path)) == 1
        with pytest.raises(ContractError, match="over"):
            episode.add(make_steps(1)[0])


def test_discard_leaves_nothing(path):
    with DatasetWriter(path, SPEC) as writer:
        episode = begun(writer)
        episode.discard()
        episode.discard()
        assert record(writer, 1) == 0
    assert sorted(p.name for p in path.iterdir()) == [".lock", "episodes", "zarr.json"]


def test_numbers_are_never_used_twice(path):
    with DatasetWriter(path, SPEC) as writer:
        assert [record(writer, seed) for seed in range(3)] == [0, 1, 2]
    shutil.rmtree(path / "episodes" / "000002")
    with DatasetWriter(path, SPEC) as writer:
        assert record(writer, 9) == 3
    (path / ".lock").unlink()
    with DatasetWriter(path, SPEC) as writer:
        assert record(writer, 9) == 4
    delete(path, 4)
    (path / ".lock").unlink()
    with DatasetWriter(path, SPEC) as writer:
        assert record(writer, 9) == 5


@pytest.mark.parametrize("after", [False, True], ids=["before the rename", "after it"])
def test_numbers_have_no_gap_wherever_the_commit_was_killed(path, monkeypatch, after):
    really = os.rename

    def killed(source, target):
        if after:
            really(source, target)
        raise KeyboardInterrupt

    with DatasetWriter(path, SPEC) as writer:
        record(writer, 0)
        monkeypatch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            record(writer, 1)
        monkeypatch.setattr(os, "rename", really)
    with DatasetWriter(path, SPEC, recover=True) as writer:
        record(writer, 2)
    assert [episode.number for episode in Dataset(path)] == [0, 1, 2]
    assert [episode.meta.seed for episode in Dataset(path)] == [0, 1, 2]


def test_one_episode_at_a_time(path):
    with DatasetWriter(path, SPEC) as writer:
        begun(writer)
        with pytest.raises(ContractError, match="still open"):
            writer.begin(META)
    with pytest.raises(ContractError, match="closed"):
        writer.begin(META)


def test_a_bad_step_costs_only_itself(path):
    good = make_steps(3, 6)
    seen = good[5].observation
    bad = [
        (replace(good[5], sent=np.zeros(3, np.float32)), "action: shape"),
        (replace(good[5], observation=replace(seen, state={"q": seen.state["q"]})), "'gripper' is not in the obs"),
        (replace(good[5], observation=replace(seen, images={})), "camera 'front' is not in the observation"),
        (
            replace(good[5], observation=replace(seen, images={**seen.images, "wrist": np.zeros((2, 2, 3))})),
            "want uint8",
        ),
    ]
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        episode = writer.begin(META)
        for step, (wrong, message) in zip(good, [*bad, *bad], strict=False):
            episode.add(step)
            with pytest.raises(ContractError, match=message):
                episode.add(wrong)
        assert episode.commit() == 0
    require_intact(Dataset(path)[0], seed=3)


def test_an_empty_episode_cannot_be_committed(path):
    with DatasetWriter(path, SPEC) as writer:
        episode = writer.begin(META)
        with pytest.raises(ContractError, match="no steps"):
            episode.commit()


def test_meta_that_is_not_json_leaves_the_episode_open(path):
    with DatasetWriter(path, SPEC) as writer:
        for wrong in ({"f": print}, {"x": float("nan")}):
            with pytest.raises(ContractError, match="JSON"):
                writer.begin(replace(META, extra=wrong))
        episode = begun(writer)
        with pytest.raises(ContractError, match="JSON"):
            episode.commit(replace(META, extra={"f": print}))
        assert episode.commit() == 0


def test_an_unfinished_episode_is_put_aside_with_its_journal(path):
    with DatasetWriter(path, SPEC) as writer:
        record(writer, 1)
        begun(writer, steps=5)
    assert len(Dataset(path)) == 1
    with DatasetWriter(path, SPEC) as writer:
        (left,) = writer.interrupted
        assert (left.steps, left.task) == (5, "lift")
        journal = read_journal(left.folder / "journal")
        assert record(writer, 2) == 1
    steps = make_steps(3, 5)
    assert np.array_equal(journal.rows["action/command"], np.stack([step.sent for step in steps]))
    assert np.array_equal(journal.rows["obs/state/q"], np.stack([step.observation.state["q"] for step in steps]))
    with DatasetWriter(path, SPEC) as writer:
        assert writer.interrupted == ()


def test_a_torn_journal_is_read_up_to_the_tear(path):
    with DatasetWriter(path, SPEC) as writer:
        begun(writer, steps=5)
    (journal,) = (path / ".wip").glob("*/journal")
    data = journal.read_bytes()
    journal.write_bytes(data[:-3])
    assert len(read_journal(journal).rows) == 4
    journal.write_bytes(data[:9])
    with pytest.raises(DatasetError, match="not a journal"):
        read_journal(journal)
    with DatasetWriter(path, SPEC) as writer:
        assert writer.interrupted[0].steps == 0


def test_another_spec_is_refused_and_both_are_printed(path):
    with DatasetWriter(path, SPEC):
        pass
    other = replace(SPEC, cameras={**SPEC.cameras, "front": CameraSpec(48, 64)}, rate_hz=50.0)
    with pytest.raises(SpecMismatch, match=r"24x32.*48x64.*20 Hz.*50 Hz"):
        DatasetWriter(path, other)
    with pytest.raises(SpecMismatch, match="wrist"):
        DatasetWriter(path, SPEC.select(cameras=("front",)))
    with DatasetWriter(path, replace(SPEC, n_obs=2, horizon=16, n_execute=8)) as writer:
        assert record(writer, 1) == 0


def test_a_newer_format_is_refused(path):
    with DatasetWriter(path, SPEC):
        pass
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["robopolicy"]["version"] = "3.0"
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(NewerFormat, match=r"has format 3\.0, robopolicy .* reads up to 2\.0"):
        DatasetWriter(path, SPEC)


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DatasetError, match=r"neither empty nor a robopolicy dataset: it holds thesis\.tex"):
        DatasetWriter(tmp_path, SPEC)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(DatasetError, match="is a file"):
        DatasetWriter(tmp_path / "thesis.tex", SPEC)


@pytest.mark.parametrize(
    "spec",
    [replace(SPEC, cameras={name: CameraSpec(2, 2)}) for name in ("a/b", "..", "", "step", "action")]
    + [replace(SPEC, state={"a b": SPEC.state["q"]})],
    ids=lambda spec: repr(next(iter(spec.cameras))),
)
def test_names_that_cannot_be_folders_are_refused(path, spec):
    with pytest.raises(ContractError, match=r"folder|taken"):
        DatasetWriter(path, spec)
    assert not path.exists()


@pytest.mark.parametrize("call", [1, 3, 8, 20])
def test_an_interrupted_append_leaves_no_trace(path, monkeypatch, call):
    """Ctrl-C after half of a write: the step is not in the episode, and those after it lie where the index says."""
    really, calls = os.pwrite, 0

    def torn(fd, data, offset):
        nonlocal calls
        calls += 1
        if calls == call:
            really(fd, data[: len(data) // 2 + 1], offset)
            raise KeyboardInterrupt
        return really(fd, data[: max(1, len(data) // 3)], offset)  # and short writes everywhere

    steps = make_steps(3, 6)
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        episode, interrupted = writer.begin(META), 0
        monkeypatch.setattr(os, "pwrite", torn)
        for step in steps:
            try:
                episode.add(step)
            except KeyboardInterrupt:
                interrupted += 1
                episode.add(step)
        assert interrupted == 1
        assert len(read_journal(next((path / ".wip").glob("*/journal"))).rows) == len(steps)
        episode.commit()
    require_intact(Dataset(path)[0], seed=3)


def test_an_append_interrupted_after_its_last_byte_is_taken_back(tmp_path, monkeypatch):
    file, really = AppendFile(tmp_path / "f"), os.pwrite
    assert file.append(b"one") == 0

    def late(fd, data, offset):
        really(fd, data, offset)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", late)
        with pytest.raises(KeyboardInterrupt):
            file.append(b"a longer one")
    assert file.append(b"two", b"!") == 3
    file.close()
    assert (tmp_path / "f").read_bytes() == b"onetwo!"


@pytest.mark.parametrize("judged", [False, True])
def test_every_byte_is_on_the_disk_before_the_rename_and_the_folder_after_it(path, monkeypatch, judged):
    events: list[tuple[str, str, object]] = []  # (what, path, its bytes or entries before the flush)
    rename = os.rename

    def contents(place):
        return sorted(os.listdir(place)) if os.path.isdir(place) else Path(place).read_bytes()

    def noted(flush):
        def noted_flush(fd):
            name = os.readlink(f"/proc/self/fd/{fd}")
            before = contents(name)
            flush(fd)
            events.append(("flush", name, before))

        return noted_flush

    def noted_rename(source, target):
        rename(source, target)
        events.append(("rename", str(Path(source).resolve()), None))

    monkeypatch.setattr("robopolicy_data.episode_writer.BLOCK", 4)
    with DatasetWriter(path, SPEC) as writer, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noted(os.fsync))
        patch.setattr(os, "fdatasync", noted(os.fdatasync))
        patch.setattr(os, "rename", noted_rename)
        episode = begun(writer, verdict=judged)
        recording = next((path / ".wip").glob("*/episode")).resolve()
        number = episode.commit()
    committed = path / "episodes" / f"{number:06d}"
    moment = events.index(("rename", str(recording), None))
    flushed = [(name, before) for what, name, before in events[:moment] if what == "flush"]
    for item in (committed, *committed.rglob("*")):
        where = str(recording / item.relative_to(committed))
        assert (where, contents(item)) in flushed, f"{where} was not flushed, as it is now, before the rename"
    for folder in (path / ".wip", recording.parent):  # or a power cut would hide the recording from recovery
        assert str(folder) in [name for name, _ in flushed]
    after = [name for what, name, _ in events[moment + 1 :] if what == "flush"]
    assert str((path / "episodes").resolve()) in after


def test_every_write_of_a_commit_may_fail_and_the_next_attempt_succeeds(path, monkeypatch):
    monkeypatch.setattr("robopolicy_data.episode_writer.BLOCK", 4)
    really, steps = os.pwrite, make_steps(3, 9)
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        for failing in range(0, 1000, 3):
            calls = 0

            def pwrite(fd, data, offset, failing=failing):
                nonlocal calls
                calls += 1
                if calls == failing + 1:
                    really(fd, data[: len(data) // 2], offset)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return really(fd, data, offset)

            episode = writer.begin(META)
            for step in steps[:7]:
                episode.add(step)
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", pwrite)
                try:
                    episode.commit()
                    break  # every write has had its turn
                except DiskFull:
                    assert len(episode) == 7
            for step in steps[7:]:
                episode.add(step)
            episode.commit()
            (whole,) = Dataset(path)
            require_intact(whole, seed=3)
            shutil.rmtree(whole.path)
    assert failing > 30


def test_a_flush_that_failed_is_never_forgotten(path, monkeypatch):
    monkeypatch.setattr("robopolicy_data.syncing.PERIOD_S", 0.0)

    def fdatasync(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    rng = np.random.default_rng(3)
    steps = (make_step(k, rng) for k in count())  # as many as it takes until a flush in the background has failed
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        episode = writer.begin(META)
        episode.add(next(steps))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fdatasync)
            with pytest.raises(OSError, match="Input/output error"):
                list(map(episode.add, steps))
        added = len(episode)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                episode.commit()
        assert len(Dataset(path)) == 0
    with DatasetWriter(path, SPEC, recover=True) as writer:
        assert writer.interrupted[0].steps == added
    require_intact(Dataset(path)[0], seed=3)


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_a_commit_whose_flush_failed_is_not_tried_again_as_if_nothing_had_been(path, monkeypatch, call):
    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with DatasetWriter(path, SPEC, lossless=True) as writer:
        episode = begun(writer)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(OSError, match="Input/output error"):
                episode.commit()
        with pytest.raises(OSError, match="Input/output error"):
            episode.commit()  # the kernel would not tell again: the bytes may be lost
        assert len(Dataset(path)) == 0
    with DatasetWriter(path, SPEC, recover=True) as writer:
        assert writer.interrupted[0].steps == 5
    require_intact(Dataset(path)[0], seed=3)
