"""Batches: the same in every cache, order, mixture, padding, marks."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from batches import SIZE, copied, make, require_equal, slow_camera
from recordings import SPEC, length, record

from robopolicy.errors import ContractError, DatasetError, SpecMismatch, UnknownCamera
from robopolicy.spec import CameraSpec
from robopolicy_data.arrays import decode_arrays
from robopolicy_data.derived import write_derived
from robopolicy_data.loader import Loader
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import WindowSampler, load_arrays
from robopolicy_data.writer import DatasetWriter

KINDS = [
    (cache, threads, prefetch)
    for cache in ("decoded", "compressed", "disk")
    for threads in (1, 3)
    for prefetch in (0, 2)
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make(tmp_path_factory.mktemp("loader") / "a.zarr", range(6))


@pytest.mark.parametrize(("cache", "threads", "prefetch"), KINDS)
def test_every_cache_gives_the_windows_of_the_sampler(path, cache, threads, prefetch):
    dataset = Dataset(path)
    sampler = WindowSampler(load_arrays(dataset), 2, 4, past=3)
    order = np.concatenate([np.random.default_rng([3, epoch]).permutation(len(sampler)) for epoch in (0, 1)])
    per_epoch = len(sampler) // 8
    with Loader([dataset], **SIZE, past=3, seed=3, cache=cache, threads=threads, prefetch=prefetch) as loader:
        assert len(loader) == len(sampler) == sum(length(seed) for seed in range(6))
        for step in range(2 * per_epoch):
            epoch, k = divmod(step, per_epoch)
            ids = order[epoch * len(sampler) :][k * 8 : (k + 1) * 8]
            require_equal(loader.batch(step), sampler.batch(ids))


def test_a_batch_depends_on_seed_and_step_alone(path):
    with Loader([path], **SIZE, seed=1) as straight, Loader([path], **SIZE, seed=1, cache="disk") as jumping:
        want = [copied(straight.batch(step)) for step in range(9)]
        for step in (5, 6, 7, 0, 8, 8, 2):
            require_equal(jumping.batch(step), want[step])
    with Loader([path], **SIZE, seed=2) as other:
        assert not np.array_equal(other.batch(0)["action"], want[0]["action"])


def test_the_arrays_are_the_callers_until_the_next_batch(path):
    with Loader([path], **SIZE, cache="compressed") as loader:
        batch = loader.batch(0)
        kept = copied(batch)
        for _ in range(3):  # whatever is made ahead meanwhile is made elsewhere
            loader._ahead[-1][2].result()
            require_equal(batch, kept)
        assert loader.batch(1)["action"] is not batch["action"]


@pytest.mark.parametrize("weights", [None, (1, 3)])
@pytest.mark.parametrize("goal", [None, "end", "future"])
def test_processes_share_an_epoch(path, goal, weights):
    data = [path] if weights is None else [path, path]
    ask = {"n_obs": 2, "horizon": 3, "past": 1, "goal": goal, "weights": weights}
    loaders = [Loader(data, **ask, batch_size=5, rank=rank, world=3) for rank in range(3)]
    alone = Loader(data, **ask, batch_size=15)
    for step in range(len(alone) // 15):
        whole = alone.batch(step)
        for rank, loader in enumerate(loaders):
            mine = dict(leaves(loader.batch(step)))
            assert mine.keys() == dict(leaves(whole)).keys()
            for name, array in leaves(whole):
                assert np.array_equal(mine[name], array[rank::3]), name
    for loader in (*loaders, alone):
        loader.close()


def leaves(batch, place=()):
    """Yield the place and the array of everything in a batch."""
    for name, part in batch.items():
        yield from leaves(part, (*place, name)) if isinstance(part, dict) else [((*place, name), part)]


def test_a_mixture_draws_by_weight_and_says_what_does_not_fit(path, tmp_path):
    make(tmp_path / "b.zarr", [20])
    mine = Dataset(tmp_path / "b.zarr")[0].action()
    with Loader([path, tmp_path / "b.zarr"], n_obs=1, horizon=1, batch_size=400, weights=(1, 3)) as loader:
        first, second = copied(loader.batch(0))["action"], loader.batch(1)["action"]
        share = np.isin(first[:, 0, 0], mine[:, 0]).mean()
        assert 0.68 < share < 0.82, "three quarters, give or take three standard deviations"
        assert not np.array_equal(first, second)
    with Loader([path, tmp_path / "b.zarr"], n_obs=1, horizon=1, batch_size=10_000) as loader:
        assert loader.batch_size == len(loader), "without weights each window comes once"
        assert len(np.unique(loader.batch(0)["action"][:, 0, 0])) == len(loader)
    for weights in ((1,), (1, -1), (0, 0), (1, float("nan"))):
        with pytest.raises(ContractError, match=r"weights .* for 2 datasets: want one each"):
            Loader([path, tmp_path / "b.zarr"], **SIZE, weights=weights)


def test_datasets_of_different_robots_do_not_mix(path, tmp_path):
    other = replace(SPEC, rate_hz=10.0, cameras={**SPEC.cameras, "wrist": CameraSpec(8, 8)})
    DatasetWriter(tmp_path / "b.zarr", other).close()
    with pytest.raises(
        SpecMismatch, match=r"camera wrist: .*a\.zarr has 16x16, .*b\.zarr has 8x8; rate: .*20 Hz.*10 Hz"
    ):
        Loader([path, tmp_path / "b.zarr"], **SIZE)
    with pytest.raises(SpecMismatch, match="rate"):
        Loader([path, tmp_path / "b.zarr"], **SIZE, cameras=("front",))


def test_only_what_is_asked_for_is_there(path):
    with Loader([path], **SIZE, cameras=("wrist",), states=("gripper",)) as loader:
        batch = loader.batch(0)
        assert (list(batch["images"]), list(batch["state"])) == (["wrist"], ["gripper"])
        assert loader.spec == replace(SPEC.select(("wrist",), ("gripper",)), n_obs=2, horizon=4)
    with pytest.raises(UnknownCamera, match="valid: front, wrist"):
        Loader([path], **SIZE, cameras=("top",))


def test_failures_are_left_out_unless_asked_for(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC) as writer:
        for seed, success in enumerate((True, False, None)):
            record(writer, seed, success=success)
    with Loader([tmp_path / "d"], **SIZE) as some, Loader([tmp_path / "d"], **SIZE, keep=lambda episode: True) as every:
        assert (len(some), len(every)) == (length(0) + length(2), length(0) + length(1) + length(2))
    with pytest.raises(DatasetError, match="no episode to load of 3"):
        Loader([tmp_path / "d"], **SIZE, keep=lambda episode: False)


def test_every_nth_row_makes_a_slower_policy(path):
    episode = Dataset(path)[5]
    with Loader([path], n_obs=2, horizon=3, batch_size=1, every=3, keep=lambda e: e.number == 5, prefetch=0) as loader:
        assert loader.spec.rate_hz == SPEC.rate_hz / 3
        found = {}
        for step in range(len(loader)):
            batch = copied(loader.batch(step))
            now = int(np.flatnonzero(episode.action()[:, 0] == batch["action"][0, 0, 0])[0])
            found[now] = batch
    last = episode.length - 1
    assert sorted(found) == list(range(episode.length)), "each phase is used"
    for now, batch in found.items():
        seen, acted = [max(now - 3, 0), now], [min(now + 3 * k, last) for k in range(3)]
        assert np.array_equal(batch["state"]["q"][0], episode.state("q")[seen])
        assert np.array_equal(batch["images"]["front"][0], episode.images("front", seen))
        assert np.array_equal(batch["action"][0], episode.action()[acted])
        assert batch["padded_obs"][0].tolist() == [now < 3, False]
        assert batch["padded_action"][0].tolist() == [now + 3 * k > last for k in range(3)]


def test_steps_of_deltas_cannot_be_thinned(tmp_path):
    spec = replace(SPEC, action=replace(SPEC.action, kind="tool_delta"))
    make(tmp_path / "d", [1], spec=spec)
    with pytest.raises(ContractError, match="cannot be thinned"):
        Loader([tmp_path / "d"], **SIZE, every=2)


def test_marked_rows_are_no_windows_and_end_the_actions(tmp_path):
    make(tmp_path / "d", [6, 6])
    with pytest.raises(DatasetError, match=r"episode 0 has no marks 'idle'; .*robopolicy data quality"):
        Loader([tmp_path / "d"], **SIZE, skip=("idle",))
    total = length(6)
    for number in (0, 1):
        marks = np.zeros(total, bool)
        marks[4:6] = number == 0
        write_derived(tmp_path / "d", number, "quality@1", {"idle": marks})
    episode = Dataset(tmp_path / "d")[0]
    with Loader([tmp_path / "d"], n_obs=1, horizon=3, batch_size=1, skip=("idle",), prefetch=0) as loader:
        assert len(loader) == 2 * total - 2
        for step in range(len(loader)):
            batch = loader.batch(step)
            places = np.flatnonzero(episode.action()[:, 0] == batch["action"][0, 0, 0])
            now, played = int(places[0]), batch["action"][0]
            if batch["padded_action"][0].tolist() == [False, False, True] and now == 2:
                assert np.array_equal(played, episode.action()[[2, 3, 3]]), "the last action before the mark stays"
                break
        else:
            pytest.fail("no window runs into the mark")
    with Loader([tmp_path / "d"], **SIZE, skip=("quality@1/idle",)) as loader:
        assert len(loader) == 2 * total - 2


@pytest.mark.parametrize("cache", ["decoded", "compressed", "disk"])
def test_any_windows_are_what_their_definition_says(tmp_path, cache, monkeypatch):
    """Slow cameras, thinned rows, marks at either end, weights: each window against the episodes themselves."""
    monkeypatch.setattr("robopolicy_data.cache._RUN_BYTES", 700)  # several reads an episode
    rng = np.random.default_rng(5)
    paths = [slow_camera(tmp_path / name) for name in ("a", "b")]
    marks = []
    for path in paths:
        for number in (0, 1):
            marks.append(rng.random(13) < 0.3)
            marks[-1][[0, -1]] = True
            write_derived(path, number, "t@1", {"bad": marks[-1]})
    episodes = [episode for path in paths for episode in Dataset(path)]
    seen = 0
    for every, n_obs, horizon in ((1, 1, 1), (2, 3, 4), (5, 2, 3), (20, 2, 2)):
        with Loader(
            paths, n_obs=n_obs, horizon=horizon, batch_size=16, every=every, skip=["t@1/bad"], weights=[1, 2],
            cache=cache, threads=2,
        ) as loader:  # fmt: skip
            assert len(loader) == sum((~each).sum() for each in marks)
            for step in (0, 1, 7):
                ids = loader._mixture.draw(step)
                batch = loader.batch(step)
                for i, row in enumerate(loader._windows.now[ids].tolist()):
                    owner, t = divmod(row, 13)
                    episode, marked = episodes[owner], marks[owner]
                    assert not marked[t]
                    stop = next((k for k in range(t, 13) if marked[k]), 13)
                    obs = [t + k * every for k in range(1 - n_obs, 1)]
                    acted = [t + k * every for k in range(horizon)]
                    rows = [max(k, 0) for k in obs]
                    assert batch["padded_obs"][i].tolist() == [k < 0 for k in obs]
                    assert batch["padded_action"][i].tolist() == [k >= stop for k in acted]
                    assert np.array_equal(batch["action"][i], episode.action()[[min(k, stop - 1) for k in acted]])
                    assert np.array_equal(batch["state"]["q"][i], episode.state("q")[rows])
                    for camera in ("slow", "far"):
                        assert np.array_equal(batch["images"][camera][i], episode.images(camera, rows))
                    seen += 1
    assert seen == 4 * 3 * 16


@pytest.mark.parametrize("cache", ["decoded", "compressed", "disk"])
def test_cameras_at_their_own_rate_and_depth(tmp_path, cache):
    dataset = Dataset(slow_camera(tmp_path / "d"))
    assert dataset[0].frame_count("slow") == 4
    sampler = WindowSampler(load_arrays(dataset), 2, 2)
    assert len(sampler.arrays.images["slow"]) == 8, "a picture is in memory once, however many steps saw it"
    with Loader([dataset], n_obs=2, horizon=2, batch_size=26, cache=cache, threads=2) as loader:
        batch = loader.batch(0)
        order = np.random.default_rng([0, 0]).permutation(26)
        require_equal(batch, sampler.batch(order))
        for i, window in enumerate(order.tolist()):
            episode, t = dataset[window // 13], window % 13
            for camera in ("slow", "far"):
                assert np.array_equal(batch["images"][camera][i], episode.images(camera, [max(t - 1, 0), t]))


def test_pictures_can_be_decoded_smaller(path, tmp_path):
    full = load_arrays(Dataset(path), cameras=("front",)).images["front"].astype(int)
    for cache in ("decoded", "compressed"):
        with Loader([path], **SIZE, cameras=("front",), sizes={"front": (12, 16)}, cache=cache) as loader:
            assert loader.spec.cameras["front"] == CameraSpec(12, 16)
            batch = loader.batch(0)["images"]["front"]
            assert batch.shape == (8, 2, 12, 16, 3)
            rows = np.random.default_rng([0, 0]).permutation(len(loader))[:8]
            means = full[rows].reshape(8, 12, 2, 16, 2, 3).mean((2, 4))
            assert np.abs(batch[:, -1] - means).mean() < 4
    with pytest.raises(ContractError, match=r"cannot be decoded to 25x10; want at most 24x32"):
        Loader([path], **SIZE, sizes={"front": (25, 10)})


@pytest.mark.parametrize("size", [(12, 16), (10, 10), (24, 9)])
def test_pictures_become_any_smaller_size_by_area(path, tmp_path, size):
    cv2 = pytest.importorskip("cv2")
    make(tmp_path / "exact", [1], lossless=True)
    for data, off in ((tmp_path / "exact", 0.2), (path, 4.0)):  # rounding; JPEG's own scaling is not quite the mean
        full = load_arrays(Dataset(data), cameras=("front",)).images["front"]
        want = np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_AREA) for one in full])
        loads = {"n_obs": 1, "horizon": 2, "batch_size": 4, "cameras": ("front",), "sizes": {"front": size}}
        for cache in ("decoded", "compressed", "disk"):
            with Loader([data], **loads, cache=cache) as loader:
                rows = np.random.default_rng([0, 0]).permutation(len(loader))[:4]
                made = loader.batch(0)["images"]["front"][:, 0].astype(int)
                assert np.abs(made - want[rows]).mean() < off
        arrays = decode_arrays(list(Dataset(data)), Dataset(data).spec.select(("front",)), sizes={"front": size})
        assert np.array_equal(arrays.images["front"][rows], made), "in memory as from a loader"
