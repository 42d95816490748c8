"""Rollouts as FIPER's own data has them, in all their variants, made of random numbers."""

import pickle

import numpy as np

STACKING = {
    "pos": [0, 1, 2], "rpy": [3, 4, 5], "joint_pos": [*range(6, 13)], "joint_vel": [*range(13, 20)], "gripper": [20],
}  # fmt: skip


def rollout(seed, *, steps=4, E=6, B=3, H=8, A=3, robots=False, **more):
    """``steps`` steps; with ``robots``, each array in a list of one robot."""
    rng = np.random.default_rng(seed)
    wrap = (lambda array: [array]) if robots else (lambda array: array)
    made = []
    for k in range(steps):
        chunks = rng.normal(size=(B, H, A)).astype(np.float32)
        made.append({
            "rgb": rng.integers(0, 255, (4, 5, 3), dtype=np.uint8), "action": wrap(chunks[0]),
            "action_pred": wrap(chunks), "agent_pos": wrap(rng.normal(size=2).astype(np.float32)),
            "obs_embedding": wrap(rng.normal(size=E).astype(np.float32)), "timestamp": 100.0 + k, "step": k, **more,
        })  # fmt: skip
    return made


def metadata(**changes):
    """As the published files have it; a change to None leaves the entry out."""
    made = {
        "task": "push_t", "episode": 0, "num_robots": 1, "num_steps": 4, "successful": True,
        "rollout_type": "calibration", "rollout_subtype": "na", "action_prediction_horizon": 8,
        "action_execution_horizon": 4, "action_batch_size": 3, "action_mappings": {"pos": [0, 1, 2]},
    } | changes  # fmt: skip
    return {name: value for name, value in made.items() if value is not None}


def write(path, about, steps, *, bare=False, protocol=4):
    """Write one file; ``bare`` is a list whose first element is the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [{**about, "metadata": True}, *steps] if bare else {"metadata": about, "rollout": steps}
    path.write_bytes(pickle.dumps(data, protocol))
    return path


def task(folder, *, calibration=6, test=4, **options):
    """A task's folder: every third episode fails, half of the test is out of distribution."""
    for part, count, subtypes in (("calibration", calibration, ("na",)), ("test", test, ("na", "hh"))):
        for i in range(count):
            good = i % 3 != 2
            about = metadata(successful=good, rollout_subtype=subtypes[i % len(subtypes)])
            name = f"episode_{'s' if good else 'f'}_{i:04d}.pkl"
            steps = rollout(1000 * len(part) + i, steps=3 + i, **options)
            write(folder / "rollouts" / part / name, about, steps)
    return folder
