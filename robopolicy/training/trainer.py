"""The trainer: one loop for every policy, with averaged weights, an exact resume and a budget in time or steps."""

import copy
import json
import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopolicy.errors import ContractError
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.training.checkpoint import save_checkpoint
from robopolicy.training.config import Progress, TrainConfig, wants_bfloat16
from robopolicy.training.files import claim_folder
from robopolicy.training.interrupt import interruptible
from robopolicy.training.resume import (
    load_state,
    plan_resume,
    require_same,
    run_budget,
    run_settings,
    save_state,
)
from robopolicy.training.windows import Batches, Sampler, open_windows

SCHEDULE = 10_000  # resolution of the learning rate schedule, which runs over the fraction of the budget used


def train(
    policy: DiffusionPolicy,
    sampler: Sampler | Batches,
    out: str | Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    about: Mapping[str, Any] | None = None,
) -> DiffusionPolicy:
    """Train ``policy`` and leave a checkpoint of its averaged weights in ``out``; return them as a policy.

    The checkpoint is renewed every ``save_every_s``, at the end, and on Ctrl-C, each file in one stroke, so it is
    whole whenever the process dies.

    Args:
        policy: trained in place; its normaliser is fitted here unless the run resumes.
        sampler: the windows, as `robopolicy_data.windows.WindowSampler`, which go to the device whole, or batches of
            them, as `robopolicy_data.loader.Loader`, which goes on as the run does: same seed, same batches.
        out: folder of the checkpoint.
        config: budgets and optimiser.
        resume: go on from ``out``; the same data and settings are required, only a budget may grow.
        on_progress: told every ``report_every_s`` and at the end.
        about: what is worth knowing of the data, JSON-able, for train.json.

    Raises:
        CheckpointError: if ``out`` cannot be written, there is nothing to resume, or it is of another policy, other
            data or settings.
        ContractError: if the windows do not fit the policy, or the loss stops being a number.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is saved.
    """
    claim_folder(Path(out))
    run = _Run(policy, sampler, Path(out), config, on_progress, dict(about or {}))
    threads = torch.get_num_threads()
    cuda = [torch.device(config.device)] if config.device.startswith("cuda") else []
    with torch.random.fork_rng(cuda), interruptible() as interrupted:
        try:
            torch.set_num_threads(config.num_threads or threads)
            torch.manual_seed(config.seed)  # dropout draws from the global generator; forked, so nothing leaks
            if resume:
                run.restore()
            return run.go(interrupted)
        finally:
            torch.set_num_threads(threads)


class _Run:
    """The moving parts of one call of `train`."""

    def __init__(
        self,
        policy: DiffusionPolicy,
        sampler: Sampler | Batches,
        out: Path,
        config: TrainConfig,
        on_progress: Callable[[Progress], None] | None,
        about: dict[str, Any],
    ) -> None:
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        self.config, self.out, self.on_progress, self.about = config, out, on_progress, about
        self.device = torch.device(config.device)
        self.windows = open_windows(sampler, policy.spec, self.device, config.seed, policy.config.past)
        self.actions_crc = zlib.crc32(np.ascontiguousarray(sampler.arrays.action).data)
        policy.fit_normaliser(sampler.arrays)
        self.policy = policy.to(self.device)
        self.half = wants_bfloat16(config.precision, self.device)
        self.lr = policy.config.lr if config.lr is None else config.lr
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), self.lr, (0.95, 0.999), weight_decay=config.weight_decay, fused=True
        )
        warmup = round(config.warmup * SCHEDULE)
        schedule = get_scheduler("cosine", self.optimizer, num_warmup_steps=warmup, num_training_steps=SCHEDULE)
        self.lr_factor = schedule.lr_lambdas[0]
        # use_ema_warmup: without it EMAModel ignores power
        self.ema = EMAModel(policy.parameters(), use_ema_warmup=True, power=config.ema_power, foreach=True)
        self.generator = torch.Generator(self.device)
        self.batch_size = self.windows.size(config.batch_size)
        self.step = self.first_step = 0
        self.elapsed_before_s = 0.0  # in earlier calls of a resumed run
        self.data_s = self.update_s = 0.0
        self.losses: list[tuple[int, float]] = []
        self.sum, self.count = torch.zeros((), device=self.device), 0

    def restore(self) -> None:
        """Go back to where the run in ``out`` stopped."""
        plan_resume(self.out, self.config, self.lr)
        cursor = load_state(self.out, self.policy, self.optimizer, self.ema)
        if self.config.precision == "auto" and "precision" in cursor:  # on whatever machine it began
            self.half = cursor["precision"] == "bfloat16"
        require_same(self.out, cursor, self._identity())
        self.step = self.first_step = cursor["step"]
        self.elapsed_before_s = cursor["elapsed_s"]
        self.losses = [(step, loss) for step, loss in cursor["losses"]]

    def go(self, interrupted: Callable[[], bool]) -> DiffusionPolicy:
        self.start_s = saved_s = reported_s = time.monotonic()
        self.policy.train()
        while (used := self._used()) < 1:
            self._update(used)
            now_s = time.monotonic()
            if now_s - reported_s >= self.config.report_every_s:
                self._report()
                reported_s = time.monotonic()
            if interrupted():
                self.save()
                raise KeyboardInterrupt
            if now_s - saved_s >= self.config.save_every_s:
                self.save()
                saved_s = time.monotonic()
        self._report()
        return self.save()

    def save(self) -> DiffusionPolicy:
        """Write the averaged weights and the state to resume from; return the averaged policy."""
        averaged = copy.deepcopy(self.policy)
        self.ema.copy_to(averaged.parameters())
        cursor = {"step": self.step, "elapsed_s": self._elapsed_s(), "losses": self.losses, **self._identity()}
        cursor["budget"] = run_budget(self.config)
        self.out.mkdir(parents=True, exist_ok=True)
        save_state(self.out, self.policy, self.optimizer, self.ema, cursor)  # first: a train.json can be resumed
        save_checkpoint(self.out, averaged, train=self._train_json())
        return averaged.eval()

    def _update(self, used: float) -> None:
        begin_s = time.perf_counter()
        batch = self.windows.batch(self.config.seed, self.step, self.batch_size)
        gathered_s = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.lr_factor(used * SCHEDULE)
        # noise is a function of seed and step alone, so a resumed run draws what an unbroken one would have
        self.generator.manual_seed(self.config.seed * 1_000_003 + self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.policy.loss(batch, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.ema.step(self.policy.parameters())
        self.sum += loss.detach()
        self.count += 1
        self.step += 1
        self.data_s += gathered_s - begin_s
        self.update_s += time.perf_counter() - gathered_s

    def _used(self) -> float:
        """Fraction of the budget that is used up."""
        steps = self.step / self.config.steps if self.config.steps else 0.0
        minutes = self._elapsed_s() / 60 / self.config.max_minutes if self.config.max_minutes else 0.0
        return max(steps, minutes)

    def _elapsed_s(self) -> float:
        return self.elapsed_before_s + time.monotonic() - self.start_s

    def _speed(self) -> float:
        """Samples per second since this call began."""
        return (self.step - self.first_step) * self.batch_size / (time.monotonic() - self.start_s)

    def _report(self) -> None:
        if not self.count:
            return
        loss = float(self.sum) / self.count
        self.sum.zero_()
        self.count = 0
        if not math.isfinite(loss):
            raise ContractError(f"training: the loss is {loss} at step {self.step}; try a smaller lr than {self.lr}")
        self.losses.append((self.step, loss))
        if self.on_progress is None:
            return
        used = self._used()
        eta_s = self._elapsed_s() * (1 / used - 1) if used < 1 else 0.0
        steps = max(self.step, round(self.step / used))
        self.on_progress(Progress(self.step, steps, loss, self._speed(), eta_s, self.data_s, self.update_s))

    def _identity(self) -> dict[str, Any]:
        """What must not change between a run and its resumption."""
        identity = {
            **run_settings(self.config, self.lr),
            "precision": "bfloat16" if self.half else "float32",
            "batch_size": self.batch_size,
            "windows": len(self.windows),
            "data": f"actions of crc32 {self.actions_crc:08x}",
            "spec": self.policy.spec.to_json(),
            "config": self.policy.config.to_json(),
            **self.windows.about,
        }
        return json.loads(json.dumps(identity))  # tuples as they will read back: lists

    def _train_json(self) -> dict[str, Any]:
        import platform

        import robopolicy

        return {
            "steps": self.step,
            "finished": self._used() >= 1,
            "minutes": round(self._elapsed_s() / 60, 3),
            "samples_per_s": round(self._speed(), 1),
            "data_s": round(self.data_s, 3),
            "update_s": round(self.update_s, 3),
            "parameters": sum(p.numel() for p in self.policy.parameters()),
            "train": {**asdict(self.config), "lr": self.lr},
            "data": {**self.about, "windows": len(self.windows)},
            "versions": {
                "robopolicy": robopolicy.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "losses": self.losses[:: 1 + len(self.losses) // 300],
        }
