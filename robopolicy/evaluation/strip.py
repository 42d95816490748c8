"""One picture of one filmed episode: moments in a row, the monitor's score below; for READMEs and papers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import EvaluationError
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.video import load_cv2

FRAME = (320, 240)  # (width, height) of a moment, pixels
GAP = 8
PLOT = 150  # height of the plot
INK, MUTED, SCORE, ALARM = (33, 37, 41), (134, 142, 150), (12, 133, 153), (224, 49, 49)  # RGB


def write_strip(path: str | Path, outcome: Outcome, moments: Sequence[tuple[int, str]]) -> Path:
    """Draw ``moments`` (step, caption) of a filmed and monitored episode to ``path`` (.png); return it.

    Raises:
        EvaluationError: if the episode has no readable video or no verdicts.
    """
    cv2 = load_cv2()
    frames = _frames(outcome)
    if not outcome.marks or not frames:
        raise EvaluationError(f"seed {outcome.seed}: a strip needs a video and a monitor's verdicts")
    width = len(moments) * (FRAME[0] + GAP) - GAP
    sheet = np.full((FRAME[1] + 34 + PLOT, width, 3), 255, np.uint8)
    for i, (step, caption) in enumerate(moments):
        frame = frames[min(round(step / max(outcome.steps, 1) * (len(frames) - 1)), len(frames) - 1)]
        x = i * (FRAME[0] + GAP)
        sheet[: FRAME[1], x : x + FRAME[0]] = cv2.resize(frame, FRAME, interpolation=cv2.INTER_AREA)
        _write(cv2, sheet, f"step {step}: {caption}", (x + 2, FRAME[1] + 20), INK)
    _plot(cv2, sheet, outcome, top=FRAME[1] + 44)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.ascontiguousarray(sheet[:, :, ::-1])):
        raise EvaluationError(f"cannot write {path}")
    return Path(path)


def _plot(cv2: Any, sheet: np.ndarray, outcome: Outcome, top: int) -> None:
    """Draw the running maximum of the score against the threshold, both on a log scale."""
    left, right, bottom = 2, sheet.shape[1] - 2, sheet.shape[0] - 26
    values = np.log10([max(mark.statistic or np.inf, 1e-4) for mark in outcome.marks])
    threshold = np.log10(outcome.marks[0].threshold)
    low, high = min(values.min(), threshold) - 0.2, max(values[np.isfinite(values)].max(), threshold) + 0.2

    def x(step: float) -> int:
        return round(left + (right - left) * step / max(outcome.steps, 1))

    def y(value: float) -> int:
        return round(bottom - (bottom - top) * (min(value, high) - low) / (high - low))

    for start in range(left, right, 12):
        cv2.line(sheet, (start, y(threshold)), (start + 6, y(threshold)), MUTED, 1, cv2.LINE_AA)
    steps = [mark.step for mark in outcome.marks] + [outcome.steps]
    for value, start, end in zip(values, steps[:-1], steps[1:], strict=True):
        color = ALARM if value > threshold else SCORE
        cv2.line(sheet, (x(start), y(value)), (x(end), y(value)), color, 2, cv2.LINE_AA)
    for first, second, step in zip(values[:-1], values[1:], steps[1:], strict=False):
        cv2.line(sheet, (x(step), y(first)), (x(step), y(second)), ALARM if second > threshold else SCORE, 2)
    _write(cv2, sheet, "alarm threshold", (right - 130, y(threshold) - 6), MUTED)
    _write(cv2, sheet, "monitor: largest novelty score so far (log scale) over the episode", (left, bottom + 20), MUTED)


def _write(cv2: Any, sheet: np.ndarray, text: str, at: tuple[int, int], color: tuple[int, int, int]) -> None:
    cv2.putText(sheet, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)


def _frames(outcome: Outcome) -> list[np.ndarray]:
    """Return the frames of the episode's video, (H, W, 3) uint8 RGB."""
    if outcome.video is None:
        return []
    cv2 = load_cv2()
    video = cv2.VideoCapture(str(outcome.video))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][:, :, ::-1])
    video.release()
    return frames
