"""Draws in which a row of seeds takes every choice equally often."""

from collections.abc import Sequence

import numpy as np

from robopolicy.errors import UnknownName


def balanced(seed: int, choices: Sequence[str]) -> str:
    """Return the choice of ``seed``: of n choices, n seeds in a row from a multiple of n draw each once, shuffled."""
    block, place = divmod(seed, len(choices))
    order = np.random.default_rng((block, len(choices))).permutation(len(choices))
    return choices[int(order[place])]


def check_mode(task: str, mode: str | None, modes: Sequence[str]) -> str | None:
    """Return the one mode in which an expert is to do ``task``; None draws it.

    Raises:
        UnknownName: naming the modes there are.
    """
    if mode is not None and mode not in modes:
        raise UnknownName(f"mode of {task}", mode, modes)
    return mode
