"""Random and adversarial commands through the safety layer: is a limit ever exceeded, and what does a command cost?

    python tests/benchmarks/bench_safety.py [--commands 1000000]

Three layers: seven joints and a gripper, which get most of the commands; the same with walls and a table for all
links, by forward kinematics; a tool pose. What they get is wild: far and jumping goals, extremes that alternate,
numbers up to 1e30, NaN; ticks of uneven length; stops, pauses and restarts, some from outside the box. Every command
that was sent is compared with the limits by arithmetic of its own (tests/wild_commands.py); what float32 rounds is
taken off. The time of a step is that since the command before, a period at most: a late tick earns no larger step.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from wild_commands import BATCH, Excess, Wild, excesses

from robopolicy.rotations import matrix_to_rot6d
from robopolicy.spec import TOOL_POSE, ActionSpec, PolicySpec, StateSpec
from robopolicy_hardware.kinematics import Chain
from robopolicy_hardware.safety import SafetyLayer, SafetyLimits
from sim_envs.arm import HOME, JOINTS, add_arm
from sim_envs.chains import read_chain
from sim_envs.scene import make_scene

RATE_HZ = 100.0
JOINT = PolicySpec(
    state={"q": StateSpec(7, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", (*JOINTS, "gripper"), (*("rad",) * 7, "open")), rate_hz=RATE_HZ,
)  # fmt: skip
POSE = PolicySpec(
    state={"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",)), "gripper": StateSpec(1, ("open",))},
    action=TOOL_POSE, rate_hz=RATE_HZ,
)  # fmt: skip
WALLS = {"workspace_low": (-0.35, -0.5, -0.3), "workspace_high": (0.75, 0.5, 1.0), "table_m": 0.02}

SHARES = {"joints": 0.7, "joints, walls and table": 0.15, "tool pose": 0.15}  # of the commands


def layers() -> dict[str, Callable[[int], tuple[Wild, SafetyLimits, PolicySpec, Chain | None]]]:
    """{name: what makes one from a seed}."""
    scene = make_scene()
    add_arm(scene)
    chain = Chain(**read_chain(scene.compile(), JOINTS))
    low, high = np.r_[chain.low, 0.0], np.r_[chain.high, 1.0]
    box = {"low": tuple(low), "high": tuple(high), "margin": 0.02, "max_rate": (1.5,) * 7 + (5.0,),
           "max_accel": (7.5,) * 7 + (50.0,)}  # fmt: skip
    tool = SafetyLimits(
        low=(0.1, -0.6, 0.0), high=(0.9, 0.6, 0.9), max_speed_m_s=0.5, max_turn_rad_s=2.0, max_accel_m_s2=10.0,
        max_turn_accel_rad_s2=40.0,
    )  # fmt: skip

    def joints(walls: bool) -> Callable:
        limits = SafetyLimits(**box, **(WALLS if walls else {}))

        def make(seed: int) -> tuple:
            layer = SafetyLayer(limits, JOINT, chain)
            return Wild(layer, limits, JOINT, low, high, np.r_[HOME, 1.0], seed), limits, JOINT, walls and chain

        return make

    def pose(seed: int) -> tuple:
        down = matrix_to_rot6d(np.diag([1.0, -1.0, -1.0]))
        low, high = np.r_[tool.low, -np.ones(6), 0.0], np.r_[tool.high, np.ones(6), 1.0]
        home = np.r_[0.45, 0.0, 0.2, down, 1.0]
        return Wild(SafetyLayer(tool, POSE), tool, POSE, low, high, home, seed), tool, POSE, None

    return {"joints": joints(False), "joints, walls and table": joints(True), "tool pose": pose}


def of_links(sent: np.ndarray, start: np.ndarray, chain: Chain) -> Excess:
    """How far any link is outside at a command, m, beyond where it was at the one before."""
    low, high = np.array(WALLS["workspace_low"]), np.array(WALLS["workspace_high"])
    low[2] = max(low[2], WALLS["table_m"])
    worst = 0.0
    for i in range(0, len(sent), 500):
        after, before = (chain.forward(rows[i : i + 500, :7]) for rows in (sent, start))
        ball = chain.radii[:, None]
        out = [np.maximum(np.maximum(low - (p - ball), p + ball - high), 0.0) for p in (after, before)]
        worst = max(worst, float(np.max(out[0] - out[1])))
    return Excess("links", worst if worst > 1e-6 else 0.0, 1.0)


def measure(make: Callable, commands: int, seed: int) -> tuple[list[Excess], Counter, int, int, float]:
    """Return excesses, what was refused, how many wrongly, how many were sent, and seconds of CPU a command."""
    wild, limits, spec, chain = make(seed)
    log = wild.run(commands)
    found = excesses(log, limits, spec)
    if chain:
        found.append(of_links(np.array(log.sent), np.array(log.start), chain))
    return found, log.refused, log.wrongly, len(log.sent), wild.limit_s / commands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    made = layers()
    beyond, total = 0, 0
    for name, make in made.items():
        each = max(BATCH, round(args.commands * SHARES[name]))
        block = min(20_000, each)
        worst: dict[str, Excess] = {}
        refused, wrongly, sent, costs = Counter(), 0, 0, []
        for k in range(-(-each // block)):
            found, more, wrong, count, cost = measure(make, block, args.seed + k)
            refused.update(more)
            wrongly, sent = wrongly + wrong, sent + count
            costs.append(cost)
            for one in found:
                had = worst.get(one.limit, Excess(one.limit, 0.0, 0.0))
                worst[one.limit] = Excess(one.limit, max(had.beyond, one.beyond), max(had.used, one.used))
        total += sent + sum(refused.values())
        print(f"{name}: {sent} sent, {sum(refused.values())} refused, {wrongly} of them wrongly; "
              f"{1e6 * float(np.median(costs)):.0f} us of CPU a command")  # fmt: skip
        for one in worst.values():
            beyond += one.beyond > 0
            print(f"  {one.limit:<20} beyond by {one.beyond:.2g}, at most {one.used:.4f} of the limit")
        beyond += wrongly
    print(f"limits never exceeded in 10^6 commands: {total} commands, {beyond} limits exceeded")
    sys.exit(beyond > 0)


if __name__ == "__main__":
    main()
