"""A calibrated monitor alarms at as many successes as it promised, and at no fewer; nothing is assumed of the scores.

The bar itself, with 2000 recalibrations and every number of episodes, is `benchmarks/bench_monitor_validity.py`.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from robopolicy.monitor.calibration import Calibration
from robopolicy.monitor.statistic import COMBINATIONS, SHAPES, Combination, Statistic

sys.path.insert(0, str(Path(__file__).parent))
import exchangeable

N, ALPHA, RECALIBRATIONS, FRESH = 19, 0.1, 120, 30
NAMES = ("a", "b", "c")
HOWS = [
    *(Combination(combine, 1, 0, shape) for combine, shape in product(COMBINATIONS, SHAPES)),
    *(Combination("sum", *smoothing) for smoothing in ((4, 0, "const"), (1, 2, "band"), (3, 1, "band"))),
]


def alarms(law, how, seed):
    """Return the share of fresh successes that alarm, of one fit and calibration."""
    rng = np.random.default_rng(seed)
    fit, calibrate, fresh = (exchangeable.episodes(law, rng, n) for n in (12, N, FRESH))
    failures = exchangeable.episodes(law, rng, 12, failed=True) if how.combine == "logistic" else ()
    statistic = Statistic.fit(NAMES, fit, how, failures)
    calibration = Calibration(tuple(statistic.trace(scores) for scores in calibrate), ALPHA)
    # Beyond the longest calibrated episode the scores are not asked.
    largest = [statistic.trace(scores)[: calibration.calibrated].max() for scores in fresh]
    return np.mean(np.array(largest) > calibration.threshold)


@pytest.mark.parametrize("law", exchangeable.LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.combine}-{how.shape}-{how.window}-{how.patience}")
def test_false_alarms_an_episode_are_as_promised(law, how):
    rate = np.mean([alarms(law, how, seed) for seed in range(RECALIBRATIONS)])
    # Exactly 1 - k / (n + 1) = alpha here; given a calibration set the rate is Beta(2, 18).
    beta = ALPHA * (1 - ALPHA) / (N + 2)
    error = np.sqrt(beta / RECALIBRATIONS + ALPHA * (1 - ALPHA) / (RECALIBRATIONS * FRESH))
    assert abs(rate - ALPHA) < 3 * error
