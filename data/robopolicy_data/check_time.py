"""What the stamps of an episode tell: time that goes back, gaps, a rate that is not the label, cameras that stall."""

from collections.abc import Iterator, Mapping

import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy_data.layout import align_path, camera_path
from robopolicy_data.problem import Problem

MAX_RATE_ERROR = 0.05  # of the labelled rate
MAX_JITTER = 0.2  # 99th percentile of |dt - median|, of the period
MAX_GAP = 3.0  # periods between two steps
MAX_CAMERA_AGE = 2.0  # periods of the slower of the two that a frame may be older than its step
MAX_STALL_S = 0.5  # without a new frame of a camera; of a slow one five of its periods


def check_time(where: str, spec: PolicySpec, stamps: Mapping[str, np.ndarray]) -> Iterator[Problem]:
    """Yield what is wrong with the stamps of the steps.

    Args:
        where: the episode, for the findings.
        spec: of the dataset.
        stamps: (T,) int64 ns of ``step`` and ``action``, if they could be read.
    """
    for name, ns in stamps.items():
        # a set-point may be due with the one before; a step has its own instant
        back = np.flatnonzero(np.diff(ns) <= 0 if name == "step" else np.diff(ns) < 0)
        if len(back):
            text = f"time does not go on at {len(back)} of {len(ns)} steps, the first after step {back[0]}"
            yield Problem("error", f"{where}, time/{name}", text)
    step = stamps.get("step")
    if step is None or len(step) < 3 or (period := float(np.median(np.diff(step)))) <= 0:
        return
    yield from _check_pace(f"{where}, time/step", spec, np.diff(step), period)


def check_camera_time(
    where: str, spec: PolicySpec, camera: str, frames: np.ndarray, align: np.ndarray, step: np.ndarray
) -> Iterator[Problem]:
    """Yield what is wrong with the stamps of a camera.

    Args:
        where: the episode, for the findings.
        spec: of the dataset.
        camera: its name.
        frames: (N,) int64 ns, capture times.
        align: (T,) int32, which frame each step saw.
        step: (T,) int64 ns.
    """
    back = np.flatnonzero(np.diff(frames) < 0)
    if len(back):
        text = f"time does not go on at {len(back)} of {len(frames)} frames, the first after frame {back[0]}"
        yield Problem("error", f"{where}, time/{camera}", text)
    back = np.flatnonzero(np.diff(align) < 0)
    if len(back):
        text = f"steps go back to older frames {len(back)} times, first after step {back[0]}"
        yield Problem("error", f"{where}, {align_path(camera)}", text)
    path, period = f"{where}, {camera_path(spec, camera)}", float(np.median(np.diff(step))) if len(step) > 1 else 0.0
    own = float(np.median(np.diff(frames))) if len(frames) > 1 else 0.0
    ages = step - frames[align]
    gaps = np.diff(np.append(frames, max(step[-1], frames[-1])))  # the last one: up to the end of the episode
    if gaps.max() > max(MAX_STALL_S * 1e9, 5 * own):
        at = (frames[gaps.argmax()] - step[0]) / 1e9
        text = f"the camera stalls: no new frame for {gaps.max() / 1e9:.3g} s, {at:.3g} s into the episode"
        yield Problem("warning", path, text)
    elif period and ages.max() > MAX_CAMERA_AGE * max(period, own):
        yield Problem("warning", path, f"frames are up to {ages.max() / 1e6:.4g} ms older than their step")


def _check_pace(where: str, spec: PolicySpec, dt: np.ndarray, period: float) -> Iterator[Problem]:
    """Yield what is odd about the periods ``dt`` (T - 1,) ns, ``period`` being their median."""
    if abs(1e9 / period / spec.rate_hz - 1) > MAX_RATE_ERROR:
        yield Problem("warning", where, f"labelled {spec.rate_hz:g} Hz, recorded at {1e9 / period:.4g} Hz")
    elif (mean := len(dt) * 1e9 / dt.sum()) < (1 - MAX_RATE_ERROR) * spec.rate_hz:
        yield Problem("warning", where, f"labelled {spec.rate_hz:g} Hz, with its gaps {mean:.4g} Hz")
    jitter = float(np.quantile(np.abs(dt - period), 0.99))
    if jitter > MAX_JITTER * period:
        text = f"jitter: 1 % of steps are {jitter / 1e6:.3g} ms off a {period / 1e6:.4g} ms period"
        yield Problem("warning", where, text)
    gaps = np.flatnonzero(dt > MAX_GAP * period)
    if len(gaps):
        longest = gaps[dt[gaps].argmax()]
        text = f"{len(gaps)} gap(s), the longest {dt[longest] / 1e9:.3g} s after step {longest}"
        yield Problem("warning", where, text)
