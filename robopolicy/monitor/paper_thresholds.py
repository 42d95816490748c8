"""Thresholds over time as FIPER's published code makes them, to be compared with: their promise does not hold.

Read in the published ``evaluation/utils.py`` (Roemer et al., NeurIPS 2025) and written afresh. Nothing else in
robopolicy uses these; `robopolicy.monitor.conformal` has thresholds that keep a promise.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from robopolicy.errors import MonitorError

Threshold = Literal["ct_quantile", "tvt_quantile", "tvt_cp_band"]
THRESHOLDS: tuple[str, ...] = ("ct_quantile", "tvt_quantile", "tvt_cp_band")
Traces = Sequence[np.ndarray]  # (T_j,) windowed scores of each successful calibration episode


def thresholds(kind: str, traces: Traces, quantile: float, *, seed: int = 0, mend_sign: bool = False) -> np.ndarray:
    """Return the threshold (L,) at each decision of the longest of the traces.

    Args:
        kind: a name in ``THRESHOLDS``.
        traces: (T_j,) of each successful calibration episode.
        quantile: 1 less the false-alarm rate that is hoped for.
        seed: of the halving for a band.
        mend_sign: of the band, as its authors' source has it.

    Raises:
        MonitorError: if there is no such threshold, no trace or an empty one, or the quantile is none.
    """
    if kind not in THRESHOLDS:
        raise MonitorError(f"no threshold {kind!r}; valid: {', '.join(THRESHOLDS)}")
    if not traces or not all(len(trace) for trace in traces) or not 0 < quantile < 1:
        raise MonitorError(f"{len(traces)} episodes, quantile {quantile}; want episodes with decisions, and 0 to 1")
    if kind == "ct_quantile":
        level = np.quantile([trace.max() for trace in traces], quantile)
        return np.full(max(map(len, traces)), float(level))
    table = _ragged(traces)
    if kind == "tvt_quantile":
        found: np.ndarray = np.nanquantile(table, quantile, axis=0)
        return found
    return _band(table, quantile, np.random.default_rng(seed), -1.0 if mend_sign else 1.0)


def _band(table: np.ndarray, quantile: float, rng: np.random.Generator, sign: float) -> np.ndarray:
    """Return mu + h S: centre and width over time from one half, a factor from the other.

    Diquigiovanni et al. 2021 measure the other half by max_t (s - mu) / S for an upper band; the published code
    measures (mu - s) / S (``sign`` 1), how far episodes come *below*.
    """
    lengths = np.count_nonzero(~np.isnan(table), axis=1)
    order = rng.permutation(len(table))
    order = np.concatenate([[lengths.argmax()], order[order != lengths.argmax()]])  # the longest is in the first half
    half = 1 + (len(table) - 1) // 2
    first, second = table[order[:half]], table[order[half:]]
    if not len(second):
        raise MonitorError("1 episode; a band takes 2 or more")
    centre = _over_episodes(np.nanmean, first)
    away = np.abs(first - centre)
    furthest = np.nanmax(away, axis=1)
    kept = away
    if (half + 1) * quantile <= half:
        kept = away[furthest <= np.quantile(furthest, quantile)]
    width = _over_episodes(np.nanmax, kept)
    width = np.where(width > 1e-12, width, 1.0 / table.shape[1])
    gaps = np.nanmax(sign * (centre - second) / width, axis=1)
    upper: np.ndarray = centre + np.quantile(gaps, quantile) * width
    return upper


def _over_episodes(what: Any, table: np.ndarray) -> np.ndarray:
    """Return ``what`` of each column's numbers (L,); 0 where there is none."""
    there = ~np.isnan(table).all(axis=0)
    found = np.zeros(table.shape[1])
    found[there] = what(table[:, there], axis=0)
    return found


def _ragged(traces: Traces) -> np.ndarray:
    """Return the traces (n, L), nan where they have ended."""
    table = np.full((len(traces), max(map(len, traces))), np.nan)
    for row, trace in zip(table, traces, strict=True):
        row[: len(trace)] = trace
    return table
