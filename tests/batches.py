"""Datasets to load batches from, and the comparison of batches."""

from dataclasses import replace

import numpy as np
from recordings import META, SPEC, make_step, picture, record

from robopolicy.spec import CameraSpec, PolicySpec
from robopolicy_data.writer import DatasetWriter

SIZE = {"n_obs": 2, "horizon": 4, "batch_size": 8}


def make(path, seeds, *, spec: PolicySpec = SPEC, lossless: bool = False, **meta):
    with DatasetWriter(path, spec, lossless=lossless) as writer:
        for seed in seeds:
            record(writer, seed, **meta)
    return path


def copied(batch):
    return {
        key: {name: part.copy() for name, part in value.items()} if isinstance(value, dict) else value.copy()
        for key, value in batch.items()
    }


def require_equal(a, b):
    assert a.keys() == b.keys() == {"state", "images", "action", "padded_obs", "padded_action"}
    for key, value in a.items():
        for name, part in value.items() if isinstance(value, dict) else ((key, value),):
            other = b[key][name] if isinstance(value, dict) else b[key]
            assert part.dtype == other.dtype
            assert np.array_equal(part, other), (key, name)


def slow_camera(path):
    """Steps at 20 Hz that see a camera at 5 Hz and a depth camera at 10 Hz."""
    spec = replace(SPEC, cameras={"slow": CameraSpec(16, 24), "far": CameraSpec(8, 12, "depth")})
    rng = np.random.default_rng(0)
    with DatasetWriter(path, spec) as writer:
        for _ in range(2):
            episode, images, stamps = writer.begin(META), {}, {}
            for k in range(13):
                step = make_step(k, rng, spec=replace(spec, cameras={}))
                if k % 4 == 0:
                    images["slow"], stamps["slow"] = picture(rng, 16, 24), step.observation.stamp_ns
                if k % 2 == 0:
                    images["far"] = rng.integers(0, 5000, (8, 12), np.uint16)
                    stamps["far"] = step.observation.stamp_ns
                seen = replace(step.observation, images=dict(images), image_stamps_ns=dict(stamps))
                episode.add(replace(step, observation=seen))
            episode.commit()
    return path
