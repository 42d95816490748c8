"""The trainer: one loop for every policy, with averaged weights, an exact resume and a budget in time or steps."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from robopolicy.errors import ContractError
from robopolicy.training.checkpoint import TRAIN, read_train, save_checkpoint
from robopolicy.training.config import Progress, TrainConfig
from robopolicy.training.evaluations import Evaluate, Evaluations
from robopolicy.training.files import claim_folder, held
from robopolicy.training.interrupt import interruptible
from robopolicy.training.logs import Log, Silent, TensorBoard
from robopolicy.training.ranks import Ranks
from robopolicy.training.resume import (
    fingerprint,
    load_state,
    plan_resume,
    require_same,
    run_budget,
    run_identity,
    save_state,
    with_later_fields,
)
from robopolicy.training.tally import Tally, train_json
from robopolicy.training.trainable import Trainable
from robopolicy.training.updates import Updates
from robopolicy.training.windows import Batches, Sampler, open_windows

SAVING = 1 / 30  # of the time, at most

Save = Callable[..., None]  # as `save_checkpoint`


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
    save: Save = save_checkpoint,
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
        save: writes a checkpoint, ``save(folder, policy, train=...)``, each file in one stroke, train.json among them;
            of a policy that is no `DiffusionPolicy` its own.

    Raises:
        CheckpointError: if ``out`` cannot be written, another training writes to it, there is nothing to resume, or
            it is of another policy, other data or settings.
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
    with (
        torch.random.fork_rng(cuda),
        interruptible(patient=ranks.world > 1) as interrupted,
        ExitStack() as stack,
    ):
        try:
            if ranks.first:
                claim_folder(Path(out))
                stack.enter_context(held(Path(out)))
            torch.set_num_threads(config.num_threads or threads)
            run = _Run(
                policy, sampler, Path(out), config, ranks, device, on_progress, dict(about or {}), evaluate, save
            )
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
        save: Save,
    ) -> None:
        self.config, self.out, self.ranks, self.on_progress = config, out, ranks, on_progress
        self.windows = open_windows(
            sampler, policy.spec, device, config.seed, policy.past, policy.goal_source, ranks.world
        )
        self.about = {**about, "windows": len(self.windows)}
        self.batch_size = self.windows.size(config.batch_size)
        self.part = ranks.share(self.batch_size)
        self.data = fingerprint(sampler.arrays.action)
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
        self.tally = Tally(config, self.batch_size)
        self.log: Log = Silent()
        self.write = save

    def restore(self) -> None:
        """Go back to where the run in ``out`` stopped."""
        plan_resume(self.out, self.config, self.lr)
        updates = self.updates
        cursor = load_state(self.out, self.policy, updates.optimizer, updates.average)
        if self.config.precision == "auto" and "precision" in cursor:  # on whatever machine it began
            updates.half = cursor["precision"] == "bfloat16"
        require_same(self.out, with_later_fields(cursor, self.policy.config), self._identity())
        self.tally.restore(cursor)
        told = (cursor.get("eval", []), (read_train(self.out) if (self.out / TRAIN).exists() else {}).get("eval", []))
        self.evaluations.results = max(told, key=len)  # the last score comes after the last state

    def go(self, interrupted: Callable[[], bool], *, resume: bool) -> Any:
        if resume:
            self.restore()
        if self.config.tensorboard and self.ranks.first:
            self.log = TensorBoard(self.out, self.tally.step)
        self.tally.begin()
        self.saved_s = self.reported_s = time.monotonic()
        self.save_s = 0.0  # how long the last save took
        self.evaluations.since(self.tally.step, self.tally.minutes)
        self.policy.train()
        try:
            while True:
                used, pause = self.ranks.agree(self.tally.used, self._wants_pause() or interrupted())
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
                **self.tally.cursor(), "eval": self.evaluations.results, **self._identity(),
                "budget": run_budget(self.config),
                # what rounds otherwise, and is no other run
                "num_threads": self.config.num_threads, "compile": self.config.compile,
            }  # fmt: skip
            # first, so that what a train.json tells of can be resumed
            save_state(self.out, self.policy, self.updates.optimizer, self.updates.average, cursor)
            self._write(self.out)
        self.saved_s = time.monotonic()
        self.save_s = self.saved_s - began_s

    def _update(self, used: float) -> None:
        step = self.tally.step
        begin_s = time.perf_counter()
        batch = self.windows.batch(self.config.seed, step, self.batch_size, self.part)
        gathered_s = time.perf_counter()
        self.updates.step(batch, step, used)
        self.tally.count(gathered_s - begin_s, time.perf_counter() - gathered_s)

    def _wants_pause(self) -> bool:
        now_s = time.monotonic()
        return (
            now_s - self.reported_s >= self.config.report_every_s
            or self._wants_save()
            or self.evaluations.due(self.tally.step, self.tally.minutes)
        )

    def _wants_save(self) -> bool:
        pause_s = max(self.config.save_every_s, self.save_s / SAVING)
        return self.tally.step > self.tally.first_step and time.monotonic() - self.saved_s >= pause_s

    def _pause(self, interrupted: Callable[[], bool]) -> None:
        """Report, and save, evaluate or stop where it is time to."""
        due = self.evaluations.due(self.tally.step, self.tally.minutes)
        self._report()
        save, stop = self.ranks.agree(self._wants_save(), interrupted())
        if stop:
            self.save()
            self.ranks.agree(0.0)  # together: torchrun ends the others once one has left
            raise KeyboardInterrupt
        if due:
            self._require_sound()
            self._average()
            self.evaluations.begin(self.tally.step, self.tally.minutes, self._write)
        if save:
            self.save()

    def _finish_evaluations(self, interrupted: Callable[[], bool]) -> None:
        """Wait for the evaluation that is going on, and for that of the last checkpoint."""
        if not self.evaluations.wanted:
            return
        for last in (False, True):
            if last and self.evaluations.newest != self.tally.step:
                self.evaluations.begin(self.tally.step, self.tally.minutes, self._write)
            while self.evaluations.busy:
                self._collect()
                if interrupted():
                    raise KeyboardInterrupt
                time.sleep(0.05)
        self._write(self.out)  # with its scores
        if self.on_progress is not None:
            self.on_progress(self._progress(self.tally.losses[-1][1], 0.0))

    def _write(self, folder: Path) -> None:
        """Write the averaged policy as it is."""
        told = train_json(
            self.tally, self.policy, self.config, self.lr, processes=self.ranks.world, data=self.about,
            results=self.evaluations.results,
        )  # fmt: skip
        self.write(folder, self.averaged, train=told)

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
            f"training: the loss is {loss} at step {self.tally.step}; {kept}. Try a smaller lr than {self.lr:g}, "
            "or float32 if it was bfloat16"
        )

    def _report(self) -> None:
        self._collect()
        self.reported_s = time.monotonic()
        if not self.updates.count:
            return
        loss, norm, bad = self.updates.take()
        if bad or not math.isfinite(loss):
            raise self._unsound(loss if not math.isfinite(loss) else math.nan)
        self.tally.losses.append((self.tally.step, loss))
        now = self._progress(loss, norm)
        self.log.progress(now)
        if self.on_progress is not None and self.ranks.first:
            self.on_progress(now)

    def _collect(self) -> None:
        result = self.evaluations.collect()
        if result is not None:
            self.log.scores(result)

    def _progress(self, loss: float, norm: float) -> Progress:
        results = self.evaluations.results
        return self.tally.progress(loss, self.updates.lr, norm, results[-1] if results else {})

    def _identity(self) -> dict[str, Any]:
        return run_identity(
            self.policy, self.windows, self.data, self.config, self.lr, half=self.updates.half,
            batch_size=self.batch_size,
        )  # fmt: skip
