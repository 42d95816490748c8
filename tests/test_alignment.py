import threading

import numpy as np
import pytest

from robopolicy.alignment import Aligner, align
from robopolicy.errors import ContractError, StaleFrame, UnknownName
from robopolicy.resampling import Rule, captures_ns, thinned_ns, ticks_ns
from robopolicy.rotations import quat_to_matrix

MS = 1_000_000
RULES = {
    "front": Rule("nearest", 0.02, latency_s=0.03),
    "wrist": Rule("nearest", 0.03, latency_s=0.012),
    "q": Rule("interpolate", 0.05, latency_s=0.001),
    "pose": Rule("interpolate", 0.05, quats=(3,)),
    "mode": Rule("before", 5.0),
    "command": Rule("after", 0.2),
}


def streams(seed=0, seconds=3.0):
    """Streams of uneven rates with jitter, gaps and repeated stamps, as header stamps and values."""
    rng = np.random.default_rng(seed)

    def stamps(rate, jitter=0.1):
        base = np.arange(round(seconds * rate)) / rate
        wiggled = np.sort(base + rng.uniform(0, jitter / rate, base.shape))
        return (wiggled * 1e9).astype(np.int64) + 7_000_000_000_000

    front, wrist, q, pose, command = stamps(30), stamps(24), stamps(100), stamps(125), stamps(20)
    q = np.delete(q, slice(120, 135))  # a gap of 0.15 s
    front = np.repeat(front, np.where(np.arange(len(front)) % 7 == 0, 2, 1))  # the driver sent some twice
    quats = np.array([1.0, 0, 0, 0]) + np.cumsum(rng.standard_normal((len(pose), 4)) * 0.2, axis=0)
    quats *= np.where(rng.uniform(size=(len(pose), 1)) < 0.3, -1.0, 1.0)  # either sign is the same rotation
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    return {
        "front": (front, None),
        "wrist": (wrist, None),
        "q": (q, rng.standard_normal((len(q), 7)).astype(np.float32)),
        "pose": (pose, np.concatenate([rng.standard_normal((len(pose), 3)), quats], axis=1)),
        "mode": (stamps(2), None),
        "command": (command, None),
    }


def by_arrival(data):
    """Every sample in the order in which it would arrive, each stream with a delay of its own."""
    delay = {name: 5 * MS * k for k, name in enumerate(data)}
    return sorted(
        (int(stamp) + delay[name], name, row) for name, (stamps, _) in data.items() for row, stamp in enumerate(stamps)
    )


def require_equal(aligner, whole, row):
    """What the aligner says of an instant is what `align` says of it, bit for bit, errors too."""
    reference = int(whole.references_ns[row])
    if row in whole.problems:
        with pytest.raises(StaleFrame) as caught:
            aligner.at(reference)
        assert str(caught.value) == whole.problems[row]
        return
    one = aligner.at(reference)
    for name, table in whole.values.items():
        assert one.values[name].tobytes() == table[row].tobytes(), name
    for name, rows in whole.rows.items():
        assert one.values[name] == rows[row], name
    assert dict(one.stamps_ns) == {name: stamps[row] for name, stamps in whole.stamps_ns.items()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("reference", ["camera", "ticks"])
def test_online_and_offline_say_the_same_bit_for_bit(seed, reference):
    data = streams(seed)
    captured = captures_ns(data["front"][0], RULES["front"])
    instants = captured if reference == "camera" else ticks_ns(int(captured[0]), int(captured[-1]), 50.0)
    whole = align(data, RULES, instants)
    assert 0 < len(whole.problems) < len(instants) / 3, "the gap of q, and the ends"
    aligner, asked = Aligner(RULES), 0
    for _, name, row in by_arrival(data):
        stamps, values = data[name]
        aligner.push(name, stamps[row], row if values is None else values[row])
        while asked < len(instants) and aligner.ready(int(instants[asked])):
            require_equal(aligner, whole, asked)
            asked += 1
    assert asked > 0.6 * len(instants), "the rest would wait for samples that never came"


def test_not_ready_while_a_later_sample_could_change_the_answer():
    aligner = Aligner({"q": Rule("interpolate", 0.1), "cam": Rule("nearest", 0.1)})
    assert not aligner.ready(0)
    aligner.push("q", 0, [0.0])
    aligner.push("cam", 20 * MS, "a")
    assert not aligner.ready(10 * MS), "q has nothing at or after it"
    assert aligner.at(10 * MS).values["q"].tolist() == [0.0], "the newest is held"
    aligner.push("q", 20 * MS, [1.0])
    assert aligner.ready(10 * MS)
    assert aligner.at(10 * MS).values["q"].tolist() == [0.5]


def test_a_rotation_is_interpolated_along_the_shorter_arc():
    def about_z(degrees):
        half = np.radians(degrees) / 2
        return np.array([np.cos(half), 0, 0, np.sin(half)])

    stamps = np.array([0, 100 * MS])
    values = np.stack([np.r_[0.0, 0, 0, about_z(20)], np.r_[1.0, 0, 0, -about_z(80)]])
    rule = Rule("interpolate", 0.2, quats=(3,))
    out = align({"pose": (stamps, values)}, {"pose": rule}, np.arange(0, 101, 25) * MS).values["pose"]
    assert np.allclose(out[:, 0], [0, 0.25, 0.5, 0.75, 1])
    for row, degrees in zip(out, [20, 35, 50, 65, 80], strict=True):
        assert np.allclose(quat_to_matrix(row[3:]), quat_to_matrix(about_z(degrees)), atol=1e-12)
    assert np.allclose(np.linalg.norm(out[:, 3:], axis=1), 1)


def test_equal_rotations_stay():
    quat = np.array([0.5, 0.5, -0.5, 0.5])
    found = align({"r": (np.array([0, 10]), np.stack([quat, quat]))}, {"r": Rule(quats=(0,))}, np.array([3, 7]))
    assert np.allclose(found.values["r"], quat)


@pytest.mark.parametrize(
    ("how", "instant", "want"),
    [
        ("nearest", 14, 10), ("nearest", 15, 10), ("nearest", 16, 20), ("nearest", 20, 20), ("nearest", 2, 10),
        ("before", 19, 10), ("before", 20, 20), ("before", 35, 30), ("before", 9, None),
        ("after", 11, 20), ("after", 20, 20), ("after", 30, 30), ("after", 31, None),
    ],
)  # fmt: skip
def test_which_sample(how, instant, want):
    aligner = Aligner({"s": Rule(how, 1.0)})
    for stamp in (10, 20, 30):
        aligner.push("s", stamp * MS, stamp)
    if want is None:
        with pytest.raises(StaleFrame, match=rf"stream 's' has no sample {how} the instant {instant * MS} ns"):
            aligner.at(instant * MS)
    else:
        found = aligner.at(instant * MS)
        assert found.values["s"] == want
        assert found.stamps_ns["s"] == want * MS


def test_a_latency_is_taken_off_every_stamp():
    rules = {"cam": Rule("nearest", 0.001, latency_s=0.03), "q": Rule("interpolate", 0.1)}
    aligner = Aligner(rules)
    aligner.push("cam", 130 * MS, "picture")
    aligner.push("q", 90 * MS, [9.0])
    aligner.push("q", 110 * MS, [11.0])
    reference = aligner.newest_ns("cam")
    assert reference == 100 * MS
    found = aligner.at(reference)
    assert found.values["q"].tolist() == [10.0]
    assert found.stamps_ns == {"cam": 100 * MS, "q": 100 * MS}


def test_too_old_or_too_far_is_an_error_naming_the_stream():
    aligner = Aligner({"q": Rule("interpolate", 0.05)})
    with pytest.raises(StaleFrame, match=r"stream 'q' has no sample$"):
        aligner.at(0)
    aligner.push("q", 0, [0.0])
    aligner.push("q", 200 * MS, [1.0])
    line = r"stream 'q': the sample it needs is 0.150 s from the instant 50000000 ns; at most 0.05 s is allowed"
    with pytest.raises(StaleFrame, match=line):
        aligner.at(50 * MS)
    assert aligner.at(0).values["q"].tolist() == [0.0], "exactly there: its neighbour does not matter"
    assert aligner.at(240 * MS).values["q"].tolist() == [1.0]


def test_a_stream_that_goes_back_in_time_is_an_error_naming_it():
    line = r"stream 'q' goes back in time: a sample of 5 ns came after one of 9 ns"
    aligner = Aligner({"q": Rule(latency_s=0.5)})
    aligner.push("q", 9, [0.0])
    with pytest.raises(ContractError, match=line):
        aligner.push("q", 5, [0.0])
    with pytest.raises(ContractError, match=line):
        align({"q": (np.array([9, 5]), np.zeros((2, 1)))}, {"q": Rule()}, np.array([0]))
    assert aligner.push("q", 9, [1.0]) is False, "the same sample sent again"


def test_a_vector_that_changes_its_length_is_an_error():
    aligner = Aligner({"q": Rule()})
    aligner.push("q", 1, [0.0, 1.0])
    with pytest.raises(ContractError, match=r"stream 'q': a sample of shape \(3,\), after \(2,\)"):
        aligner.push("q", 2, [0.0, 1.0, 2.0])


def test_what_was_pushed_is_not_aliased():
    buffer = np.zeros(2)
    aligner = Aligner({"q": Rule()})
    aligner.push("q", 1, buffer)
    buffer[:] = 9
    assert aligner.at(1).values["q"].tolist() == [0, 0]


def test_memory_is_bounded_and_the_past_is_refused():
    aligner = Aligner({"q": Rule("interpolate", 0.1), "slow": Rule("before", 1e4)}, keep_s=0.5)
    aligner.push("slow", 0, "x")
    for k in range(20_000):
        aligner.push("q", k * MS, [k])
    track = aligner._tracks["q"]
    assert len(track.values) == track.end - track.start <= 502
    assert len(track.stamps) < 2_000
    assert aligner.at(19_900 * MS).values["q"].tolist() == [19_900]
    with pytest.raises(StaleFrame, match="is kept from 19499000000 ns on"):
        aligner.at(1_000 * MS)
    aligner.clear()
    assert aligner.newest_ns("q") is None


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(UnknownName, match="no stream 'qq'; valid: q"):
        Aligner({"q": Rule()}).push("qq", 0, [0])
    with pytest.raises(UnknownName, match="no way to align 'lerp'; valid: after, before, interpolate, nearest"):
        Rule("lerp")
    with pytest.raises(ContractError, match="the age above 0"):
        Rule(max_age_s=0)


def test_ticks_include_both_ends_and_do_not_drift():
    assert ticks_ns(5, 5 + 100 * MS, 30.0).tolist() == [5, 5 + 33_333_333, 5 + 66_666_667, 5 + 100 * MS]
    assert ticks_ns(0, 3_600_000_000_000, 30.0)[-1] == 3_600_000_000_000
    assert len(ticks_ns(10, 0, 30.0)) == 0


def test_thinning_takes_each_instant_once():
    rng = np.random.default_rng(0)
    stamps = np.sort(np.arange(90) * 33_333_333 + rng.integers(0, 5 * MS, 90))
    kept = thinned_ns(stamps, 10.0)
    assert set(kept) <= set(stamps)
    assert len(kept) == 30
    assert np.abs(np.diff(kept) - 100 * MS).max() <= 40 * MS
    assert thinned_ns(stamps, 1000.0).tolist() == stamps.tolist(), "a higher rate adds nothing"


def test_pushing_and_asking_from_two_threads():
    aligner = Aligner({"q": Rule("interpolate", 0.1)}, keep_s=10.0)
    aligner.push("q", 0, [0.0, 0.0])

    def feed():
        for k in range(1, 5000):
            aligner.push("q", k * MS, [k, k])

    thread = threading.Thread(target=feed)
    thread.start()
    while thread.is_alive():
        newest = aligner.newest_ns("q")
        found = aligner.at(newest).values["q"]
        assert found.tolist() == [newest / MS, newest / MS]
    thread.join()
