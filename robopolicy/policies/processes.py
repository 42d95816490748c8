"""Noising processes x = alpha(t) x0 + sigma(t) eps: their levels, what the network is fed and what it predicts.

Every process counts its noise levels in its own way; all a solver sees is a `Grid` of levels, alphas and sigmas, plain
numbers. In a loss levels are tensors, one for each sample, (B,), or one for each row of each chunk, (B, H): a row that
is known already is at the clean level.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.ranges import require_least, require_positive
from robopolicy.policies.solvers import Grid

# (x (B, H, A), time (B,) or (B, H), cond (B, K, E)) -> (B, H, A); one may also have the ``at`` of `denoisers`
Net = Callable[[Tensor, Tensor, Tensor], Tensor]
Level = TypeVar("Level", float, Tensor)  # one, or (B,) or (B, H) of them
PREDICTIONS: tuple[str, ...] = ("eps", "x0", "v")
TIME_SCALE = 100.0  # networks embed times of about 0 to 100, whatever the process


class Process(nn.Module):
    """What `VPCosine`, `EDM`, `Flow` and `ConsistencyFlow` share.

    Attributes:
        clean_level: the level at which there is no noise.
    """

    clean_level: float = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._grids: dict[int, Grid] = {}

    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma, float32, of levels t, in the shape of t."""
        raise NotImplementedError

    def draw(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Return ``count`` levels as training draws them, (count,)."""
        raise NotImplementedError

    def grid(self, n: int) -> Grid:
        """Return the ``n`` levels that a solver visits; raises ContractError if there are no such."""
        if n not in self._grids:
            self._grids[n] = self.spread(n)
        return self._grids[n]

    def spread(self, n: int) -> Grid:
        """Make the `grid` of ``n`` levels."""
        raise NotImplementedError

    def time(self, t: Level) -> Level:
        """Return the time that the network is told of a level, or of levels t: about 0 to `TIME_SCALE`."""
        raise NotImplementedError

    def jump_time(self, t: Level) -> Level:
        """Return the time that asks the network for a jump from a level, or levels t, to the end.

        Raises:
            ContractError: if this process learns no such jump.
        """
        raise ContractError(f"solver consistency: {type(self).__name__} learns no jumps; train a consistency flow")

    def feed(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network is given of x (B, H, A) at levels t: x, scaled, and a time to embed."""
        return x, self.time(t)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return what the network should say (B, H, A)."""
        raise NotImplementedError

    def clean(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the x0 (B, H, A) that the network's ``output`` at x and t stands for."""
        raise NotImplementedError

    def scalings(self, alpha: float, sigma: float) -> tuple[float, float, float]:
        """Return (a, b, c) of one level: the network is fed a x, and x0 = b x + c output, as `feed` and `clean` do."""
        raise NotImplementedError

    def noised(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return x (B, H, A) of clean x0 and unit noise eps at levels t (B,) or (B, H)."""
        alpha, sigma = self.mix_like(t, x0)
        return alpha * x0 + sigma * eps

    def denoise(self, net: Net, cond: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the clean chunk that the network sees in x (B, H, A) at levels t (B,) or (B, H) under cond."""
        return self.clean(net(*self.feed(x, t), cond).float(), x, t)

    def jump(self, net: Net, cond: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return where the probability flow through x (B, H, A) at levels t (B,) or (B, H) ends, told `jump_time`."""
        return self.clean(net(self.feed(x, t)[0], self.jump_time(t), cond).float(), x, t)

    def loss(
        self, net: Net, cond: Tensor, x0: Tensor, eps: Tensor, t: Tensor, weight: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the mean squared error of what the network says.

        Args:
            net: the network.
            cond: (B, K, E).
            x0: (B, H, A), normalised.
            eps: (B, H, A) unit noise.
            t: levels (B,) or (B, H).
            weight: (B, H) of each row; None is one for all.
            generator: for a process that draws more than levels and noise.
        """
        output = net(*self.feed(self.noised(x0, eps, t), t), cond)
        return weighted_mse(output.float(), self.target(x0, eps, t), weight)

    def mix_like(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma of levels t (B,) or (B, H), to multiply x (B, H, A) with."""
        alpha, sigma = self.mix(t)
        return like(alpha, x), like(sigma, x)


@dataclass(frozen=True)
class VPConfig:
    """Variance preserving, cosine schedule: number of levels and what the network predicts."""

    kind: ClassVar[str] = "vp"
    steps: int = 100  # noise levels in training
    prediction: Literal["eps", "x0", "v"] = "eps"  # what the network says: the noise, the clean chunk, v

    def __post_init__(self) -> None:
        require_least(self.kind, self, 1, "steps")
        if self.prediction not in PREDICTIONS:
            raise UnknownName("prediction", self.prediction, PREDICTIONS)

    def build(self) -> "VPCosine":
        """Return the process."""
        return VPCosine(self)


class VPCosine(Process):
    """x = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps, with alpha_bar of Nichol and Dhariwal 2021, eq. 17.

    Levels are whole numbers, 1 (almost clean) to ``steps`` (almost noise), diffusers' t + 1; 0 is the clean level.
    """

    def __init__(self, config: VPConfig) -> None:
        super().__init__()
        self.steps, self.prediction = config.steps, config.prediction
        alpha_bar = [1.0, *cosine_alpha_bar(config.steps)]
        self.table = [(math.sqrt(share), math.sqrt(1 - share)) for share in alpha_bar]  # of levels 0 to steps
        self.alpha: Tensor  # (steps + 1,) float32
        self.sigma: Tensor
        for name, values in zip(("alpha", "sigma"), zip(*self.table, strict=True), strict=True):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(alpha_bar) and sqrt(1 - alpha_bar) of levels t, whole numbers."""
        index = t.long()
        return self.alpha[index], self.sigma[index]

    def draw(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Return levels, each as likely as the other."""
        return torch.randint(1, self.steps + 1, (count,), generator=generator, device=device)

    def spread(self, n: int) -> Grid:
        """Spread ``n`` levels over all of them, the noisiest included (``trailing``).

        diffusers' default, ``leading``, would start 16 of 100 steps where a seventh of the signal's amplitude is still
        there, and feed the network pure noise (Lin et al. 2024, table 2).

        Raises:
            ContractError: if n is not within 1..steps.
        """
        if not 1 <= n <= self.steps:
            raise ContractError(f"solver: {n} steps of a process of {self.steps}; want 1 to {self.steps}")
        t = tuple(round(i * (self.steps / n)) for i in range(n, -1, -1))
        return Grid(t, *zip(*(self.table[level] for level in t), strict=True))

    def time(self, t: Level) -> Level:
        """Return diffusers' t, from 0; the clean level is -1."""
        return t - 1

    def scalings(self, alpha: float, sigma: float) -> tuple[float, float, float]:
        """Return how x0 is read from eps, x0 or v."""
        if self.prediction == "x0":
            return 1.0, 0.0, 1.0
        return (1.0, 1 / alpha, -sigma / alpha) if self.prediction == "eps" else (1.0, alpha, -sigma)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return eps, x0, or v of Salimans and Ho 2022."""
        if self.prediction == "eps":
            return eps
        if self.prediction == "x0":
            return x0
        alpha, sigma = self.mix_like(t, x0)
        return alpha * eps - sigma * x0

    def clean(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the x0 that ``output`` stands for."""
        if self.prediction == "x0":
            return output
        alpha, sigma = self.mix_like(t, x)
        if self.prediction == "eps":
            return torch.addcmul(x, sigma, output, value=-1) / alpha
        return torch.addcmul(alpha * x, sigma, output, value=-1)


@dataclass(frozen=True)
class EDMConfig:
    """Variance exploding with Karras' preconditioning; the defaults are BESO's (Reuss et al. 2023) but for the range.

    Theirs ends at sigma 1, where half of a chunk scaled to [-1, 1] still shows through: samples that start from pure
    noise there favour the mode nearest to the middle.
    """

    kind: ClassVar[str] = "edm"
    sigma_data: float = 0.5  # standard deviation of the normalised actions
    sigma_min: float = 0.02  # least noise, in units of the normalised actions
    sigma_max: float = 3.0  # most noise, where samples start
    loc: float = math.log(0.5)  # location of the log-logistic distribution that training draws sigma from
    scale: float = 0.5  # scale of that distribution
    spacing: Literal["exponential", "karras"] = "exponential"  # how the levels that a solver visits are spaced
    rho: float = 7.0  # exponent of karras' spacing

    def __post_init__(self) -> None:
        require_positive(self.kind, self, "sigma_data", "scale", "rho")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ContractError(f"edm: sigma_min {self.sigma_min}, sigma_max {self.sigma_max}; want 0 < min < max")
        if self.spacing not in ("exponential", "karras"):
            raise UnknownName("spacing", self.spacing, ("exponential", "karras"))

    def build(self) -> "EDM":
        """Return the process."""
        return EDM(self)


class EDM(Process):
    """x = x0 + sigma eps; a level is its sigma. Karras et al. 2022, table 1 and eq. 7."""

    def __init__(self, config: EDMConfig) -> None:
        super().__init__()
        self.config = config
        self.deviation: Tensor  # of the data, (); tensors, for a number costs a small operation twice the time
        self.variance: Tensor
        self.time_scale: Tensor
        numbers = {"deviation": config.sigma_data, "variance": config.sigma_data**2, "time_scale": TIME_SCALE / 4}
        for name, number in numbers.items():
            self.register_buffer(name, torch.tensor(number), persistent=False)

    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 and sigma."""
        return torch.ones_like(t), t

    def draw(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Return sigmas of a log-logistic distribution cut to [sigma_min, sigma_max], by its inverse."""
        config = self.config
        low, high = (
            1 / (1 + math.exp(-(math.log(edge) - config.loc) / config.scale))
            for edge in (config.sigma_min, config.sigma_max)
        )
        share = low + (high - low) * torch.rand(count, generator=generator, device=device, dtype=torch.float64)
        return (torch.logit(share) * config.scale + config.loc).exp().float()

    def spread(self, n: int) -> Grid:
        """Return ``n`` sigmas from sigma_max down to sigma_min, then 0."""
        config = self.config
        ramp = [i / max(n - 1, 1) for i in range(n)]
        if config.spacing == "exponential":
            sigma = [config.sigma_max * (config.sigma_min / config.sigma_max) ** share for share in ramp]
        else:  # Karras et al. 2022, eq. 5
            top, bottom = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
            sigma = [(top + share * (bottom - top)) ** config.rho for share in ramp]
        t = (*sigma, 0.0)
        return Grid(t, (1.0,) * (n + 1), t)

    def time(self, t: Level) -> Level:
        """Return c_noise = log(sigma) / 4, scaled to `TIME_SCALE`."""
        least = self.config.sigma_min / 10
        if isinstance(t, Tensor):
            return t.clamp_min(least).log() * self.time_scale
        return math.log(max(t, least)) * TIME_SCALE / 4

    def feed(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return c_in x and the time."""
        return like(torch.addcmul(self.variance, t, t).rsqrt(), x) * x, self.time(t)

    def scalings(self, alpha: float, sigma: float) -> tuple[float, float, float]:
        """Return c_in, c_skip and c_out."""
        data = self.config.sigma_data
        c_in = 1 / math.hypot(sigma, data)
        return c_in, (data * c_in) ** 2, sigma * data * c_in

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return (x0 - c_skip x) / c_out; 0 at the clean level, where nothing is asked."""
        sigma, shrink = like(t, x0), like(self._shrink(t), x0)
        return (x0 - shrink**2 * (x0 + sigma * eps)) / (sigma * shrink).clamp_min(1e-6)

    def clean(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return c_skip x + c_out output."""
        sigma, shrink = like(t, x), like(self._shrink(t), x)
        return shrink * torch.addcmul(shrink * x, sigma, output)

    def _shrink(self, t: Tensor) -> Tensor:
        """Return sigma_data / sqrt(sigma^2 + sigma_data^2): sigma_data c_in, whose square is c_skip; c_out / sigma."""
        return torch.addcmul(self.variance, t, t).rsqrt() * self.deviation


@dataclass(frozen=True)
class FlowConfig:
    """Straight lines from noise to data, and how training draws the time."""

    kind: ClassVar[str] = "flow"
    time: Literal["uniform", "beta"] = "beta"  # how training draws the share of noise
    alpha: float = 1.5  # of Beta(alpha, 1), with time beta: more than 1 dwells on the noisy end, as pi0 does

    def __post_init__(self) -> None:
        require_positive(self.kind, self, "alpha")
        if self.time not in ("uniform", "beta"):
            raise UnknownName("time", self.time, ("uniform", "beta"))

    def build(self) -> "Flow":
        """Return the process."""
        return Flow(self)


class Flow(Process):
    """x = (1 - t) x0 + t eps; a level is the share of noise t, 0 clean to 1 noise. Lipman et al. 2023; Liu et al. 2023.

    The network says the velocity from noise to data, x0 - eps.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config

    def mix(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 - t and t."""
        return 1 - t, t

    def draw(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Return shares of noise, uniform or of Beta(alpha, 1), by its inverse u^(1/alpha)."""
        share = torch.rand(count, generator=generator, device=device)
        if self.config.time == "uniform":
            return share
        return 0.999 * share ** (1 / self.config.alpha) + 0.001

    def spread(self, n: int) -> Grid:
        """Return ``n`` equal steps from 1 to 0."""
        t = tuple(i / n for i in range(n, -1, -1))
        return Grid(t, tuple(1 - share for share in t), t)

    def time(self, t: Level) -> Level:
        """Return the share of noise, scaled to `TIME_SCALE`."""
        return t * TIME_SCALE

    def scalings(self, alpha: float, sigma: float) -> tuple[float, float, float]:
        """Return how x0 is read from a velocity."""
        return 1.0, 1.0, sigma

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return the velocity x0 - eps."""
        return x0 - eps

    def clean(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return x + t velocity."""
        return torch.addcmul(x, like(t, x), output)


def weighted_mse(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean over the samples of their squared differences (B, H, A), weighted by row (B, H) or (B, H, A).

    The weights need not sum to 1. A sample counts as any other however many of its rows are asked for, so that the
    loss of a batch is the mean of those of its halves, which processes that share it rely on.
    """
    error = (output - target) ** 2
    if weight is None:
        return error.mean()
    if weight.ndim == error.ndim:
        return ((error * weight).flatten(1).sum(-1) / weight.flatten(1).sum(-1).clamp_min(1e-9)).mean()
    return ((error.mean(-1) * weight).sum(-1) / weight.sum(-1).clamp_min(1e-9)).mean()


def cosine_alpha_bar(steps: int, max_beta: float = 0.999) -> list[float]:
    """Return alpha_bar of ``steps`` levels, falling from almost 1 to almost 0; diffusers' ``squaredcos_cap_v2``."""
    edge = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    return list(accumulate((max(after / before, 1 - max_beta) for before, after in pairwise(edge)), operator.mul))


def like(values: Tensor, x: Tensor) -> Tensor:
    """Reshape (B,) or (B, H) to broadcast against x (B, H, A), or (B,) against (B, H)."""
    return values.view(*values.shape, *[1] * (x.ndim - values.ndim))
