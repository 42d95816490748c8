"""Draws in which a row of seeds takes every choice equally often."""

from collections.abc import Sequence

import numpy as np


def balanced(seed: int, choices: Sequence[str]) -> str:
    """Return the choice of ``seed``: of n choices, n seeds in a row from a multiple of n draw each once, shuffled."""
    block, place = divmod(seed, len(choices))
    order = np.random.default_rng((block, len(choices))).permutation(len(choices))
    return choices[int(order[place])]
