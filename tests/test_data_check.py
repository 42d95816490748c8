import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, SPEC, make_steps, record

from robopolicy.errors import DatasetError
from robopolicy.spec import TOOL_POSE, CameraSpec, StateSpec
from robopolicy_data.check import check, info
from robopolicy_data.derived import write_derived
from robopolicy_data.files import crc32c
from robopolicy_data.writer import DatasetWriter


@pytest.fixture
def path(tmp_path):
    with DatasetWriter(tmp_path, SPEC) as writer:
        for seed, success in enumerate((True, False, None)):
            record(writer, seed, 20, success=success)
    return tmp_path


def recorded(path, change):
    """Record one episode whose steps went through ``change(k, step)`` and return what check says of it."""
    with DatasetWriter(path, SPEC) as writer:
        episode = writer.begin(META)
        for k, step in enumerate(make_steps(4, 30)):
            episode.add(change(k, step))
        number = episode.commit()
    return [str(problem) for problem in check(path) if f"episode {number}" in problem.where]


def seen(step, **changes):
    return replace(step, observation=replace(step.observation, **changes))


def stretched(step, k, period_ns):
    shift = k * (period_ns - SPEC.period_ns)
    stamps = {name: ns + shift for name, ns in step.observation.image_stamps_ns.items()}
    changed = seen(step, stamp_ns=step.observation.stamp_ns + shift, image_stamps_ns=stamps)
    return replace(changed, due_ns=step.due_ns + shift)


def test_a_good_dataset_has_no_problems(path):
    told = []
    assert check(path, progress=lambda done, total: told.append((done, total))) == []
    assert told[-1] == (3, 3)


def test_an_empty_one_is_odd_and_none_is_an_error(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC):
        pass
    assert [str(p) for p in check(tmp_path / "d")] == ["warning: there are no episodes"]
    with pytest.raises(DatasetError, match="not a robopolicy dataset"):
        check(tmp_path)


def test_nan(path):
    def change(k, step):
        return replace(step, sent=step.sent * np.nan) if k in (7, 9) else step

    assert recorded(path, change) == [
        "error: episode 3, action/command: 2 of 30 steps hold NaN or infinity, the first at step 7"
    ]


def test_time_that_stands_still(path):
    problems = recorded(path, lambda k, step: stretched(step, min(k, 1), 2 * SPEC.period_ns) if k < 3 else step)
    assert any("time/step: time does not go on at 1 of 30 steps, the first after step 2" in p for p in problems)


def test_a_rate_that_is_not_the_label(path):
    problems = recorded(path, lambda k, step: stretched(step, k, 60_000_000))
    assert problems == ["warning: episode 3, time/step: labelled 20 Hz, recorded at 16.67 Hz"]


def test_jitter(path):
    problems = recorded(path, lambda k, step: stretched(step, k % 2, SPEC.period_ns + 9_000_000))
    assert any("jitter" in p for p in problems)


def test_an_old_camera(path):
    def change(k, step):
        stamps = {**step.observation.image_stamps_ns, "wrist": step.observation.stamp_ns - 400_000_000}
        return seen(step, image_stamps_ns=stamps)

    assert recorded(path, change) == [
        "warning: episode 3, obs/cam/wrist: frames are up to 400 ms older than their step"
    ]


def test_black_and_frozen_frames(path):
    first = make_steps(4, 1)[0].observation.images["front"]

    def change(k, step):
        wrist = step.observation.images["wrist"] * (k != 5)
        return seen(step, images={"front": first if k < 10 else step.observation.images["front"], "wrist": wrist})

    assert recorded(path, change) == [
        "warning: episode 3, obs/cam/front: 9 of the 29 frames taken while the state moves repeat the one before",
        "warning: episode 3, obs/cam/wrist: 1 of 30 frames are black, the first at frame 5",
    ]


def test_the_same_picture_of_a_robot_that_waits_is_no_finding(path):
    def change(k, step):
        if k < 12:
            change.last = step.observation
            return step
        trembling = {name: value + np.float32(1e-4 * (k % 2)) for name, value in change.last.state.items()}
        return seen(step, images=change.last.images, state=trembling)

    assert recorded(path, change) == []


def test_a_world_that_only_settles_is_no_finding(path):
    def change(k, step):
        if k == 0:
            change.first = step.observation
        settled = {name: value + np.float32(1e-4 * 0.8**k) for name, value in change.first.state.items()}
        return seen(step, images=change.first.images, state=settled)

    assert recorded(path, change) == []


def test_a_gap_and_what_it_does_to_the_rate(path):
    assert recorded(path, lambda k, step: stretched(step, k >= 11, SPEC.period_ns + 400_000_000)) == [
        "warning: episode 3, time/step: labelled 20 Hz, with its gaps 15.68 Hz",
        "warning: episode 3, time/step: jitter: 1 % of steps are 288 ms off a 50 ms period",
        "warning: episode 3, time/step: 1 gap(s), the longest 0.45 s after step 10",
    ]


def frozen_from(first):
    """Let the wrist camera deliver nothing new from a step on."""

    def change(k, step):
        stamps = step.observation.image_stamps_ns
        if k < first:
            change.last = stamps["wrist"]
        return seen(step, image_stamps_ns={**stamps, "wrist": change.last})

    return change


@pytest.mark.parametrize(("first", "said"), [(3, "1.35 s, 0.1 s into"), (12, "0.9 s, 0.55 s into"), (25, None)])
def test_a_camera_that_stalls(path, first, said):
    problems = recorded(path, frozen_from(first))
    if said is None:
        assert problems == ["warning: episode 3, obs/cam/wrist: frames are up to 250 ms older than their step"]
    else:
        (problem,) = problems
        assert problem.startswith("warning: episode 3, obs/cam/wrist: the camera stalls: no new frame for " + said)


def test_a_camera_that_is_slow_is_no_finding(path):
    def change(k, step):
        stamps = step.observation.image_stamps_ns
        if k % 4 == 0:
            change.last = stamps["wrist"]
        return seen(step, image_stamps_ns={**stamps, "wrist": change.last})

    assert recorded(path, change) == []


def test_dropped_steps_are_an_error(path):
    with DatasetWriter(path, SPEC) as writer:
        episode = writer.begin(META)
        for step in make_steps(4, 30):
            episode.add(step)
        episode.commit(drops={"steps": 7, "spans": [[1, 2, 7]]})
    (problem,) = check(path)
    assert problem.severity == "error"
    assert "7 step(s) were dropped" in problem.message


def test_what_was_recovered_says_so(path):
    with DatasetWriter(path, SPEC) as writer:
        episode = writer.begin(META)
        for step in make_steps(4, 30):
            episode.add(step)
    with DatasetWriter(path, SPEC, recover=True):
        pass
    assert [str(p) for p in check(path)] == [
        "warning: episode 3: recovered 30 of 30 journaled steps of an interrupted recording"
    ]


@pytest.mark.parametrize("group", ["", "obs", "obs/state", "time", "align", "derived", "derived/quality@1"])
def test_a_folder_that_is_no_group(path, group):
    write_derived(path, 1, "quality@1", {"idle": np.zeros(20, bool)})
    assert check(path) == []
    file = path / "episodes/000001" / group / "zarr.json"
    saved = file.read_bytes()
    if group:
        file.unlink()
        (problem,) = check(path)
        assert (problem.severity, problem.where) == ("error", "episode 1")
        assert f"{group}/zarr.json is missing" in problem.message
    file.write_bytes(saved.replace(b'"group"', b'"array"'))
    (problem,) = check(path)
    assert "is a zarr array, want a group" in problem.message


def test_a_zip_is_checked_too(path, tmp_path_factory):
    (path / "episodes/000001/obs/zarr.json").unlink()
    name = tmp_path_factory.mktemp("z") / "d.zip"
    with zipfile.ZipFile(name, "w", zipfile.ZIP_STORED) as archive:
        for file in path.rglob("*"):
            archive.write(file, file.relative_to(path))
    (problem,) = check(name)
    assert "episodes/000001/obs/zarr.json is missing" in problem.message


def test_the_episodes_folder_is_a_group(path):
    (path / "episodes/zarr.json").unlink()
    (problem,) = check(path)
    assert "episodes/zarr.json is missing" in problem.message


@pytest.mark.parametrize(
    ("stream", "values", "said"),
    [
        ("align/wrist", np.arange(20, dtype=np.int32) + 5, "frames 5 to 24, but the camera has 20"),
        ("align/wrist", np.arange(20, dtype=np.int32)[::-1], "steps go back to older frames 19 times, first after"),
        ("time/wrist", np.arange(20)[::-1] * 1_000_000 + 10**9, "time does not go on at 19 of 20 frames, the first"),
    ],
)
def test_frames_and_steps_that_do_not_fit(path, stream, values, said):
    data = np.ascontiguousarray(values).tobytes()
    (path / "episodes/000001" / stream / "c.0").write_bytes(data + crc32c(data))
    problems = [p for p in check(path) if p.severity == "error"]
    assert [said in p.message for p in problems] == [True], problems


def test_damage_of_what_a_tool_added(path):
    write_derived(path, 1, "quality@1", {"idle": np.zeros(20, bool)})
    file = path / "episodes/000001/derived/quality@1/idle/c.0"
    file.write_bytes(b"\1" + file.read_bytes()[1:])
    (problem,) = check(path)
    assert "derived/quality@1: idle: c.0 is damaged" in problem.message


def test_an_empty_depth_map(tmp_path):
    spec = replace(SPEC, cameras={"range": CameraSpec(8, 8, "depth")})
    with DatasetWriter(tmp_path, spec) as writer:
        episode = writer.begin(META)
        for k, step in enumerate(make_steps(4, 20)):
            episode.add(seen(step, images={"range": np.full((8, 8), k and 500 + k, np.uint16)}))
        episode.commit()
    assert [str(p) for p in check(tmp_path)] == [
        "warning: episode 0, obs/depth/range: 1 of 20 frames are empty, the first at frame 0"
    ]


def test_an_element_that_never_changes(tmp_path):
    with DatasetWriter(tmp_path, SPEC) as writer:
        for seed in (1, 2):
            episode = writer.begin(META)
            for step in make_steps(seed, 20):
                episode.add(replace(step, sent=step.sent * np.float32([1, 0])))
            episode.commit()
    assert [str(p) for p in check(tmp_path)] == ["warning: action/command: element(s) [1] never change in 2 episode(s)"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("obs/cam/front/c.0.0.0.0", "frame 0: frame 0 is damaged"),
        ("obs/state/q/c.0.0", "c.0.0 is damaged"),
        ("time/wrist/c.0", "c.0 is damaged"),
        ("action/source/zarr.json", "is not JSON"),
        ("zarr.json", "is not JSON"),
    ],
)
def test_damage_is_an_error_and_the_rest_is_still_checked(path, name, said):
    file = path / "episodes/000001" / name
    data = file.read_bytes()
    file.write_bytes(bytes([data[0] ^ 0x80]) + data[1:])
    (problem,) = check(path)
    assert problem.severity == "error"
    assert said in problem.message
    assert "episode 1" in problem.where


def test_an_unfinished_recording_is_mentioned(path):
    with DatasetWriter(path, SPEC) as writer:
        writer.begin(META).add(make_steps(1)[0])
    assert [p.severity for p in check(path)] == ["warning"]
    assert "unfinished" in check(path)[0].message
    with DatasetWriter(path, SPEC):
        pass
    assert check(path) == []
    assert info(path)["set_aside"] == 1


def test_info(path):
    told = info(path)
    assert (told["episodes"], told["steps"], told["rate_hz"]) == (3, 60, 20.0)
    assert told["seconds"] == pytest.approx(3.0)
    assert told["success"] == {"true": 1, "false": 1, "unknown": 1}
    assert told["cameras"] == {"front": (24, 32), "wrist": (16, 16)}
    assert told["state"] == {"q": (3, ("rad",)), "gripper": (1, ("open",))}
    assert told["action"] == {"kind": "vector", "names": ("x", "y")}
    assert told["tasks"] == {"lift": 3}
    assert 0.01 < told["megabytes"] < 1
    assert told["unfinished"] == told["set_aside"] == 0


def test_a_tool_that_always_points_down_is_no_finding(tmp_path):
    spec = replace(
        SPEC, state={"tool_quat": StateSpec(4, ("quat",)), "tool_pos": StateSpec(3, ("m",))}, action=TOOL_POSE
    )
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path, spec) as writer:
        episode = writer.begin(META)
        for step in make_steps(1, 20):
            state = {"tool_quat": np.float32([0, 1, 0, 0]), "tool_pos": rng.random(3, np.float32) * [1, 1, 0]}
            state["tool_pos"] = state["tool_pos"].astype(np.float32)
            sent = np.concatenate([rng.random(3), [1, 0, 0, 0, -1, 0], rng.random(1)]).astype(np.float32)
            episode.add(replace(seen(step, state=state), sent=sent))
        episode.commit()
    assert [str(p) for p in check(tmp_path)] == [
        "warning: obs/state/tool_pos: element(s) [2] never change in 1 episode(s)"
    ]
