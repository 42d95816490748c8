"""Denoise variance: how much the policy still changes its mind while it denoises one chunk."""

from robopolicy.monitor.scores.told import Told


class DenoiseVariance(Told):
    """Variance of the successive clean chunks that the solver's last steps lead to, in one inference.

    A policy that is sure sees the same chunk at every noise level. It costs no sampling: `DiffusionPolicy` gives it
    with every plan, of the candidate that is executed, for solvers of two steps or more.
    """

    name = "denoise_variance"
    source = "denoise_variance"
    lacking = "it takes a diffusion or flow policy, and a solver of two steps or more (--solver.steps 4)"
    requires = frozenset({"denoise_variance"})
