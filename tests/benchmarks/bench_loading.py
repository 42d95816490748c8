"""What random training windows cost, CPU ms a sample, in one process: decoded and compressed, beside a plain gather.

python tests/benchmarks/bench_loading.py [--peer DIFFUSION_POLICY_CHECKOUT] [--batches 30] [--rounds 5]

A sample is 2 frames of 2 cameras 240x320, 2 states and 16 actions; batches of 64. The peer is diffusion_policy's
SequenceSampler on the same decoded uint8 arrays in memory, with torch's collation as its training has it. Run in
turns, the median of the rounds; process_time counts every thread.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from robopolicy.spec import CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.loader import Loader
from robopolicy_data.writer import DatasetWriter

HEIGHT, WIDTH, N_OBS, HORIZON, BATCH = 240, 320, 2, 16, 64
SPEC = PolicySpec(
    cameras={"front": CameraSpec(HEIGHT, WIDTH), "wrist": CameraSpec(HEIGHT, WIDTH)},
    state={"q": StateSpec(7, ("rad",)), "tool_pos": StateSpec(3, ("m",))},
    rate_hz=30.0,
)


def make_dataset(path: Path, episodes: int, steps: int) -> None:
    """Record pictures with edges, gradients and a little noise, 22 KB at quality 90 as a camera's are."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    noise = rng.normal(0, 4, (16, HEIGHT, WIDTH, 3))
    with DatasetWriter(path, SPEC) as writer:
        for number in range(episodes):
            episode = writer.begin(EpisodeMeta("bench", "none", seed=number))
            for k in range(steps):
                stamp = k * SPEC.period_ns
                images = {}
                for i, name in enumerate(SPEC.cameras):
                    waves = 128 + 60 * np.sin(rows / 17 + (k + i) / 5) + 50 * np.sign(np.sin(columns / 23 - k / 9))
                    images[name] = np.clip(waves[..., None] + noise[rng.integers(16)], 0, 255).astype(np.uint8)
                state = {name: rng.random(part.dim, np.float32) for name, part in SPEC.state.items()}
                seen = Observation(stamp, state, images, dict.fromkeys(images, stamp))
                episode.add(Step(seen, rng.random(10, np.float32), stamp, "policy"))
            episode.commit()


def ms_per_sample(make: Callable[[int], object], batches: int, first: int = 0, batch_size: int = BATCH) -> float:
    """Return CPU ms a sample of ``make(step)`` over so many batches."""
    began = time.process_time()
    for step in range(first, first + batches):
        make(step)
    return (time.process_time() - began) * 1e3 / (batches * batch_size)


def compressed_ms_per_sample(
    path: Path | str,
    *,
    n_obs: int = N_OBS,
    horizon: int = HORIZON,
    batch_size: int = BATCH,
    batches: int = 20,
    cache: str = "compressed",
    threads: int = 1,
    cameras: tuple[str, ...] | None = None,
) -> float:
    """Return CPU ms a sample of random windows of a dataset, decoded from compressed pictures; 3 batches warm up."""
    with Loader(
        [path], n_obs=n_obs, horizon=horizon, batch_size=batch_size, cache=cache, threads=threads, cameras=cameras,
        prefetch=0,
    ) as loader:  # fmt: skip
        ms_per_sample(loader.batch, 3)
        return ms_per_sample(loader.batch, batches, 3, loader.batch_size)


def plain_gather(loader: Loader, arrays: object) -> Callable[[int], object]:
    """Return what any numpy user would write: the same rows of the same arrays into preallocated buffers."""
    out = {name: np.empty((BATCH, N_OBS, *image.shape[1:]), image.dtype) for name, image in arrays.images.items()}
    low = {name: np.empty((BATCH, N_OBS, values.shape[1]), np.float32) for name, values in arrays.state.items()}
    action = np.empty((BATCH, HORIZON, arrays.action.shape[1]), np.float32)
    drawn = [loader._windows.rows(loader._mixture.draw(step)) for step in range(1000)]

    def gather(step: int) -> object:
        rows = drawn[step % len(drawn)]
        for name, image in arrays.images.items():
            np.take(image, rows.obs, axis=0, out=out[name], mode="clip")
        for name, values in arrays.state.items():
            np.take(values, rows.obs, axis=0, out=low[name], mode="clip")
        np.take(arrays.action, rows.action, axis=0, out=action, mode="clip")
        return out

    return gather


def own_ms_per_sample(loader: Loader) -> float:
    """Return what a decoded batch costs beside moving its bytes: drawing windows, their rows, cutting up the work."""

    def prepare(step: int) -> object:
        rows = loader._windows.rows(loader._mixture.draw(step))
        slot = loader._slots[0] if loader._slots else loader._lent
        for name, pictures in loader._pictures.items():
            out = slot["images"][name]
            pictures.tasks(loader.arrays.seen[name][rows.obs].reshape(-1), out.reshape(-1, *out.shape[2:]), 1)
        return rows

    return ms_per_sample(prepare, 200)


def fancy_gather(loader: Loader, arrays: object) -> Callable[[int], object]:
    """Return the same by fancy indexing, ``out[...] = array[rows]``."""
    out = {name: np.empty((BATCH, N_OBS, *image.shape[1:]), image.dtype) for name, image in arrays.images.items()}
    drawn = [loader._windows.rows(loader._mixture.draw(step)) for step in range(1000)]

    def gather(step: int) -> object:
        rows = drawn[step % len(drawn)]
        for name, image in arrays.images.items():
            out[name][...] = image[rows.obs]
        return out, {k: v[rows.obs] for k, v in arrays.state.items()}, arrays.action[rows.action]

    return gather


def peer_sampler(checkout: Path, arrays: object, *, first_k: bool) -> Callable[[int], object]:
    """Return a collated batch of the peer's samples of the same arrays; ``first_k`` as its real-robot data sets ask.

    Without it a sample within an episode is a view, copied by the collation alone: the best the peer can do.
    """
    sys.path.insert(0, str(checkout))
    warnings.filterwarnings("ignore", "invalid value encountered in cast")  # its NaN in uint8
    from diffusion_policy.common.replay_buffer import ReplayBuffer
    from diffusion_policy.common.sampler import SequenceSampler
    from torch.utils.data import default_collate

    data = {**arrays.images, **arrays.state, "action": arrays.action}
    buffer = ReplayBuffer({"data": data, "meta": {"episode_ends": arrays.episode_ends}})
    sampler = SequenceSampler(
        buffer, HORIZON, pad_before=N_OBS - 1, pad_after=HORIZON - N_OBS,
        key_first_k=dict.fromkeys([*arrays.images, *arrays.state], N_OBS) if first_k else {},
    )  # fmt: skip
    order = np.random.default_rng(0)

    def batch(step: int) -> object:
        found = [sampler.sample_sequence(i) for i in order.integers(0, len(sampler), BATCH).tolist()]
        return default_collate([{k: v if k == "action" else v[:N_OBS] for k, v in one.items()} for one in found])

    return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="a checkout of diffusion_policy; needs numba and torch")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.zarr"
        make_dataset(path, args.episodes, args.steps)
        for threads in (1, 2):
            for cache in ("compressed", "disk"):
                cost = compressed_ms_per_sample(path, batches=args.batches, cache=cache, threads=threads)
                print(f"{cache:12} {threads} thread(s)   {cost:8.3f} CPU ms a sample", flush=True)
        loader = Loader([path], n_obs=N_OBS, horizon=HORIZON, batch_size=BATCH, cache="decoded", threads=1, prefetch=0)
        images = {name: pictures.array for name, pictures in loader._pictures.items()}
        arrays = replace(loader.arrays, images=images)  # the same memory for all
        makers = {"decoded": loader.batch, "plain gather": plain_gather(loader, arrays)}
        makers["fancy gather"] = fancy_gather(loader, arrays)
        if args.peer is None:
            print("no --peer: diffusion_policy's sampler is left out")
        else:
            makers["peer, views"] = peer_sampler(args.peer, arrays, first_k=False)
            makers["peer, key_first_k"] = peer_sampler(args.peer, arrays, first_k=True)
        took: dict[str, list[float]] = {name: [] for name in makers}
        for make in makers.values():
            ms_per_sample(make, 3)
        for turn in range(args.rounds):
            for name, make in makers.items():
                took[name].append(ms_per_sample(make, args.batches, turn * args.batches))
        median = {name: float(np.median(each)) for name, each in took.items()}
        for name, cost in median.items():
            ratio = float(np.median(np.divide(took[name], took["decoded"])))  # of the same turns
            print(f"{name:26} {cost:8.3f} CPU ms a sample   {ratio:6.2f} x decoded")
        print(f"decoded, but for its gather {own_ms_per_sample(loader):8.3f} CPU ms a sample")


if __name__ == "__main__":
    main()
