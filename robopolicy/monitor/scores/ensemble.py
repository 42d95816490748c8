"""Ensemble: how much two policies that learnt the same differ about what to do."""

from robopolicy.monitor.scores.told import Told


class EnsembleDisagreement(Told):
    """Squared difference of two denoisers' clean chunks, averaged along the sampler's path.

    The disagreement of velocity fields, in clean chunks in place of velocities: those of all processes are alike. It
    takes policies that were trained alike from other seeds; `robopolicy.policies.ensemble.ensemble` makes one of them.
    """

    name = "ensemble"
    source = "ensemble_disagreement"
    lacking = "it takes a companion, a checkpoint trained alike from another seed (--companion)"
    requires = frozenset({"ensemble_disagreement"})
