"""Reaching in a plane: demonstrations whose every fault is put there on purpose."""

from types import SimpleNamespace

import numpy as np

from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.writer import DatasetWriter

SPEC = PolicySpec(
    state={"hand": StateSpec(2, ("m",)), "goal": StateSpec(2, ("m",)), "grip": StateSpec(1, ("open",))},
    action=ActionSpec("vector", ("x", "y", "grip"), ("m", "m", "open")),
    rate_hz=20.0,
)
LEAD = 0.01  # m, of the command before the hand


def reach(rng, *, bend=0.0, shake=0.0, start=None, pace=1.0, steps=54):
    """One reach to the goal with commands ahead of the hand; ``bend`` m to the left of the straight line."""
    hand = np.array(rng.uniform(-0.05, 0.05, 2) if start is None else start, float)
    goal = hand + np.array([0.4, 0.0]) + rng.uniform(-0.05, 0.05, 2)
    begin, hands, sent = hand.copy(), [], []
    for _ in range(steps):
        hands.append(hand.copy())
        part = np.clip((hand - begin) @ (goal - begin) / ((goal - begin) @ (goal - begin)), 0, 1)
        aim = goal + np.array([0.0, 4 * bend * (1 - part)]) - hand
        move = aim * min(1.0, pace * LEAD / (np.linalg.norm(aim) + 1e-9)) + rng.normal(0, 0.001 + shake, 2)
        sent.append([*(hand + move), 1.0])
        hand = hand + 0.7 * move
    hands = np.array(hands, np.float32)
    state = {"hand": hands, "goal": np.repeat([goal], steps, 0).astype(np.float32), "grip": np.ones((steps, 1), "f4")}
    return SimpleNamespace(state=state, action=np.array(sent, np.float32))


def detour(episode, at, steps, rng):
    """The same episode with a way up and back inserted before step ``at``."""
    swing = 0.25 * np.sin(np.linspace(0, np.pi, steps + 2)[1:-1])
    path = episode.state["hand"][at] + np.stack([rng.normal(0, 0.002, steps), swing], 1)
    away = {name: np.repeat(values[at : at + 1], steps, 0) for name, values in episode.state.items()}
    away["hand"] = path.astype(np.float32)
    ahead = np.append(path[1:], path[-1:], 0)
    sent = np.column_stack([ahead, np.ones(steps)]).astype(np.float32)

    def insert(whole, part):
        return np.concatenate([whole[:at], part, whole[at:]])

    state = {name: insert(values, away[name]) for name, values in episode.state.items()}
    return SimpleNamespace(state=state, action=insert(episode.action, sent))


def join(episodes):
    """Episodes as the arrays that the judges take."""
    state = {name: np.concatenate([e.state[name] for e in episodes]) for name in SPEC.state}
    ends = np.cumsum([len(e.action) for e in episodes])
    return SimpleNamespace(state=state, action=np.concatenate([e.action for e in episodes]), episode_ends=ends)


def steps_of(episode):
    for k, action in enumerate(episode.action):
        stamp = 1_000_000_000 + k * SPEC.period_ns
        yield Step(Observation(stamp, {n: v[k] for n, v in episode.state.items()}), action, stamp, "human")


def write(path, episodes, success=()):
    """Record the episodes into a dataset; ``success`` says which failed (position: label)."""
    with DatasetWriter(path, SPEC) as writer:
        for i, episode in enumerate(episodes):
            recording = writer.begin(EpisodeMeta("reach", "plane", seed=i))
            for step in steps_of(episode):
                recording.add(step)
            recording.commit(EpisodeMeta("reach", "plane", seed=i, success=dict(success).get(i, True)))
    return path
