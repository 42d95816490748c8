"""A loader at work: its memory, its threads, Ctrl-C, damage, and what it refuses."""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from batches import SIZE, make, require_equal
from recordings import META, SPEC, length, make_step, record

from robopolicy.errors import ContractError, DatasetError
from robopolicy.spec import CameraSpec
from robopolicy_data.frames import JpegFrames
from robopolicy_data.loader import Loader
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make(tmp_path_factory.mktemp("loader") / "a.zarr", range(6))


def test_after_its_end_a_loader_gives_nothing_and_has_no_threads(path):
    before = threading.active_count()
    for prefetch in (0, 2):
        loader = Loader(path, **SIZE, cache="disk", threads=2, prefetch=prefetch)
        loader.batch(0)
        assert threading.active_count() > before
        loader.close()
        loader.close()
        assert threading.active_count() == before
        with pytest.raises(ContractError, match="it is closed"):
            loader.batch(1)


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 0), (2, 0), (2, 2)])
def test_ctrl_c_in_the_middle_of_a_batch_harms_no_other(path, threads, prefetch, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    def unraisable(event):
        """Python itself drops an interrupt that lands in a weakref's callback: that batch is simply whole."""
        if event.exc_type is not KeyboardInterrupt:
            said(event)

    said = sys.unraisablehook
    monkeypatch.setattr(sys, "unraisablehook", unraisable)

    def decode(self, data, out):
        time.sleep(0.002)
        real(self, data, out)

    real, previous = JpegFrames.decode, signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    options = {**SIZE, "cache": "compressed"}
    with Loader(path, **options) as straight, Loader(path, **options, threads=threads, prefetch=prefetch) as loader:
        JpegFrames.decode = decode
        try:
            for step in range(8):
                signal.setitimer(signal.ITIMER_REAL, 0.004 + 0.002 * step)
                try:
                    loader.batch(step)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                require_equal(loader.batch(step), straight.batch(step))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            JpegFrames.decode = real
            signal.signal(signal.SIGALRM, previous)
    assert interrupted


def test_memory_is_planned_said_and_bounded(path):
    lines = []
    pixels = sum(length(seed) for seed in range(6)) * 3 * (24 * 32 + 16 * 16)
    with Loader([path], **SIZE, say=lines.append, memory_limit_gb=0.01) as loader:
        assert loader.plan.cache == "decoded"
        assert loader.plan.pictures == pixels == sum(p.array.nbytes for p in loader._pictures.values())
        slots = 3 * (8 * 2 * 3 * (24 * 32 + 16 * 16) + 4 * 8 * (2 * 4 + 4 * 2) + 8 * 6)
        assert loader.plan.batches == slots, "two made ahead and the one in use"
    assert lines == ["6 episodes, 39 windows; " + str(loader.plan)]
    assert "MB of at most 10" in lines[0] or "of at most 10 MB" in lines[0]
    needed = loader.plan.batches + loader.plan.numbers
    with Loader([path], **SIZE, memory_limit_gb=(needed + pixels - 1) / 1e9) as loader:
        assert loader.plan.cache == "compressed"
    with Loader([path], **SIZE, memory_limit_gb=needed / 1e9) as loader:
        assert loader.plan.cache == "disk"
    with pytest.raises(ContractError, match="raise the limit or use compressed or disk"):
        Loader([path], **SIZE, memory_limit_gb=(needed + pixels - 1) / 1e9, cache="decoded")
    with pytest.raises(ContractError, match="raise the limit, or make batch_size or prefetch smaller"):
        Loader([path], **SIZE, memory_limit_gb=(needed - 1) / 1e9)
    for limit in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ContractError, match="want a number above 0"):
            Loader([path], **SIZE, memory_limit_gb=limit)
    with pytest.raises(ContractError, match="want one of auto, decoded, compressed, disk"):
        Loader([path], **SIZE, cache="ram")


@pytest.mark.slow
def test_resident_memory_is_what_the_plan_says(tmp_path):
    """A process of its own for each cache: the peak is the plan, and what decoding threads need in passing."""
    spec = replace(SPEC, cameras={"front": CameraSpec(240, 320)})
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "d", spec, lossless=True) as writer:
        for _ in range(4):
            episode = writer.begin(META)
            for k in range(150):
                episode.add(make_step(k, rng, spec=spec))
            episode.commit()
    child = (
        "import sys; from robopolicy_data.loader import Loader; from robopolicy_data.reader import Dataset\n"
        "def mb(key): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith(key)) / 1e3\n"
        "Dataset(sys.argv[1])[0].frames('front', [0]); before = mb('VmRSS')\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "with Loader(sys.argv[1], n_obs=2, horizon=4, batch_size=32, cache=sys.argv[2], threads=2) as loader:\n"
        "    for step in range(20): loader.batch(step)\n"
        "    print(loader.plan.total / 1e6, mb('VmHWM') - before)\n"
    )
    for cache in ("decoded", "compressed", "disk"):
        done = subprocess.run(
            [sys.executable, "-c", child, tmp_path / "d", cache], check=True, capture_output=True, text=True
        )
        plan, added = map(float, done.stdout.split())
        assert 0.8 * plan - 5 < added < plan + 40, cache


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("cache", ["decoded", "compressed", "disk"])
def test_a_damaged_picture_is_named_and_the_rest_goes_on(tmp_path, cache, prefetch):
    make(tmp_path / "d", [3, 4])
    shard = tmp_path / "d/episodes/000001/obs/cam/front/c.0.0.0.0"
    data = bytearray(shard.read_bytes())
    at = int(Dataset(tmp_path / "d")[1].shard("front")[0].index[2, 0]) + 20
    data[at] ^= 8
    shard.write_bytes(data)
    options = {"n_obs": 1, "horizon": 1, "batch_size": 1, "cache": cache, "threads": 2, "prefetch": prefetch}
    if cache != "disk":
        with pytest.raises(DatasetError, match="episode 1, camera front, frame 2 is damaged"):
            Loader([tmp_path / "d"], **options)
        return
    with Loader([tmp_path / "d"], **options) as loader:
        failed = []
        for step in range(len(loader)):
            try:
                loader.batch(step)
            except DatasetError as error:
                failed.append(str(error))
        assert failed == [f"{tmp_path / 'd'}: episode 1, camera front, frame 2 is damaged (CRC-32C)"]


@pytest.mark.parametrize("stream", ["state q", "action"])
def test_a_number_that_is_none_is_named(tmp_path, stream):
    make(tmp_path / "a", [1])
    with DatasetWriter(tmp_path / "b", SPEC) as writer:
        record(writer, 2)
        episode = writer.begin(META)
        for k in range(4):
            step = make_step(k, np.random.default_rng(0))
            values = step.sent if stream == "action" else step.observation.state["q"]
            values[1] = np.inf if k == 3 else 0
            episode.add(step)
        episode.commit()
    with pytest.raises(DatasetError, match=rf"b: episode 1: {stream} holds NaN or infinity at step 3; trim or delete"):
        Loader([tmp_path / "a", tmp_path / "b"], **SIZE)
    with Loader([tmp_path / "a", tmp_path / "b"], **SIZE, keep=lambda e: e.number == 0) as loader:
        assert len(loader) == length(1) + length(2)


def test_settings_that_make_no_sense_are_refused(path):
    for wrong, message in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"every": 0}, "every is 0"),
        ({"horizon": 0}, "horizon 0"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"threads": 0}, "threads is 0"),
        ({"world": 1000}, "39 windows are left; want at least 1000"),
        ({"sizes": {"front": (1,)}}, "camera front: cannot be decoded to 1; want at most 24x32"),
    ):
        with pytest.raises(ContractError, match=message):
            Loader([path], **{**SIZE, **wrong})
    with pytest.raises(DatasetError, match="no dataset to load from"):
        Loader([], **SIZE)
