"""A checkpoint as a command runs it: perhaps with another solver than its own, towards a goal, with companions."""

import argparse
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.errors import CheckpointError, SpecMismatch, UsageError
from robopolicy.types import Observation

GOAL = re.compile(r"(?P<path>.+?):(?P<episode>\d+)(?::(?P<step>\d+))?")  # the path may be a URL with a port


def add_solver(parser: Any) -> None:
    """Add the options that change the solver to a parser, or to a group of one."""
    parser.add_argument(
        "--solver",
        metavar="NAME",
        help="plan with another solver than the checkpoint's own: ddim, ddpm, euler, heun, dpm++2m, ancestral, or "
        "consistency if it was trained with --process consistency",
    )
    parser.add_argument(
        "--solver.steps", dest="solver_steps", type=at_least(1), metavar="N",
        help="noise levels that the solver visits, each a call of the network, two of heun's; default: the "
        "checkpoint's own",
    )  # fmt: skip


def add_running(parser: Any) -> None:
    """Add the options that change the solver and name a goal to a parser, or to a group of one."""
    add_solver(parser)
    parser.add_argument(
        "--goal",
        metavar="D.zarr:EPISODE[:STEP]",
        help="for a policy trained with goals: plan towards what was seen there (default: the episode's last step); "
        "without, towards nothing in particular",
    )
    parser.add_argument(
        "--companion",
        type=Path,
        action="append",
        metavar="FOLDER",
        help="a checkpoint trained alike from another seed: each plan then tells how far the two differ, for a monitor "
        "with the score 'ensemble'; it costs another call of a network a step and changes no command; may be repeated",
    )


@dataclass(frozen=True)
class Choice:
    """What was asked for; None is as the checkpoint has it, and no goal."""

    solver: str | None = None
    steps: int | None = None
    goal: str | None = None
    companions: tuple[Path, ...] = ()

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Choice":
        """Read it off the arguments of `add_running`, or of `add_solver`."""
        companions = tuple(getattr(args, "companion", None) or ())
        return cls(args.solver, args.solver_steps, getattr(args, "goal", None), companions)

    def resolve(self, checkpoint: str | Path) -> "Running":
        """Return how ``checkpoint`` is to run, once it is sure that it can.

        Raises:
            CheckpointError: if it is none.
            UnknownName, ContractError: if there is no such solver, or the policy's process cannot be solved by it.
            UsageError, DatasetError, SpecMismatch: if the policy knows no goals, or there is no such goal.
            SpecMismatch: if a companion was trained otherwise; both sides printed.
        """
        from robopolicy.training.checkpoint import checkpoint_sha, load_policy, read_config, read_spec

        checkpoint = Path(checkpoint)
        sha = weights = checkpoint_sha(checkpoint)
        config = read_config(checkpoint)
        solver = _solver(config.solver, self.solver, self.steps)
        about = {} if solver == config.solver else {"solver": words(solver)}
        if about:
            load_policy(checkpoint, solver=solver)
        goal = None
        if self.goal is not None:
            goal = read_goal(self.goal, read_spec(checkpoint), config.goal, f"checkpoint {checkpoint}")
            about["goal"] = f"{self.goal} ({_digest(goal)[:12]})"
        if about:
            sha = hashlib.sha256(f"{sha}|{solver}|{'' if goal is None else _digest(goal)}".encode()).hexdigest()
        if not self.companions:
            return Running(checkpoint, sha, solver, goal, about, weights)
        companions = tuple((folder, checkpoint_sha(folder)) for folder in self.companions)
        sha = hashlib.sha256("|".join((sha, *(each for _, each in companions))).encode()).hexdigest()
        about["companions"] = ", ".join(f"{folder} ({each[:12]})" for folder, each in companions)
        running = Running(checkpoint, sha, solver, goal, about, weights, companions)
        running.load()
        return running


@dataclass(frozen=True)
class Running:
    """A policy and how it plans, ready for other processes."""

    checkpoint: Path
    sha: str  # of all that decides how it acts: the checkpoint's own if nothing was changed
    solver: Any  # SolverConfig
    goal: Observation | None = None
    about: dict[str, str] = field(default_factory=dict)  # what is not as the checkpoint has it, to be read
    weights: str = ""  # the checkpoint's own sha
    companions: tuple[tuple[Path, str], ...] = ()  # checkpoints and their shas
    cameras: Mapping[str, Any] = field(default_factory=dict)  # where the robot's stand; empty: as in the training data

    @property
    def key(self) -> tuple[str, str]:
        """What two that plan alike have in common, for who loads a policy once."""
        return self.sha, json.dumps(self.cameras, sort_keys=True)

    def placed(self, told: Mapping[str, Any]) -> "Running":
        """Return it as it plans on a robot: a policy that goes by calibrated cameras takes the robot's calibration.

        Args:
            told: the robot's ``camera_calibration()``. Nothing, and that of the training data, leave it as it is.

        Raises:
            UnknownCamera, ContractError: naming a camera that the robot tells nothing of, while it does of others, or
                which is not calibrated.
        """
        from robopolicy.geometry.cameras import cameras_of
        from robopolicy.training.checkpoint import read_cameras

        trained = read_cameras(self.checkpoint)
        if not (trained and told):
            return self
        here, there = cameras_of(told, tuple(trained)), cameras_of(trained, tuple(trained))
        if all(here[name].is_like(there[name]) for name in here):
            return self
        cameras = {name: camera.to_json() for name, camera in here.items()}
        digest = hashlib.sha256(json.dumps(cameras, sort_keys=True).encode()).hexdigest()
        about = {**self.about, "cameras": f"as the robot tells ({digest[:12]})"}
        return replace(self, cameras=cameras, about=about)

    def seeing(self, *, monitored: bool) -> str:
        """Return in one line where the policy takes its cameras to stand; "" if it goes by none.

        Args:
            monitored: whether somebody looks after that; if not, that is said too.
        """
        from robopolicy.geometry.cameras import cameras_of
        from robopolicy.training.checkpoint import read_cameras

        trained = read_cameras(self.checkpoint)
        if not trained:
            return ""
        alone = "" if monitored else "; without --monitor a camera that was moved since is not noticed"
        if not self.cameras:
            return f"cameras {', '.join(trained)}: where they stood in the training data{alone}"
        here, there = cameras_of(self.cameras, tuple(trained)), cameras_of(trained, tuple(trained))
        gaps = [(name, *here[name].apart(there[name])) for name in here]
        told = ", ".join(f"{name} {100 * m:.1f} cm and {deg:.1f} deg" for name, m, deg in gaps)
        said = f"cameras: where the robot's calibration has them; from where they stood in the training data {told}"
        return said + alone

    def load(self, device: str = "cpu") -> Any:
        """Return the `DiffusionPolicy` on ``device``, its companions with it.

        Raises:
            CheckpointError: if a checkpoint is another by now: its results would go by the name of the first.
            SpecMismatch: if a companion was trained otherwise; both sides printed.
            UnknownCamera, ContractError: if a policy that needs calibrated cameras is given others.
        """
        from robopolicy.policies.ensemble import ensemble
        from robopolicy.training.checkpoint import checkpoint_sha, load_policy

        for folder, sha in ((self.checkpoint, self.weights), *self.companions):
            if sha and (now := checkpoint_sha(folder)) != sha:
                raise CheckpointError(
                    f"checkpoint {folder} was overwritten meanwhile: sha {now[:12]}, was {sha[:12]}; "
                    "copy one that is still being trained before it is evaluated"
                )
        policy = load_policy(self.checkpoint, device, solver=self.solver)
        policy.set_goal(self.goal)
        if self.cameras and hasattr(policy, "calibrate"):
            policy.calibrate(self.cameras)
        if not self.companions:
            return policy
        return ensemble([policy, *(load_policy(folder, device) for folder, _ in self.companions)])

    def load_monitor(self, folder: str | Path, timing: str | None = None) -> Any:
        """Return the `ConformalMonitor` in ``folder``, for plans that come as ``timing`` says, None is in the loop.

        Raises:
            MonitorError: if there is none.
            SpecMismatch: if it was calibrated on another policy, or on this one with another solver, goal or companion;
                or on plans that came otherwise.
        """
        from robopolicy.monitor.alike import IN_THE_LOOP, require_fit
        from robopolicy.monitor.artefact import load_monitor
        from robopolicy.monitor.layout import ActionLayout
        from robopolicy.training.checkpoint import read_spec

        monitor, name = load_monitor(folder), str(folder)
        try:
            require_fit(monitor, name, policy_sha=self.sha, layout=ActionLayout.of(read_spec(self.checkpoint)))
        except SpecMismatch as error:
            here = ", ".join(f"{name} {value}" for name, value in self.about.items()) or "its own solver and no goal"
            raise SpecMismatch(
                f"{error}. Another solver, goal or companion is another policy; this one has {here}"
            ) from error
        require_fit(monitor, name, timing=timing or IN_THE_LOOP)
        return monitor


AS_SAVED = Choice()


def words(solver: Any) -> str:
    """Return a `SolverConfig` in words: ``ddim, 8 steps``."""
    eta = f", eta {solver.eta:g}" if solver.eta else ""
    return f"{solver.name}, {solver.steps} step{'s' if solver.steps > 1 else ''}{eta}"


def read_goal(text: str, spec: Any, goal: Any, policy: str) -> Observation:
    """Return what ``text`` names, ``DATASET:EPISODE[:STEP]``: the goal streams of that step and nothing else.

    Args:
        text: of the command line.
        spec: of the policy.
        goal: its `GoalConfig`, or None.
        policy: its name in messages.

    Raises:
        UsageError: if the policy knows no goals, the text names none, or the episode has no such step.
        DatasetError: if there is no such dataset or episode.
        SpecMismatch: if the dataset lacks one of the goal's streams, or it differs; both sides printed.
    """
    from robopolicy_data.numbers import require_episodes
    from robopolicy_data.reader import Dataset

    if goal is None:
        raise UsageError(f"--goal: {policy} was trained without goals; train one with --goal.streams STATE-OR-CAMERA")
    named = GOAL.fullmatch(text)
    if named is None:
        raise UsageError(f"--goal {text!r} names no episode; want D.zarr:3 (its last step) or D.zarr:3:40")
    dataset, number = Dataset(named["path"]), int(named["episode"])
    states = {name: part for name, part in spec.state.items() if name in goal.streams}
    cameras = {name: camera for name, camera in spec.cameras.items() if name in goal.streams}
    have = dataset.spec
    want = replace(spec, state=states, cameras=cameras, action=have.action, rate_hz=have.rate_hz)
    want.require_from(have, needs=f"the goal of {policy}", offers=f"dataset {named['path']}")
    episodes = {episode.number: episode for episode in dataset}
    require_episodes([number], episodes, dataset.where)
    episode = episodes[number]
    step = episode.length - 1 if named["step"] is None else int(named["step"])
    if step >= episode.length:
        raise UsageError(f"--goal {text}: {episode.where} has the steps 0 to {episode.length - 1}")
    images = {name: episode.images(name, [step])[0] for name in cameras}
    return Observation(
        int(episode.stamps_ns("step")[step]), {name: episode.state(name)[step] for name in states}, images
    )


def _solver(own: Any, name: str | None, steps: int | None) -> Any:
    """Return ``own`` with another name or number of steps; another solver leaves its share of fresh noise behind."""
    changed = own if name in (None, own.name) else replace(own, name=name, eta=0.0)
    return changed if steps is None else replace(changed, steps=steps)


def _digest(goal: Observation) -> str:
    """Return the sha256, in hex, of what a goal shows."""
    digest = hashlib.sha256()
    for name, values in sorted({**goal.state, **goal.images}.items()):
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode() + values.tobytes())
    return digest.hexdigest()
