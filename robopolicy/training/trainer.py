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
from robopolicy.training.card import write_card
from robopolicy.training.checkpoint import TRAIN, read_train, save_checkpoint
from robopolicy.training.config import Progress, TrainConfig
from robopolicy.training.evaluations import Evaluate, Evaluations
from robopolicy.training.files import claim_folder, replace_file
from robopolicy.training.interrupt import interruptible
from robopolicy.training.logs import Log, Silent, TensorBoard
from robopolicy.training.ranks import Ranks
from robopolicy.training.resume import (
    load_state,
    plan_resume,
    require_same,
    run_budget,
    run_settings,
    save_state,
)
from robopolicy.training.trainable import Trainable
from robopolicy.training.updates import Updates
from robopolicy.training.windows import Batches, Sampler, open_windows

SAVING = 1 / 30  # of the time, at most


def train(
    policy: Trainable,
    sampler: Sampler | Batches,
    out: str | Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    about: Mapping[str, Any] | None = None,
    evaluate: Evaluate | None = None,
) -> Any:
    """Train ``policy`` and leave a checkpoint of its averaged weights in ``out``; return them as a policy.

    The checkpoint is renewed every ``save_every_s``, at the end, and on Ctrl-C, each file in one stroke, so it is
    whole whenever the process dies. Started by ``torchrun``, the processes share each batch and the first one writes.

    Args:
        policy: trained in place; its normaliser is fitted here unless the run resumes.
        sampler: the windows, as `robopolicy_data.windows.WindowSampler`, which go to the device whole, or batches of
            them, as `robopolicy_data.loader.Loader`, which goes on as the run does: same seed, same batches.
        out: folder of the checkpoint.
        config: budgets and optimiser.
        resume: go on from ``out``; the same data and settings are required, only a budget may grow.
        on_progress: told every ``report_every_s`` and at the end.
        about: what is worth knowing of the data, JSON-able, for train.json.
        evaluate: called in another process with the folder of a checkpoint, as often as ``config`` says and of the last
            one; returns scores by name, which land in train.json. A script that gives one keeps its own call of
            ``train`` below ``if __name__ == "__main__":``.

    Raises:
        CheckpointError: if ``out`` cannot be written, there is nothing to resume, or it is of another policy, other
            data or settings.
        ContractError: if the windows do not fit the policy, or the loss stops being a number; the last checkpoint
            stays.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the checkpoint is saved.
        MissingExtra: if TensorBoard is wanted and not installed.
    """
    ranks = Ranks.of_environment()
    device = ranks.device(config.device)
    ranks.begin(device)
    threads = torch.get_num_threads()
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda), interruptible(patient=ranks.world > 1) as interrupted:
        try:
            if ranks.first:
                claim_folder(Path(out))
            torch.set_num_threads(config.num_threads or threads)
            run = _Run(policy, sampler, Path(out), config, ranks, device, on_progress, dict(about or {}), evaluate)
            torch.manual_seed(config.seed)  # dropout draws from the global generator; forked, so nothing leaks
            return run.go(interrupted, resume=resume)
        finally:
            torch.set_num_threads(threads)
            ranks.end()


class _Run:
    """The moving parts of one call of `train`."""

    def __init__(
        self,
        policy: Any,
        sampler: Any,
        out: Path,
        config: TrainConfig,
        ranks: Ranks,
        device: torch.device,
        on_progress: Callable[[Progress], None] | None,
        about: dict[str, Any],
        evaluate: Evaluate | None,
    ) -> None:
        self.config, self.out, self.ranks, self.on_progress, self.about = config, out, ranks, on_progress, about
        goal = policy.config.goal and policy.config.goal.source
        self.windows = open_windows(sampler, policy.spec, device, config.seed, policy.config.past, goal, ranks.world)
        self.batch_size = self.windows.size(config.batch_size)
        self.part = ranks.share(self.batch_size)
        self.actions_crc = zlib.crc32(np.ascontiguousarray(sampler.arrays.action).data)
        rows = getattr(sampler, "rows", None)
        policy.fit_normaliser(sampler.arrays, rows() if policy.needs_windows and rows is not None else None)
        self.policy = policy.to(device)
        self.averaged = copy.deepcopy(self.policy)
        self.lr = policy.config.lr if config.lr is None else config.lr
        self.updates = Updates(self.policy, config, self.lr, device, ranks)
        self.evaluations = Evaluations(
            evaluate if ranks.first else None, out, every_steps=config.eval_every_steps,
            every_minutes=config.eval_every_minutes, keep=config.keep,
        )  # fmt: skip
        self.log: Log = Silent()
        self.step = self.first_step = 0
        self.elapsed_before_s = 0.0  # in earlier calls of a resumed run
        self.data_s = self.update_s = 0.0
        self.losses: list[tuple[int, float]] = []

    def restore(self) -> None:
        """Go back to where the run in ``out`` stopped."""
        plan_resume(self.out, self.config, self.lr)
        updates = self.updates
        cursor = load_state(self.out, self.policy, updates.optimizer, updates.average)
        if self.config.precision == "auto" and "precision" in cursor:  # on whatever machine it began
            updates.half = cursor["precision"] == "bfloat16"
        require_same(self.out, cursor, self._identity())
        self.step = self.first_step = cursor["step"]
        self.elapsed_before_s = cursor["elapsed_s"]
        self.losses = [(step, loss) for step, loss in cursor["losses"]]
        told = (cursor.get("eval", []), (read_train(self.out) if (self.out / TRAIN).exists() else {}).get("eval", []))
        self.evaluations.results = max(told, key=len)  # the last score comes after the last state

    def go(self, interrupted: Callable[[], bool], *, resume: bool) -> Any:
        if resume:
            self.restore()
        if self.config.tensorboard and self.ranks.first:
            self.log = TensorBoard(self.out, self.step)
        self.start_s = self.saved_s = self.reported_s = time.monotonic()
        self.save_s = 0.0  # how long the last save took
        self.evaluations.since(self.step, self._elapsed_s() / 60)
        self.policy.train()
        try:
            while True:
                used, pause = self.ranks.agree(self._used(), self._wants_pause() or interrupted())
                if pause:
                    self._pause(interrupted)
                if used >= 1:
                    break
                self._update(used)
            self._report()
            self.save()
            self._finish_evaluations(interrupted)
        finally:
            self.evaluations.close()
            self.log.close()
            self.updates.close()
        return self.averaged.eval()

    def save(self) -> None:
        """Write the averaged weights and the state to resume from.

        Raises:
            ContractError: if the weights are not all finite; nothing is written then.
        """
        self._require_sound()
        self._average()
        began_s = time.monotonic()
        if self.ranks.first:
            cursor = {
                "step": self.step, "elapsed_s": self._elapsed_s(), "losses": self.losses,
                "eval": self.evaluations.results, **self._identity(), "budget": run_budget(self.config),
            }  # fmt: skip
            # first, so that what a train.json tells of can be resumed
            save_state(self.out, self.policy, self.updates.optimizer, self.updates.average, cursor)
            save_checkpoint(self.out, self.averaged, train=self._train_json())
        self.saved_s = time.monotonic()
        self.save_s = self.saved_s - began_s

    def _update(self, used: float) -> None:
        begin_s = time.perf_counter()
        batch = self.windows.batch(self.config.seed, self.step, self.batch_size, self.part)
        gathered_s = time.perf_counter()
        self.updates.step(batch, self.step, used)
        self.step += 1
        self.data_s += gathered_s - begin_s
        self.update_s += time.perf_counter() - gathered_s

    def _wants_pause(self) -> bool:
        now_s = time.monotonic()
        return (
            now_s - self.reported_s >= self.config.report_every_s
            or self._wants_save()
            or self.evaluations.due(self.step, self._elapsed_s() / 60)
        )

    def _wants_save(self) -> bool:
        pause_s = max(self.config.save_every_s, self.save_s / SAVING)
        return self.step > self.first_step and time.monotonic() - self.saved_s >= pause_s

    def _pause(self, interrupted: Callable[[], bool]) -> None:
        """Report, and save, evaluate or stop where it is time to."""
        due = self.evaluations.due(self.step, self._elapsed_s() / 60)
        self._report()
        save, stop = self.ranks.agree(self._wants_save(), interrupted())
        if stop:
            self.save()
            self.ranks.agree(0.0)  # together: torchrun ends the others once one has left
            raise KeyboardInterrupt
        if due:
            self._require_sound()
            self._average()
            self.evaluations.begin(self.step, self._elapsed_s() / 60, self._snapshot)
        if save:
            self.save()

    def _finish_evaluations(self, interrupted: Callable[[], bool]) -> None:
        """Wait for the evaluation that is going on, and for that of the last checkpoint."""
        if not self.evaluations.wanted:
            return
        for last in (False, True):
            if last and self.evaluations.newest != self.step:
                self.evaluations.begin(self.step, self._elapsed_s() / 60, self._snapshot)
            while self.evaluations.busy:
                self._collect()
                if interrupted():
                    raise KeyboardInterrupt
                time.sleep(0.05)
        told = self._train_json()
        replace_file(self.out / TRAIN, (json.dumps(told, indent=1) + "\n").encode())
        write_card(self.out, self.averaged, told)
        if self.on_progress is not None:
            self.on_progress(self._progress(self.losses[-1][1], 0.0))

    def _snapshot(self, folder: Path) -> None:
        save_checkpoint(folder, self.averaged, train=self._train_json())

    def _average(self) -> None:
        """Bring the averaged policy up to date."""
        self.updates.average.copy_to(self.averaged.parameters())
        for buffer, now in zip(self.averaged.buffers(), self.policy.buffers(), strict=True):
            buffer.copy_(now)

    def _require_sound(self) -> None:
        """Raise ContractError unless every loss, gradient and weight is a number; waits for a GPU."""
        if not self.updates.sound:
            raise self._unsound(math.nan)

    def _unsound(self, loss: float) -> ContractError:
        kept = f"the checkpoint in {self.out} is the last good one" if (self.out / TRAIN).exists() else "none was saved"
        return ContractError(
            f"training: the loss is {loss} at step {self.step}; {kept}. Try a smaller lr than {self.lr:g}, "
            "or float32 if it was bfloat16"
        )

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
        self._collect()
        self.reported_s = time.monotonic()
        if not self.updates.count:
            return
        loss, norm, bad = self.updates.take()
        if bad or not math.isfinite(loss):
            raise self._unsound(loss if not math.isfinite(loss) else math.nan)
        self.losses.append((self.step, loss))
        now = self._progress(loss, norm)
        self.log.progress(now)
        if self.on_progress is not None and self.ranks.first:
            self.on_progress(now)

    def _collect(self) -> None:
        result = self.evaluations.collect()
        if result is not None:
            self.log.scores(result)

    def _progress(self, loss: float, norm: float) -> Progress:
        used = self._used()
        eta_s = self._elapsed_s() * (1 / used - 1) if used < 1 else 0.0
        steps = max(self.step, round(self.step / used))
        scores = self.evaluations.results[-1] if self.evaluations.results else {}
        return Progress(
            self.step, steps, loss, self._speed(), eta_s, self.data_s, self.update_s, self.updates.lr, norm, scores
        )

    def _identity(self) -> dict[str, Any]:
        """What must not change between a run and its resumption."""
        identity = {
            **run_settings(self.config, self.lr),
            "precision": "bfloat16" if self.updates.half else "float32",
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
            "processes": self.ranks.world,
            "train": {**asdict(self.config), "lr": self.lr},
            "data": {**self.about, "windows": len(self.windows)},
            "versions": {
                "robopolicy": robopolicy.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "eval": self.evaluations.results,
            "losses": self.losses[:: 1 + len(self.losses) // 300],
        }
