"""How to train, and what a run tells of itself while it goes on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from robopolicy.errors import ContractError, UnknownName

COMPILE = ("auto", "off", "on")
LEAST = {"steps": 1, "batch_size": 1, "num_threads": 1, "seed": 0, "eval_every_steps": 1, "keep": 0}
LAST_SEED = 2**32 - 1  # the generator's own seed is a million times as large and must fit 64 bits


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the run ends when either budget is used up.

    ``steps`` alone makes a run that a resume repeats bit for bit; ``max_minutes`` lets the schedule follow the clock.

    Raises:
        ContractError: on a number out of its range, or a device that this machine or this torch has not.
    """

    steps: int | None = None  # gradient steps; the run ends there
    max_minutes: float | None = None  # min; the run ends there, the learning rate annealed to it
    batch_size: int = 256  # windows a step, of all processes together
    lr: float | None = None  # peak learning rate; None takes the preset's
    warmup: float = 0.02  # fraction of the budget in which the learning rate rises
    weight_decay: float = 1e-6  # AdamW's, of matrices and kernels; biases and norms have none
    clip_norm: float | None = 1.0  # longest gradient, of all weights together; None never clips
    ema_power: float = 0.75  # the weights kept are an average, of decay 1 - (1 + step)^-power
    seed: int = 0  # of weights, batches and noise
    device: str = "cpu"  # cpu, cuda, cuda:1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of the computation; weights stay float32
    compile: Literal["auto", "off", "on"] = "auto"  # whether the networks are compiled; auto: on a GPU, for long runs
    num_threads: int | None = None  # threads of torch on the CPU; None leaves them as they are
    save_every_s: float = 60.0  # s between checkpoints; less often where a save takes more than a thirtieth of it
    report_every_s: float = 0.5  # s between reports of loss and speed
    eval_every_steps: int | None = None  # steps between the checkpoints that are scored while training goes on
    eval_every_minutes: float | None = None  # min between them; with neither only the last one is scored
    keep: int = 0  # newest evaluated checkpoints to keep in checkpoints/, beside best/
    tensorboard: bool = False  # logs in tensorboard/

    def __post_init__(self) -> None:
        if self.steps is None and self.max_minutes is None:
            raise ContractError("training: give steps, max_minutes or both")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ContractError(f"training: {name} is {value}; want at least {least}")
        for name in ("weight_decay", "ema_power", "save_every_s", "report_every_s"):
            if not getattr(self, name) >= 0:
                raise ContractError(f"training: {name} is {getattr(self, name)}; want at least 0")
        if not 0 <= self.warmup <= 1:
            raise ContractError(f"training: warmup is {self.warmup}; want a fraction of the budget, 0 to 1")
        if self.seed > LAST_SEED:
            raise ContractError(f"training: seed is {self.seed}; want at most {LAST_SEED}")
        for name in ("max_minutes", "lr", "clip_norm", "eval_every_minutes"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ContractError(f"training: {name} is {value}; want a finite number above 0")
        if self.compile not in COMPILE:
            raise UnknownName("setting of compile", self.compile, COMPILE)
        _require_device(self.device)


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int
    steps: int  # expected in all; an estimate when the budget is time
    loss: float  # mean since the last report
    samples_per_s: float  # since this call of `train` began
    eta_s: float
    data_s: float  # gathering batches, since this call began; on a GPU the time to launch, not to run
    update_s: float  # forward, backward, optimiser and averaging
    lr: float = 0.0  # of the last step
    grad_norm: float = 0.0  # of the last step, before it was clipped
    scores: Mapping[str, Any] = field(default_factory=dict)  # the newest evaluation: its step and what it measured

    @property
    def data_share(self) -> float:
        """Fraction of the time that was spent waiting for data."""
        return self.data_s / max(self.data_s + self.update_s, 1e-9)


def wants_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to run the networks in bfloat16: by default where the hardware multiplies it natively."""
    if precision == "auto":
        return device.type == "cuda" or _cpu_has_bfloat16()
    return precision == "bfloat16"


def _require_device(name: str) -> None:
    """Raise ContractError unless torch can compute on the device called ``name``."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # AssertionError: a torch built without CUDA
        has = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ContractError(f"training: torch has no device {name!r} here; it has {', '.join(has)}") from error


def _cpu_has_bfloat16() -> bool:
    try:
        return bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    except (AttributeError, RuntimeError):  # older torch, other processors
        return False
