"""Episodes whose every number follows from a seed, so that another process can tell whether they survived.

Run as a program it records episodes until it is killed, and prints each number as soon as it is committed.
"""

import sys
from functools import lru_cache

import numpy as np

from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step, Verdict
from robopolicy_data.writer import DatasetWriter

SPEC = PolicySpec(
    cameras={"front": CameraSpec(24, 32), "wrist": CameraSpec(16, 16)},
    state={"q": StateSpec(3, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("vector", ("x", "y"), ("m",)),
    rate_hz=20.0,
)
META = EpisodeMeta("lift", "mock")
SECOND = 1_000_000_000


def length(seed: int) -> int:
    return 4 + seed % 7


def make_step(k: int, rng: np.random.Generator, *, spec: PolicySpec = SPEC, verdict: bool = False) -> Step:
    stamp = SECOND + k * spec.period_ns
    state = {name: rng.standard_normal(s.dim).astype(np.float32) for name, s in spec.state.items()}
    images = {name: picture(rng, c.height, c.width) for name, c in spec.cameras.items()}
    seen = Observation(stamp, state, images, {name: stamp - 1000 - i for i, name in enumerate(images)})
    sent = rng.standard_normal(spec.action.dim).astype(np.float32)
    judged = Verdict(stamp, {"a": 1.0}, 0.5 + k, 9.0, 0.25, "nominal") if verdict else None
    return Step(seen, sent, stamp + 500, ("policy", "human", "hold")[k % 3], judged)


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth random picture, so that JPEG does to it what it does to real ones."""
    a, b, c = rng.uniform(0.1, 0.5, 3)
    phase = (a * np.arange(height))[:, None] + b * np.arange(width)
    return (128 + 120 * np.sin(phase[..., None] + np.arange(3) * c)).astype(np.uint8)


def make_steps(seed: int, count: int | None = None, **options) -> list[Step]:
    rng = np.random.default_rng(seed)
    return [make_step(k, rng, **options) for k in range(length(seed) if count is None else count)]


@lru_cache(maxsize=100)
def truth(seed: int, count: int) -> list[Step]:
    """What an episode of so many steps was made from."""
    return make_steps(seed, count)


def record(writer: DatasetWriter, seed: int, count: int | None = None, **meta) -> int:
    described = EpisodeMeta("lift", "mock", seed=seed, **meta)
    episode = writer.begin(described)
    for step in truth(seed, length(seed) if count is None else count):
        episode.add(step)
    return episode.commit()


def require_intact(episode, seed: int | None = None) -> None:
    """Compare every number of a lossless episode with what its seed gives."""
    steps = truth(episode.meta.seed if seed is None else seed, episode.length)
    assert seed is not None or episode.length == length(episode.meta.seed)
    for name in SPEC.state:
        assert episode.state(name).tobytes() == np.stack([s.observation.state[name] for s in steps]).tobytes()
    for name in SPEC.cameras:
        assert np.array_equal(episode.images(name), np.stack([s.observation.images[name] for s in steps]))
        assert episode.stamps_ns(name).tolist() == [s.observation.image_stamps_ns[name] for s in steps]
    assert episode.action().tobytes() == np.stack([s.sent for s in steps]).tobytes()
    assert episode.stamps_ns("step").tolist() == [s.observation.stamp_ns for s in steps]
    assert episode.stamps_ns("action").tolist() == [s.due_ns for s in steps]
    assert episode.sources().tolist() == [k % 3 for k in range(len(steps))]


def main(path: str, first_seed: int) -> None:
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        print("open", flush=True)
        for seed in range(first_seed, first_seed + 10_000):
            print(record(writer, seed), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
