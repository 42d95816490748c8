"""One step of gradient descent after the other: loss, clipping, AdamW and the running average of the weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robopolicy.training.average import Average
from robopolicy.training.config import TrainConfig, wants_bfloat16
from robopolicy.training.ranks import Ranks

SCHEDULE = 10_000  # resolution of the learning rate schedule, which runs over the fraction of the budget used
TRIAL = 4  # steps after which compiled code, run, recorded as a CUDA graph and replayed, is known to work
LONG_STEPS, LONG_MINUTES = 3_000, 3.0  # from here on a minute of compiling pays on a GPU


class Updates:
    """The weights and all that changes with them.

    A step whose gradient is not finite changes nothing but is counted, without the CPU waiting for a GPU to say so.

    Args:
        policy: a `Trainable`, already on ``device``.
        config: of the run.
        lr: the peak.
        device: where it happens.
        ranks: the processes that share each batch.

    Attributes:
        half: whether the networks run in bfloat16.
        optimizer: AdamW.
        average: of the weights.
        count: steps since the last `take`.
        lr: of the last step.
    """

    def __init__(self, policy: Any, config: TrainConfig, lr: float, device: torch.device, ranks: Ranks) -> None:
        from diffusers.optimization import get_scheduler

        self.half = wants_bfloat16(config.precision, device)
        self.optimizer = make_optimizer(policy, lr, config.weight_decay)
        warmup = round(config.warmup * SCHEDULE)
        schedule = get_scheduler("cosine", self.optimizer, num_warmup_steps=warmup, num_training_steps=SCHEDULE)
        self._lr_factor = schedule.lr_lambdas[0]
        self.average = Average(policy.parameters(), config.ema_power)
        self._parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self._config, self._lr, self._device, self._ranks = config, lr, device, ranks
        self._generator = torch.Generator(device)
        self._loss = ranks.averaging(policy)
        self._networks = list(policy.networks) if wants_compile(config, device) else []
        self._trial = TRIAL if self._networks and config.compile == "auto" else 0
        self._compile()
        self._sum, self._norm, self._bad = (torch.zeros((), device=device) for _ in range(3))
        self.count = 0
        self.lr = 0.0

    def step(self, batch: Mapping[str, Any], step: int, used: float) -> None:
        """Update the weights once.

        Args:
            batch: this process's share.
            step: its number; noise is a function of seed and step alone, so a resumed run draws what an unbroken one
                would have.
            used: fraction of the budget, which the learning rate follows.
        """
        self.lr = self._lr * self._lr_factor(used * SCHEDULE)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch, step)
        self._descend()
        self.average.step()
        self._sum += loss.detach()
        self.count += 1

    def take(self) -> tuple[float, float, int]:
        """Return the mean loss since the last call, the last gradient's norm, and how many steps were no numbers."""
        loss, norm, bad = self._ranks.mean([float(self._sum) / max(self.count, 1), float(self._norm), float(self._bad)])
        self._sum.zero_()
        self._bad.zero_()
        self.count = 0
        return loss, norm, round(bad)

    @property
    def sound(self) -> bool:
        """Whether every step since the last `take` and every weight is a number; waits for the device."""
        weights = torch.stack([value.isfinite().all() for value in self.average.values]).all()
        return math.isfinite(float(self._sum)) and float(self._bad) == 0 and bool(weights)

    def close(self) -> None:
        """Leave the policy uncompiled: others will call it with other shapes."""
        for network in self._networks:
            network._compiled_call_impl = None  # type: ignore[assignment]

    def _backward(self, batch: Mapping[str, Any], step: int) -> Tensor:
        if self._trial == 0:
            return self._try(batch, step)
        self._trial -= 1
        try:
            return self._try(batch, step)
        except RuntimeError:  # as torch's own are: no compiler on this machine, or it cannot do this network
            self._trial = 0
            self.close()
            self.optimizer.zero_grad(set_to_none=True)
            return self._try(batch, step)

    def _try(self, batch: Mapping[str, Any], step: int) -> Tensor:
        self._generator.manual_seed(self._config.seed * 1_000_003 + step)
        if self._networks and self._device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        samples = len(batch["action"])
        with (
            torch.autocast(self._device.type, torch.bfloat16, enabled=self.half),
            self._ranks.drawing(self._generator, samples),
        ):
            loss = self._loss(batch, self._generator)
        loss.backward()
        return loss

    def _descend(self) -> None:
        """Step AdamW, whose fused kernel scales the gradient on its way, and skips all of it if told to."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self._norm = torch.nn.utils.get_total_norm(gradients).float()
        clip = self._config.clip_norm or torch.finfo(torch.float32).max  # which infinity is still beyond
        scale: Tensor | None = None
        found: Tensor | None = None
        if self._device.type != "cpu" or not float(self._norm) <= clip:  # a CPU knows already, and is spared the work
            scale = (self._norm / clip).clamp_min(1)
            found = (~torch.isfinite(self._norm)).float()
            self._bad += found
        self.optimizer.grad_scale = scale  # type: ignore[attr-defined]
        self.optimizer.found_inf = found  # type: ignore[attr-defined]
        self.optimizer.step()

    def _compile(self) -> None:
        # CUDA graphs, where the gradients do not pass through hooks that send them to other processes
        mode = "reduce-overhead" if self._device.type == "cuda" and self._ranks.world == 1 else None
        for network in self._networks:
            network.compile(mode=mode, dynamic=False)


def make_optimizer(policy: Any, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return a fused AdamW; biases, norms and other vectors do not decay."""
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr, (0.95, 0.999), fused=True)


def wants_compile(config: TrainConfig, device: torch.device) -> bool:
    """Whether the networks are compiled: if asked for, or on a GPU where the run is long enough to win it back."""
    if config.compile != "auto":
        return config.compile == "on"
    steps, minutes = config.steps or math.inf, config.max_minutes or math.inf
    return device.type == "cuda" and steps >= LONG_STEPS and minutes >= LONG_MINUTES
