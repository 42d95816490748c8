"""A small dataset to go to LeRobot and back, and the comparison of what came back."""

import json
from dataclasses import replace

import numpy as np

from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.videos import Error
from robopolicy_data.writer import DatasetWriter

SPEC = PolicySpec(
    cameras={"front": CameraSpec(64, 96), "wrist": CameraSpec(64, 64), "depth": CameraSpec(16, 24, "depth")},
    state={"q": StateSpec(3, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", ("j0", "j1"), ("rad", "open")),
    rate_hz=20.0,
)
LENGTHS = (7, 12, 5)
META = (
    EpisodeMeta("lift the cube", "arm", seed=4, operator="ann", success=True, notes="slow", extra={"score": 0.5}),
    EpisodeMeta("open the drawer", "arm", seed=5, success=False),
    EpisodeMeta("lift the cube", "arm", operator="bob"),
)


def picture(rng, camera):
    """Smooth, as a camera's, so that a video codec's error is that of real pictures."""
    rows, columns = np.mgrid[: camera.height, : camera.width]
    if camera.kind == "depth":
        return rng.integers(0, 65536, camera.shape, dtype=np.uint16)
    a, b, c = rng.uniform(0.02, 0.08, 3)
    return np.stack([128 + 100 * np.sin(a * rows + b * columns + i * c) for i in range(3)], -1).astype(np.uint8)


def make(path, *, spec=SPEC, lossless=False, lengths=LENGTHS):
    """Record; the wrist camera runs at half the step rate and every stamp jitters."""
    rng = np.random.default_rng(0)
    with DatasetWriter(path, spec, lossless=lossless) as writer:
        for length, meta in zip(lengths, META, strict=True):
            episode = writer.begin(meta)
            held = {}
            for k in range(length):
                stamp = 10**18 + k * spec.period_ns + int(rng.integers(0, 10**6))
                fresh = [name for name in spec.cameras if name != "wrist" or k % 2 == 0]
                held |= {name: (picture(rng, spec.cameras[name]), stamp - 1000) for name in fresh}
                state = {name: rng.standard_normal(s.dim).astype(np.float32) for name, s in spec.state.items()}
                images, stamps = ({name: pair[i] for name, pair in held.items()} for i in (0, 1))
                sent = rng.standard_normal(spec.action.dim).astype(np.float32)
                source = ("policy", "human", "hold")[k % 3]
                episode.add(Step(Observation(stamp, state, images, stamps), sent, stamp + 77, source))
            episode.commit()
    return path


def info_of(root):
    return json.loads((root / "meta/info.json").read_text())


def change_info(root, **changes):
    (root / "meta/info.json").write_text(json.dumps(info_of(root) | changes))


def error_between(first, second, camera):
    """PSNR over all steps of two datasets, in dB."""
    error = Error()
    for a, b in zip(first, second, strict=True):
        for got, want in zip(a.images(camera), b.images(camera), strict=True):
            error.add(got, want)
    return error


def require_same_but_colour(ours, theirs):
    assert theirs.spec == ours.spec
    for a, b in zip(ours, theirs, strict=True):
        assert b.meta == replace(a.meta, extra=a.meta.extra | {"imported": b.meta.extra["imported"]})
        for name in ours.spec.state:
            assert b.state(name).tobytes() == a.state(name).tobytes()
        assert b.action().tobytes() == a.action().tobytes()
        assert np.array_equal(b.sources(), a.sources())
        for stream in ("step", "action", *ours.spec.cameras):
            assert np.array_equal(b.stamps_ns(stream), a.stamps_ns(stream)), stream
        assert np.array_equal(b.images("depth"), a.images("depth"))
        assert b.frame_count("wrist") == a.frame_count("wrist") == (a.length + 1) // 2, "the same frame is one frame"
