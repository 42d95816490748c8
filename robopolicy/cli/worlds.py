"""Names on the command line become robots, agents and safety layers: one word decides what the loop drives."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy.cli.perturbing import perturbed
from robopolicy.cli.running import AS_SAVED, Running
from robopolicy.cli.twin_seeing import Seeing
from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import UnknownName, UsageError
from robopolicy.interfaces import Agent, Clock, Robot, Safety
from robopolicy.spec import PolicySpec

AT_ANY_RATE = ("twin", "hand", "robosuite")  # simulated worlds whose steps may last as long as a policy's
AT_ANY_SIZE = ("twin", "hand")  # and of these the pictures as large
SIMULATED = ("twin", "hand", "gymnasium", "planar", "robosuite")  # what runs in simulated time
WORLDS = "twin:TASK, hand:TASK, gymnasium:ENV_ID, planar:pusht, robosuite:TASK, or your own as package.module:Class"


def make_world(
    name: str,
    clock: Clock,
    *,
    cameras: tuple[str, ...] | None = (),
    rate_hz: float | None = None,
    size: tuple[int, int] | None = None,
    perturbations: Sequence[str] = (),
) -> Any:
    """Return the simulated robot called ``name``; picklable under `functools.partial`, for worker processes.

    Args:
        name: ``twin:lift``, ``gymnasium:gym_pusht/PushT-v0`` or ``package.module:Class``.
        clock: the world lives by it.
        cameras: what it renders into observations; None is all of them.
        rate_hz: steps a second of a simulated world; None is its own rate.
        size: (H, W) of the pictures of a twin or a hand; None is their own.
        perturbations: in force from its next reset on, each as AXIS:SEVERITY.

    Raises:
        UnknownName: naming what is valid.
        UsageError: if a robot of your own has another rate, or a world cannot be perturbed so.
    """
    if perturbations:
        bare = make_world(name, clock, cameras=cameras, rate_hz=rate_hz, size=size)
        return perturbed(bare, name, perturbations)
    if name.partition(":")[0] in SIMULATED:
        from sim_envs.worlds import make_world as make_simulated

        return make_simulated(name, clock, cameras=cameras, rate_hz=rate_hz, size=size)
    _require_sized(name, size)
    kind = _import_robot(name)
    try:
        world = kind(clock)
    except TypeError as error:
        raise UsageError(f"robot {name} could not be made with a clock as its only argument: {error}") from error
    if not isinstance(world, Robot):
        raise UsageError(
            f"{name} is no robot: it needs spec, read, command, stop and close (robopolicy.interfaces.Robot)"
        )
    if rate_hz is not None and abs(world.spec.rate_hz - rate_hz) > 1e-6:
        raise UsageError(f"robot {name} runs at {world.spec.rate_hz:g} Hz, not at {rate_hz:g} Hz")
    return world


def rate_for(name: str, spec: PolicySpec) -> float | None:
    """Return the rate at which the world called ``name`` is to run for a policy; None is the world's own.

    It is the policy's where the world can have it. A step of a Gymnasium environment has no other length than its own.
    """
    return spec.rate_hz if name.partition(":")[0] in AT_ANY_RATE else None


def size_for(name: str, spec: PolicySpec) -> tuple[int, int] | None:
    """Return the (H, W) at which the world called ``name`` is to draw for a policy; None is the world's own.

    It is the policy's where the world can have it, and all its cameras have the same.
    """
    sizes = {(camera.height, camera.width) for camera in spec.cameras.values()}
    return sizes.pop() if name.partition(":")[0] in AT_ANY_SIZE and len(sizes) == 1 else None


def _require_sized(name: str, size: tuple[int, int] | None) -> None:
    if size is not None and name.partition(":")[0] not in AT_ANY_SIZE:
        raise UsageError(f"pictures of {name} have the size they have; a size is of twin:TASK and hand:TASK")


def require_disturbance(world: Any, name: str) -> None:
    """Disturb a world that is made for nothing else.

    Raises:
        UsageError: if it has no disturbance; names what has one.
    """
    import numpy as np

    world.reset(0)
    world.read()
    try:
        world.disturb(np.random.default_rng(0))
    except UsageError as error:
        raise UsageError(
            f"{name} cannot be disturbed ({error}); what can: twin:TASK, planar:pusht, "
            "gymnasium:gym_pusht/PushT-v0, robosuite:TASK where something lies loose"
        ) from error


def packages_of(name: str) -> tuple[str, ...]:
    """Return the packages beside mujoco, installed or not, by whose versions an episode of a world may differ."""
    kind, _, which = name.partition(":")
    if kind == "gymnasium":
        from sim_envs.gymnasium_known import KNOWN, KnownEnv

        package = (which.partition("/")[0],) if "/" in which else ()
        return ("gymnasium", *package, *KNOWN.get(which, KnownEnv()).packages)
    return () if kind in ("twin", "hand", "planar") else (kind.partition(".")[0],)


def make_robot(
    name: str,
    clock: Clock,
    spec: PolicySpec,
    *,
    cameras: tuple[str, ...] | None = (),
    rate_hz: float | None = None,
    size: tuple[int, int] | None = None,
    domain: int | None = None,
    seeing: Seeing | None = None,
    limits: Path | None = None,
) -> Robot:
    """Return the robot called ``name``; ``mock`` takes its shape and rate from ``spec``, ``ros:`` goes by a domain.

    A twin draws pictures of ``size`` (H, W), or else as large as those in ``spec``.

    ``twin-first:TASK:ROBOT`` is a twin that the policy acts on, and whose joints the robot of that name tracks;
    ``seeing`` is its: what shows where the objects are; ``limits`` too: the file of what the arm is sent.

    Raises:
        UnknownName: naming what is valid.
        UsageError: if ``seeing`` or ``size`` is given to another robot.
    """
    _require_sized(name, size)
    if name.partition(":")[0] == "twin-first":
        from robopolicy.cli.twin_first import make_twin_first

        real = {"rate_hz": rate_hz, "domain": domain}
        return make_twin_first(
            name, clock, spec, seeing or Seeing(), make_robot, cameras=cameras, limits=limits, **real
        )
    if seeing is not None:
        raise UsageError(
            f"--pose, --markers, --noise, --pose-hz, --unseen and --parameters are of a twin before a robot, "
            f"twin-first:TASK:ROBOT; --robot {name} is none"
        )
    if name == "mock":
        from robopolicy_hardware.mock import MockRobot

        return MockRobot(replace(spec, rate_hz=rate_hz or spec.rate_hz), clock)
    if name.partition(":")[0] == "ros":
        from robopolicy_hardware.ros.robot import make_ros_robot

        if not name.partition(":")[2]:
            raise UsageError("--robot ros: say which topics are its own, as in ros:arm.yaml (hardware/README.md)")
        return make_ros_robot(name.partition(":")[2], clock, domain=domain, cameras=cameras, rate_hz=rate_hz)
    try:
        size = size or size_for(name, spec)
        return make_world(name, clock, cameras=cameras, rate_hz=rate_hz, size=size)
    except UnknownName as error:
        raise (
            UsageError(f"{error}, ros:FILE.yaml, twin-first:TASK:ROBOT, mock") if WORLDS in str(error) else error
        ) from None


def make_clock(name: str, *, realtime: bool) -> Clock:
    """Return a simulated clock for simulated worlds unless ``realtime``, and the wall clock for all others."""
    simulated = name.partition(":")[0] in SIMULATED
    return SimClock() if simulated and not realtime else WallClock()


def make_safety(spec: PolicySpec, limits: Any = None) -> Safety:
    """Return the safety layer with ``limits``, `SafetyLimits`; None are the defaults of the spec's kind of action.

    Raises:
        RobopolicyError: if the MJCF that the limits name cannot be read, or is that of another robot.
    """
    from robopolicy_hardware.safety import SafetyLayer, limits_for

    limits = limits or limits_for(spec)
    if limits.mjcf is None:
        return SafetyLayer(limits, spec)
    from robopolicy_hardware.kinematics import Chain
    from robopolicy_hardware.safety_limits import arm_joints
    from sim_envs.chains import read_chain

    return SafetyLayer(limits, spec, Chain(**read_chain(limits.mjcf, arm_joints(spec))))


def make_agent(
    checkpoint: str | Path | Running,
    *,
    monitor: str | Path | None = None,
    on_alarm: Any = "hold",
    candidates: int | None = None,
    device: str = "cpu",
    check: Callable[[Any, int], None] | None = None,
    play: Callable[..., Agent] | None = None,
    share: Callable[..., Any] | None = None,
    clock: Clock | None = None,
    robot: PolicySpec | None = None,
    timing: str | None = None,
) -> Agent:
    """Load a checkpoint, and a monitor around it if there is one; picklable under `functools.partial`.

    Args:
        checkpoint: folder written by ``robopolicy train``; or how it runs, with another solver or towards a goal.
        monitor: folder written by ``robopolicy calibrate``, or None.
        on_alarm: name of a reaction, or `robopolicy.reactions.Reactions`.
        candidates: chunks to draw a plan; None is 1, or what the monitor was calibrated with.
        device: where the policy computes, ``"cpu"`` or ``"cuda"``.
        check: told the policy and its candidates before anything else is done with them; may raise.
        play: makes an agent of (policy, candidates, generator), as `Timing.agent` does; None is `Chunked`.
        share: gives the policy where several environments of a process use one (`robopolicy.evaluation.batched`).
        clock: the loop's. Where it is real a verdict may take one control period, unless the reactions say otherwise.
        robot: its spec; None is the policy's.
        timing: how plans come, as `Timing.words` says; None: in the loop. The monitor's must be the same.
    """
    import torch

    from robopolicy.agents import Chunked, Guarded
    from robopolicy.reactions import Reactions

    running = checkpoint if isinstance(checkpoint, Running) else AS_SAVED.resolve(checkpoint)
    watch = None
    if monitor is not None:
        watch = running.load_monitor(monitor, timing)
        candidates = candidates or watch.candidates
    load = partial(running.load, device)
    policy = load() if share is None else share((running.key, device), load, candidates or 1)

    def generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    if check is not None:
        check(policy, candidates or 1)
    if play is not None:
        agent = play(policy, candidates or 1, generator)
    else:
        agent = Chunked(policy, n=candidates or 1, generator=generator)
    if watch is None:
        return agent
    robot = robot or policy.spec
    asked = Reactions(on_alarm) if isinstance(on_alarm, str) else on_alarm
    if clock is not None and not isinstance(clock, SimClock) and asked.deadline_s is None:
        asked = replace(asked, deadline_s=robot.period_ns / 1e9)
    return Guarded(agent, watch, on_alarm=asked, spec=robot, clock=clock)


def check_device(name: str) -> str:
    """Return ``name`` if torch can compute there.

    Raises:
        UsageError: saying why not.
    """
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}; --device cpu always works") from error
    return name


def world_factory(name: str, spec: PolicySpec, perturbations: Sequence[str] = ()) -> partial:
    """Return ``make_world`` for a policy's spec: with its cameras, at its rate; to be called in another process."""
    return partial(
        make_world, name, cameras=tuple(spec.cameras), rate_hz=rate_for(name, spec), size=size_for(name, spec),
        perturbations=tuple(perturbations),
    )  # fmt: skip


def _import_robot(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as python -m does; an installed command does not
    if not (module and attribute):
        raise UnknownName("robot", name, [WORLDS])
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # their module exists and misses something of its own
        raise UnknownName("robot", name, [WORLDS]) from error
    if not hasattr(found, attribute):
        raise UsageError(f"module {module} has no {attribute!r}; name the robot's class, as in package.module:Class")
    return getattr(found, attribute)
