"""The loop: the same few lines for teleoperation, evaluation, twin and arm."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from robopolicy.interfaces import Agent, Clock, Robot, Safety, Watcher
from robopolicy.types import EpisodeMeta, Observation, Step


def run_episode(
    robot: Robot,
    agent: Agent,
    clock: Clock,
    safety: Safety,
    meta: EpisodeMeta,
    *,
    max_steps: int,
    watchers: Sequence[Watcher] = (),
    done: Callable[[Observation], bool] = lambda observation: False,
    finish: Callable[[EpisodeMeta], EpisodeMeta] = lambda meta: meta,
) -> EpisodeMeta:
    """Run one episode at ``robot.spec.rate_hz`` with absolute deadlines and return its completed meta.

    However the episode ends, also by an exception or Ctrl-C, the robot is stopped and the watchers hear of the end,
    so that nothing recorded is lost; after an exception ``success`` is False and ``notes`` says why. Ticks that a
    stall swallowed are skipped, and counted in ``extra["skipped_ticks"]``. A command may end the episode (``ends``);
    ``notes`` then holds its reason. An agent that is a `Watcher` too hears of every step, first of all.

    Args:
        robot: where observations come from and commands go.
        agent: decides; reset with ``meta.seed`` before the first step.
        clock: shared with the robot.
        safety: limits each command against the newest observation.
        meta: what is known beforehand.
        max_steps: commands to send at most.
        watchers: told of every step, in order.
        done: asked with each new observation; True ends the episode.
        finish: completes the meta (success, score) before the watchers hear of the end.
    """
    meta = replace(meta, rate_hz=robot.spec.rate_hz)
    agent.reset(meta.seed or 0)
    safety.reset()
    if isinstance(agent, Watcher) and agent not in watchers:
        watchers = (agent, *watchers)
    for watcher in watchers:
        watcher.on_start(meta, robot.spec)
    start_ns, k, skipped = clock.now_ns(), 0, 0
    try:
        for sent_before in range(max_steps + 1):
            due_ns = start_ns + k * robot.spec.period_ns
            clock.sleep_until(due_ns)
            observation = robot.read()
            if sent_before == max_steps or done(observation):
                break
            command = agent.act(observation)
            if command.source == "hold" or command.values is None:
                sent = robot.stop(command.reason)
                safety.reset()  # what was sent before is not in force any more: go on from where the robot is
            else:
                sent = robot.command(safety.limit(command.values, observation, clock.now_ns()), due_ns)
            step = Step(observation, sent, due_ns, command.source, command.verdict)
            for watcher in watchers:
                watcher.on_step(step)
            if command.ends:
                meta = replace(meta, notes=f"{meta.notes} {command.reason}".strip())
                break
            now = (clock.now_ns() - start_ns) // robot.spec.period_ns
            skipped += max(now - (k + 1), 0)
            k = max(now, k + 1)  # after a stall, on with the present tick: no burst of those that were missed
        robot.stop("end of episode")
    except BaseException as error:
        reason = f"ended by {type(error).__name__}: {error}"
        try:
            robot.stop(reason)
        except Exception as second:
            error.add_note(f"the robot could not be stopped: {second}")
        _end_all(watchers, replace(meta, success=False, notes=f"{meta.notes} {reason}".strip()), error)
        raise
    meta = finish(meta)
    if skipped:
        meta = replace(meta, extra={**meta.extra, "skipped_ticks": skipped})
    for watcher in watchers:
        watcher.on_end(meta)
    return meta


def _end_all(watchers: Sequence[Watcher], meta: EpisodeMeta, error: BaseException) -> None:
    """Tell every watcher of the end; one that cannot take it is named in a note to the first error."""
    for watcher in watchers:
        try:
            watcher.on_end(meta)
        except Exception as second:
            error.add_note(f"{type(watcher).__name__} could not end the episode: {second}")
