"""What a chunk change costs when planning lasts 200 ms: the largest velocity step at seams beside that inside chunks.

python tests/benchmarks/bench_seams.py [--steps 6000] [--episodes 100]

A point goes round an obstacle, left or right, at 20 Hz, as a hand would: some quicker, some wider, none twice the
same. A flow policy learns that, once plainly and once with given prefixes, and is then driven with a delay of four
steps: as it is (naive), with the trained prefix, and with real-time chunking without and with the Jacobian.

A velocity step is |v(k) - v(k-1)|, v(k) the difference of two commands in a row, m/s. One is at a seam if the three
commands it is made of are not all of one chunk. ``arrived`` is the share of episodes that reach the goal without
touching the obstacle.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from robopolicy.agents import Chunked
from robopolicy.policies.config import DiffusionConfig, RealTimeConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import FlowConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.training.config import TrainConfig
from robopolicy.training.trainer import train
from robopolicy.types import Observation
from robopolicy_data.arrays import Arrays
from robopolicy_data.windows import WindowSampler

RATE_HZ, DELAY_STEPS, LENGTH = 20, 4, 60  # 200 ms; 3 s
GOAL, OBSTACLE, RADIUS = np.array([1.0, 0.0]), np.array([0.5, 0.0]), 0.12  # m
SPEC = PolicySpec(
    state={"pos": StateSpec(2, ("m",))}, action=ActionSpec("vector", ("x", "y"), ("m",)), rate_hz=RATE_HZ,
    n_obs=2, horizon=16, n_execute=8,
)  # fmt: skip
CONFIG = DiffusionConfig(MlpConfig(width=256, depth=3), process=FlowConfig(), solver=SolverConfig("euler", 8), lr=1e-3)


def demonstrations(episodes: int, rng: np.random.Generator) -> WindowSampler:
    """Walks (LENGTH, 2) from near the origin to the goal, the command at each step where to be at the next."""
    walks = []
    for _ in range(episodes):
        time = np.linspace(0, 1, LENGTH + 1) ** rng.uniform(0.8, 1.25)
        side = rng.choice([-1, 1]) * rng.uniform(0.25, 0.4)
        wobble = sum(rng.normal(0, 0.02) * np.sin(np.pi * k * time) for k in (1, 2, 3, 4))
        start = rng.normal(0, 0.03, 2)
        path = start + (GOAL - start) * (3 * time**2 - 2 * time**3)[:, None]
        path[:, 1] += side * np.sin(np.pi * time) + wobble
        walks.append(path)
    state = np.concatenate([walk[:-1] for walk in walks]).astype(np.float32)
    action = np.concatenate([walk[1:] for walk in walks]).astype(np.float32)
    arrays = Arrays({"pos": state}, action, {}, LENGTH * np.arange(1, episodes + 1))
    return WindowSampler(arrays, SPEC.n_obs, SPEC.horizon)


def drive(policy: DiffusionPolicy, seed: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the commands (T, 2), which plan each is of (T,), and whether it arrived."""
    rng = np.random.default_rng([seed, 1])
    agent = Chunked(policy, generator=np.random.default_rng, delay_steps=DELAY_STEPS)
    agent.reset(seed)
    at = rng.normal(0, 0.03, 2)
    commands, plans, clear = [], [], True
    for k in range(round(1.3 * LENGTH)):
        command = agent.act(Observation(k * SPEC.period_ns, {"pos": at.astype(np.float32)}))
        if command.values is not None:
            commands.append(command.values)
            plans.append((k - DELAY_STEPS) // SPEC.n_execute)
            at = at + 0.6 * (command.values - at) + rng.normal(0, 0.002, 2)  # an arm that lags
        clear = clear and np.linalg.norm(at - OBSTACLE) > RADIUS
    return np.array(commands), np.array(plans), bool(clear and np.linalg.norm(at - GOAL) < 0.1)


def velocity_steps(commands: np.ndarray, plans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sizes of the velocity steps at seams and inside chunks, m/s."""
    steps = np.linalg.norm(np.diff(commands, 2, axis=0), axis=1) * RATE_HZ
    inside = plans[2:] == plans[:-2]
    return steps[~inside], steps[inside]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6000, help="of each of the two trainings")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    sampler = demonstrations(400, np.random.default_rng(0))
    trained = {}
    for name, config in {"plain": CONFIG, "prefixes": replace(CONFIG, max_delay=6)}.items():
        torch.manual_seed(0)
        settings = TrainConfig(steps=options.steps, batch_size=256, device=options.device, num_threads=1)
        with tempfile.TemporaryDirectory() as folder:
            trained[name] = train(DiffusionPolicy(SPEC, config), sampler, Path(folder), settings)
    real_time = {"identity": RealTimeConfig(), "vjp": RealTimeConfig(jacobian="vjp")}
    ways = {"naive": (trained["plain"], None), "trained prefix": (trained["prefixes"], None)}
    ways |= {f"real-time, {name}": (trained["plain"], setting) for name, setting in real_time.items()}
    print(
        f"{options.episodes} episodes, delay {DELAY_STEPS} steps of {1000 / RATE_HZ:g} ms, {CONFIG.solver.steps} steps"
    )
    print(f"{'':22}{'largest velocity step, m/s':>32}{'':>8}{'p99':>18}")
    print(f"{'':22}{'at seams':>16}{'inside':>16}{'ratio':>8}{'at seams':>10}{'inside':>8}{'arrived':>10}")
    for name, (policy, setting) in ways.items():
        policy.config = replace(policy.config, real_time=setting)
        runs = [drive(policy, seed) for seed in range(options.episodes)]
        steps = [velocity_steps(commands, plans) for commands, plans, _ in runs]
        seams, inside = (np.concatenate(part) for part in zip(*steps, strict=True))
        arrived = np.mean([ok for *_, ok in runs])
        print(
            f"{name:22}{seams.max():16.3f}{inside.max():16.3f}{seams.max() / inside.max():8.2f}"
            f"{np.percentile(seams, 99):10.3f}{np.percentile(inside, 99):8.3f}{arrived:10.0%}"
        )


if __name__ == "__main__":
    main()
