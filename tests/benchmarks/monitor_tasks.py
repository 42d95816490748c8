"""Policies that succeed, and worlds in which they fail: what `bench_monitor_tasks.py` judges monitors by."""

from dataclasses import dataclass
from pathlib import Path

N_EXECUTE = 8  # control steps of a decision
ARM = ("tool_pos", "tool_quat", "gripper")
NOMINAL = 10_000  # first seed of the undisturbed episodes, of which some fit, some calibrate and some test
PERTURBED = 30_000  # first seed of the perturbed ones: other starts
CHOOSING = 90_000  # first seed of those by which severities and methods were chosen; none of them is ever judged


@dataclass(frozen=True)
class Task:
    """A policy to make, and how hard its world has to be shaken until it fails in 30 to 60 % of the episodes."""

    states: tuple[str, ...]
    steps: int  # of training, in batches of 128
    limit: int  # control steps of an episode: twice the median demonstration, in whole decisions
    nominal: int  # episodes of the undisturbed world
    severities: dict[str, float]  # by axis, tuned on the seeds from ``CHOOSING`` on


# Where even the most severe perturbation makes fewer fail it is 1. The policies see states: camera, lighting and
# texture would change nothing of an episode.
TASKS: dict[str, Task] = {
    "peg": Task(
        ("peg_pos", "peg_quat", "hole"), 8000, 160, 200,
        {"pose": 0.35, "friction": 1.0, "action_delay": 0.6, "push": 0.45, "slip": 0.2},
    ),
    "lift": Task(
        ("cube_pos", "cube_quat"), 3000, 104, 140,
        {"pose": 1.0, "size": 1.0, "action_delay": 1.0, "push": 1.0, "slip": 0.25},
    ),
    "drawer": Task(
        ("chest", "left_handle", "right_handle", "left_open", "right_open"), 2500, 96, 140,
        {"pose": 0.8, "friction": 1.0, "action_delay": 1.0, "push": 1.0, "slip": 1.0},
    ),
}  # fmt: skip
DEMONSTRATIONS = 200


def make_policy(work: Path, task: str) -> Path:
    """Record demonstrations and train on them, whatever is not there yet; return the checkpoint."""
    from robopolicy.cli.record import record
    from robopolicy.cli.train import train
    from robopolicy.training.checkpoint import TRAIN, read_train
    from robopolicy.training.resume import RESUME

    data, checkpoint = work / f"{task}.zarr", work / task
    if (checkpoint / TRAIN).exists() and read_train(checkpoint)["finished"]:
        return checkpoint
    record(f"twin:{task}", data, DEMONSTRATIONS, cameras=())
    settings = {"steps": TASKS[task].steps, "batch_size": 128}
    train(
        data, checkpoint, states=(*ARM, *TASKS[task].states), n_obs=2, horizon=2 * N_EXECUTE, n_execute=N_EXECUTE,
        settings=settings, resume=(checkpoint / RESUME).exists(),
    )  # fmt: skip
    return checkpoint


def collect(
    work: Path, task: str, perturbations: tuple[str, ...], seeds: range, *, jobs: int, purpose: str = "test"
) -> Path:
    """Run the episodes of ``seeds`` that are missing; return the folder with outcomes and decisions.

    Args:
        work: folder of everything.
        task: key of ``TASKS``.
        perturbations: each as AXIS:SEVERITY; () is the world as it is.
        seeds: starts.
        jobs: processes.
        purpose: subfolder: what is chosen by is kept apart from what is judged by.
    """
    from robopolicy.cli.calibrate import CANDIDATES
    from robopolicy.cli.evaluate import Subject, roll_and_report
    from robopolicy.cli.together import Together
    from robopolicy.evaluation.rollouts import Options

    checkpoint, env = work / task, f"twin:{task}"
    name = "-".join([task, *([one.replace(":", "-") for one in perturbations] or ["nominal"])])
    out = work / purpose / name
    subject = Subject.of(checkpoint, env, candidates=CANDIDATES, perturbations=perturbations)
    options = Options(max_steps=TASKS[task].limit, decisions=True)
    roll_and_report(
        subject, list(seeds), out, options, jobs=jobs, videos=0, together=Together.of(checkpoint, None), label=name,
        title=name, facts={"checkpoint": str(checkpoint), "env": env, "seeds": f"{seeds.start}:{seeds.stop}"},
    )  # fmt: skip
    return out
