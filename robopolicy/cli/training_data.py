"""What `robopolicy train` learns from: episodes of one dataset or a mixture, on the device or from a loader."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from robopolicy.errors import UsageError
from robopolicy.spec import PolicySpec

CACHES = ("auto", "decoded", "compressed", "disk")


@dataclass(frozen=True)
class DataChoice:
    """Which data, and how they are read.

    Raises:
        UsageError: if weights and datasets are not one each, or one of them is named twice.
    """

    paths: tuple[Path | str, ...]
    weights: tuple[float, ...] | None = None  # share of each dataset in the samples
    cache: str = "auto"  # on the device if it fits, else what fits of decoded, compressed, disk
    skip: tuple[str, ...] = ()  # marks of steps to leave out
    every: int = 1  # rows of the data a step of the policy

    @classmethod
    def of_run(cls, out: Path, **given: Any) -> "DataChoice":
        """Return that of the run in ``out``, as its train.json tells it, with what is ``given``.

        Raises:
            CheckpointError: if there is nothing to resume.
            UsageError: if the run does not tell its data, or they are not there any more.
        """
        from robopolicy.training.checkpoint import read_train
        from robopolicy.training.resume import read_cursor

        read_cursor(out)
        told = read_train(out).get("data", {})
        paths = told.get("path")
        if not paths:
            raise UsageError(f"the run in {out} does not tell its data; say where they are: --data")
        paths = (paths,) if isinstance(paths, str) else tuple(paths)
        if gone := [path for path in paths if "://" not in path and not Path(path).exists()]:
            raise UsageError(f"{gone[0]}, of which the run in {out} learns, is not there; say where it is: --data")
        held = {name: tuple(told[name]) for name in ("weights", "skip") if name in told}
        return cls(paths, **{**held, "every": told.get("every", 1), **given})

    def __post_init__(self) -> None:
        places = [str(path) if "://" in str(path) else str(Path(path).resolve()) for path in self.paths]
        if twice := [path for k, path in enumerate(self.paths) if places[k] in places[:k]]:
            raise UsageError(f"--data names {twice[0]} twice; want each once, with --weights where its share matters")
        if self.weights is not None and len(self.weights) != len(self.paths):
            raise UsageError(f"--weights {len(self.weights)} for {len(self.paths)} datasets; give one each")
        if self.cache not in CACHES:
            raise UsageError(f"--cache is {self.cache!r}; want one of {', '.join(CACHES)}")

    @property
    def about(self) -> dict[str, Any]:
        """What train.json tells of the data."""
        paths = [str(path) for path in self.paths]
        told: dict[str, Any] = {"path": paths[0] if len(paths) == 1 else paths}
        if self.weights is not None:
            told["weights"] = list(self.weights)
        if self.skip:
            told["skip"] = list(self.skip)
        return told if self.every == 1 else {**told, "every": self.every}


@dataclass(frozen=True)
class OpenData:
    """Datasets that fit together, and the episodes to learn from."""

    choice: DataChoice
    datasets: Sequence[Any]  # robopolicy_data.reader.Dataset
    episodes: Sequence[Any]  # those that did not fail
    recorded: PolicySpec  # chosen cameras and states, as recorded
    spec: PolicySpec  # at the rate of the policy

    @property
    def rows(self) -> int:
        """Rows of all episodes: about as many windows can be cut."""
        return sum(int(episode.length) for episode in self.episodes)

    @property
    def lengths(self) -> list[int]:
        """Steps of each episode, at the rate of the policy."""
        return [math.ceil(int(episode.length) / self.choice.every) for episode in self.episodes]


def open_data(choice: DataChoice, cameras: tuple[str, ...], states: tuple[str, ...] | None) -> OpenData:
    """Open the datasets, read nothing.

    Raises:
        UsageError: if nothing in them succeeded.
        SpecMismatch: if they differ; both sides printed.
        ContractError: if the actions cannot be taken every n-th row.
    """
    from robopolicy_data.mixture import not_failed, require_same_spec, thinned
    from robopolicy_data.reader import Dataset

    datasets = [Dataset(path) for path in choice.paths]
    recorded = require_same_spec(datasets, cameras, states)
    episodes = [episode for dataset in datasets for episode in dataset if not_failed(episode)]
    if not episodes:
        names = ", ".join(str(path) for path in choice.paths)
        count = sum(len(dataset) for dataset in datasets)
        raise UsageError(f"{names} holds no episode to train from ({count} recorded, all failures)")
    return OpenData(choice, datasets, episodes, recorded, thinned(recorded, choice.every))


def load_windows(
    data: OpenData,
    spec: PolicySpec,
    *,
    batch_size: int,
    seed: int,
    device: str,
    past: int = 0,
    goal: str | None = None,
    encoder: Any = None,
    sizes: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> Any:
    """Return the windows: a sampler of arrays in memory if they fit and none of them is weighted, else a loader.

    Args:
        data: the open datasets.
        spec: of the policy.
        batch_size: windows a batch, of all processes that torchrun started together.
        seed: of their order.
        device: where the training happens.
        past: actions before the newest observation's, as the policy's configuration has it.
        goal: what each window shows of its episode's future: its ``end``, a ``future`` step, or nothing.
        encoder: of the policy, if it is frozen: all pictures are embedded by it once and let go, whatever their number;
            of a mixture they are embedded again for each batch.
        sizes: {camera: (H, W)} that pictures are made smaller to; embedded ones are by the encoder itself.
    """
    from robopolicy.cli.progress import bar, say
    from robopolicy_data.arrays import decode_arrays, read_numbers
    from robopolicy_data.loader import Loader
    from robopolicy_data.mixture import read_marks, require_finite
    from robopolicy_data.windows import WindowSampler

    choice = data.choice
    with bar("load", None, "pieces") as progress:
        embeds = encoder is not None and bool(spec.cameras)
        if choice.cache == "auto" and choice.weights is None and (embeds or _fits(data, device, sizes)):
            marks = [read_marks(data.episodes, name) for name in choice.skip]
            if embeds:
                numbers = read_numbers(data.episodes, data.recorded)
                arrays = _embedded(data, numbers, encoder.to(device), progress.at)
            else:
                arrays = decode_arrays(data.episodes, data.recorded, progress.at, sizes)
            require_finite(data.episodes, arrays)
            return WindowSampler(
                arrays, spec.n_obs, spec.horizon, n_execute=spec.n_execute, every=choice.every, past=past, skip=marks
            )
        more = _shared(batch_size)
        if device.startswith("cuda"):
            from robopolicy.training.windows import pinned as allocate

            more["allocate"] = allocate
        return Loader(
            data.datasets, n_obs=spec.n_obs, horizon=spec.horizon, seed=seed, weights=choice.weights,
            cameras=tuple(spec.cameras), states=tuple(spec.state), every=choice.every, past=past, goal=goal,
            skip=choice.skip, sizes=sizes, cache=choice.cache, say=say if more["rank"] == 0 else None,
            progress=progress.at, **more,
        )  # fmt: skip


def _shared(batch_size: int) -> dict[str, Any]:
    """Return what part of each batch of all processes this one loads, and what of the machine it may use for that."""
    from robopolicy.training.ranks import Ranks
    from robopolicy_data.parallel import cores
    from robopolicy_data.plan import spare_bytes

    ranks = Ranks.of_environment()
    ranks.share(batch_size)
    part = {"batch_size": batch_size // ranks.world, "rank": ranks.rank, "world": ranks.world}
    if ranks.neighbours == 1:
        return part
    limit_gb = spare_bytes() / 2e9 / ranks.neighbours
    return {**part, "threads": max(cores() // ranks.neighbours, 1), "memory_limit_gb": limit_gb}


def policy_spec(data: OpenData, n_obs: int, horizon: int, n_execute: int) -> PolicySpec:
    """Return the spec of the policy that these data teach."""
    return replace(data.spec, n_obs=n_obs, horizon=horizon, n_execute=n_execute)


def _embedded(data: OpenData, numbers: Any, encoder: Any, progress: Any) -> Any:
    """Return the numbers of all steps with the features of all pictures."""
    from robopolicy.training.features import embed
    from robopolicy_data.cache import decode_blocks

    total = sum(episode.frame_count(name) for episode in data.episodes for name in data.recorded.cameras)
    done = 0

    def told(blocks: Iterable[Any]) -> Iterator[Any]:
        nonlocal done
        for block in blocks:
            yield block
            done += len(block)
            progress(done, total)

    features = {
        name: embed(encoder, name, told(decode_blocks(name, data.episodes, camera)))
        for name, camera in data.recorded.cameras.items()
    }
    return replace(numbers, features=features)


def _fits(data: OpenData, device: str, sizes: Mapping[str, tuple[int, int]]) -> bool:
    """Whether the decoded pictures fit into half of what the host, and the GPU, has to spare."""
    import numpy as np
    import torch

    from robopolicy_data.plan import spare_bytes

    spare = spare_bytes()
    if device.startswith("cuda"):
        spare = min(spare, torch.cuda.mem_get_info(device)[0])
    pixels = sum(
        sum(episode.frame_count(name) for episode in data.episodes)
        * math.prod((*sizes.get(name, camera.shape[:2]), *camera.shape[2:]))
        * np.dtype(camera.dtype).itemsize
        for name, camera in data.recorded.cameras.items()
    )
    return bool(pixels <= spare / 2)
