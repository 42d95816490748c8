"""Rate and jitter of a stream, told block by block."""

import numpy as np
import pytest

from robopolicy_data.timing import KEPT, Periods, periods, timing

PERIOD_NS = 10_000_000


def stamps(count, jitter_ns=1_000_000):
    return np.arange(count) * PERIOD_NS + np.random.default_rng(0).integers(-jitter_ns, jitter_ns, count)


def in_blocks(ns, size):
    made = Periods()
    for k in range(0, len(ns), size):
        made.add(ns[k : k + size])
    return made


@pytest.mark.parametrize("size", [1, 7, 512])
def test_blocks_make_no_difference(size):
    ns = stamps(3 * KEPT)
    assert in_blocks(ns, size).summary() == periods(ns).summary()


def test_a_short_stream_is_told_exactly():
    ns = stamps(2000)
    dt = np.diff(ns)
    told = periods(ns).summary()
    assert told["hz"] == pytest.approx(1e9 / dt.mean())
    median = np.quantile(dt, 0.5, method="inverted_cdf")
    assert told["jitter_p99_ms"] == np.quantile(np.abs(dt - median), 0.99, method="inverted_cdf") / 1e6


def test_a_long_stream_is_told_from_a_part_that_stays_small():
    ns = stamps(300_000)
    made = in_blocks(ns, 512)
    dt = np.diff(ns)
    assert made.summary()["hz"] == pytest.approx(1e9 / dt.mean(), rel=1e-12)
    assert made.summary()["jitter_p99_ms"] == pytest.approx(
        np.quantile(np.abs(dt - np.median(dt)), 0.99) / 1e6, rel=0.05
    )
    assert KEPT <= len(made._some) <= 2 * KEPT
    assert np.array_equal(made._some, dt[:: made._stride]), "evenly picked"


def test_nothing_is_told_of_one_stamp_or_of_a_clock_that_stands():
    assert timing({"a": periods([]), "b": periods([5]), "c": periods([5, 5, 5])}) == {}
    assert list(timing({"a": periods([0, PERIOD_NS])})) == ["a"]
