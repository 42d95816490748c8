"""What to do about pictures of different sizes: a hand's can be imported again, smaller, to go with a robot's."""

from collections.abc import Mapping, Sequence
from typing import Any

from robopolicy_data.episode import Episode
from robopolicy_data.tracked import TrackedDataset

RECORDED = "recorded"  # in the extra of an episode made of videos: {view: [H, W]} of those

Sizes = Mapping[str, tuple[int, int]]  # {view: (H, W)}


def sizes_of(cameras: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return {name: (H, W)} of a spec's cameras."""
    return {name: (camera.height, camera.width) for name, camera in cameras.items()}


def can_become(have: Sizes, want: Sizes) -> bool:
    """Whether no picture would have to grow, and all that are wanted are there."""
    return all(view in have and size[0] <= have[view][0] and size[1] <= have[view][1] for view, size in want.items())


def as_option(sizes: Sizes) -> str:
    """Return the words of `data import video` for these sizes."""
    told = {view: f"{height}x{width}" for view, (height, width) in sizes.items()}
    if len(set(told.values())) == 1:
        return f"--size {next(iter(told.values()))}"
    return " ".join(f"--size {view}={size}" for view, size in told.items())


def made_alike(datasets: Sequence[TrackedDataset]) -> str:
    """Return how to give datasets of tracks pictures of one size, to follow what is wrong; nothing if they have one.

    The robots' size is kept, without robots the smallest.
    """
    sizes = [sizes_of(dataset.spec.cameras) for dataset in datasets]
    robots = [k for k, dataset in enumerate(datasets) if not _is_hand(dataset)]
    want = sizes[robots[0]] if robots else min(sizes, key=lambda one: sum(h * w for h, w in one.values()))
    if any(sizes[k] != want for k in robots):
        return ""  # no robot's can be made again
    told = [_again(dataset, want) for dataset, have in zip(datasets, sizes, strict=True) if have != want]
    return "".join(f"; {one}" for one in told if one)


def _is_hand(dataset: TrackedDataset) -> bool:
    return dataset.recorded.action.kind == "tracks"


def _again(dataset: TrackedDataset, want: Sizes) -> str:
    """Return how the pictures of a dataset of hands come to the size wanted; nothing if nobody knows."""
    episodes: Sequence[Episode] = list(dataset)
    origins = {str(episode.meta.extra.get("imported", "")).partition(" ")[0] for episode in episodes}
    height, width = next(iter(want.values()))
    if origins == {"landmarks"} and set(want.values()) == {(height, width)}:
        return f"record what {dataset.where} was made of with --camera-size {height}x{width}, then import its landmarks"
    if origins != {"video"}:
        return ""
    stored = sizes_of(dataset.spec.cameras)
    if all(can_become(episode.meta.extra.get(RECORDED, stored), want) for episode in episodes):
        return f"import the videos of {dataset.where} into a new dataset with {as_option(want)} (data import video)"
    least = as_option(want).replace("--size ", "")
    return f"the videos of {dataset.where} are smaller, and pictures cannot grow; want {least} or larger"
