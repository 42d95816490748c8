"""A tiny world that hangs, aborts and raises, by its seed; see tiny_sweep."""

import tiny_sweep


class World(tiny_sweep.AbortingWorld, tiny_sweep.HangingWorld):
    """Seed 5 hangs, seed 6 aborts, seed 17 raises."""
