"""`robopolicy train --policy motion-track`: robots' and hands' episodes in, one checkpoint that moves a robot out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robopolicy.cli.fields import changed
from robopolicy.cli.image_size import parse_sizes
from robopolicy.cli.train_together import described_together, one_rate, strides
from robopolicy.cli.training_data import DataChoice, OpenData
from robopolicy.errors import DatasetError, SpecMismatch, UsageError

KIND = "motion-track"
GRIPPER = "the YAML file of a gripper's five points, opened and closed, m in its tool frame"
SEEN, MOST = 0.02, 0.5  # of the points of a view may be outside of its pictures before it is told, or is no view
FAR_M = 0.5  # from the tool: a point so far off is told in mm
NARROW_M = 0.001  # what the tips gain by opening, and how broad five points are by which a rotation is told, at least


@dataclass(frozen=True)
class TrackPlan:
    """What a run of motion tracks is about to do."""

    config: Any  # MotionTrackConfig
    data: OpenData  # seen as tracks
    robot: Any  # PolicySpec of the robot that its checkpoint drives, its horizons still those of the data
    cameras: Mapping[str, Any]  # {view: calibration}


def is_tracks(policy: str | None, before: Mapping[str, Any]) -> bool:
    """Whether the run is of motion tracks: asked for, or that of the run to resume.

    Raises:
        UsageError: if another policy is asked for than the run to resume has.
    """
    held = before.get("config", {}).get("kind", "diffusion") if before else None
    if policy is not None and held is not None and policy != held:
        raise UsageError(f"--policy {policy}: the run to resume trains {held}; leave --policy out")
    return (policy or held) == KIND


def read_gripper(path: Path) -> dict[str, Any]:
    """Return what a file says of the gripper's five points, as fields of `MotionTrackConfig`.

    opened: [[x, y, z], ...]    m in the tool frame at opening 1: base, first finger's middle and tip, second's
    closed: [[x, y, z], ...]    the same at opening 0

    Raises:
        ConfigError: naming the file, and the points that are missing, not five, not finite, in mm, or on a line at any
            opening; or tips that are not farther apart opened than closed, or pass one another on the way.
        MissingExtra: without ruamel.yaml.
    """
    from robopolicy.settings import read_settings

    return read_settings(path, _points, GRIPPER)


def _points(data: Any) -> dict[str, Any]:
    import numpy as np

    from robopolicy.errors import ContractError, UnknownName
    from robopolicy.geometry.keypoints import POINTS, ROLES, GripperKeypoints
    from robopolicy.settings import mapping

    names, told = ("opened", "closed"), mapping(data, "the file")
    for key in told:
        if key not in names:
            raise UnknownName("key in the file", key, names)
    found = {}
    for name in names:
        if name not in told:
            raise ContractError(f"there is no {name!r}; want both {' and '.join(names)}")
        try:
            points = np.array(told[name], np.float64)
        except (TypeError, ValueError):
            points = np.zeros(0)
        if points.shape != (POINTS, 3):
            raise ContractError(f"{name}: want {POINTS} rows of x, y, z in m: {', '.join(ROLES)}")
        if np.abs(points).max() > FAR_M:
            raise ContractError(
                f"{name}: a point is {np.abs(points).max():g} m from the tool, more than {FAR_M:g} m; want metres"
            )
        found[name] = points
    made = GripperKeypoints(**found)
    _require_opens(made)
    return {name: tuple(map(tuple, getattr(made, name).tolist())) for name in names}


def _require_opens(gripper: Any) -> None:
    """Refuse points whose tips say no opening, or by which no pose can be told somewhere between opened and closed.

    Raises:
        ContractError: saying what is wrong with them.
    """
    import numpy as np

    from robopolicy.errors import ContractError
    from robopolicy.geometry.keypoints import FIRST_TIP, SECOND_TIP

    ways = [points[FIRST_TIP] - points[SECOND_TIP] for points in (gripper.opened, gripper.closed)]
    opened_m, closed_m = (float(np.linalg.norm(way)) for way in ways)
    if opened_m < closed_m + NARROW_M:
        raise ContractError(
            f"the tips are {1000 * opened_m:.3g} mm apart opened, {1000 * closed_m:.3g} mm closed; want them farther "
            "apart opened (are the two swapped?)"
        )
    if closed_m > NARROW_M and ways[0] @ ways[1] < 0:
        raise ContractError(
            "the tips are on opposite sides opened and closed, so they would pass one another; want the first finger's "
            "rows before the second's in both"
        )
    openings = np.linspace(0, 1, 101)
    points = gripper.at(openings)
    breadths = np.linalg.svd(points - points.mean(1, keepdims=True), compute_uv=False)[:, 1]
    narrowest = int(breadths.argmin())
    if breadths[narrowest] < NARROW_M:
        raise ContractError(
            f"at opening {openings[narrowest]:.2g} the points are on a line but for {1000 * breadths[narrowest]:.2g} "
            f"mm; want {1000 * NARROW_M:g} mm or more at every opening, or no rotation can be told"
        )


def plan_tracks(
    choice: DataChoice,
    before: Mapping[str, Any],
    changes: Mapping[str, Any],
    cameras: tuple[str, ...] | None,
    image_size: Sequence[str] | None,
) -> TrackPlan:
    """Open the datasets as tracks, those of different rates thinned to the one that they have in common.

    Args:
        choice: of robots, hands or both; without weights both embodiments get the same share of the samples.
        before: of the run to resume, or {}.
        changes: what of `MotionTrackConfig` was asked for.
        cameras: the views; None: all that every dataset has, wrist cameras left out.
        image_size: what pictures are made smaller to.

    Raises:
        UsageError: if fewer than two views are left, nothing succeeded, or a picture's size makes no sense.
        SpecMismatch, DatasetError: if the datasets do not fit together, or hold no tracks.
    """
    from robopolicy.policies.track_config import MotionTrackConfig
    from robopolicy.spec import TOOL_POSE, PolicySpec, StateSpec
    from robopolicy_data.mixture import not_failed, require_same_spec, thinned
    from robopolicy_data.picture_sizes import made_alike
    from robopolicy_data.reader import Dataset
    from robopolicy_data.tracked import TrackedDataset

    start = MotionTrackConfig.from_json(before["config"]) if "config" in before else MotionTrackConfig()
    config = changed(start, changes, names=dict.fromkeys(("opened", "closed"), "gripper"))
    opened = [Dataset(path) for path in choice.paths]
    views = cameras or tuple(before.get("spec", {}).get("cameras", ())) or _fixed_views(opened)
    if len(views) < 2:
        have = f"--cameras {' '.join(views)}" if cameras else f"the data share {', '.join(views) or 'none'}"
        raise UsageError(f"{have}: motion tracks want two calibrated cameras that stand still, or more")
    if image_size is not None:
        recorded = opened[0].spec.select(tuple(views), ()).cameras
        config = replace(config, vision=replace(config.vision, sizes=parse_sizes(image_size, recorded)))
    datasets = [
        TrackedDataset(dataset, views, config.gripper, choice.every, stride)
        for dataset, stride in zip(opened, strides([dataset.spec.rate_hz for dataset in opened]), strict=True)
    ]
    try:
        spec = require_same_spec(datasets, None, None)
    except SpecMismatch as error:
        raise SpecMismatch(f"{error}{made_alike(datasets)}{one_rate(datasets)}") from error
    episodes = [episode for dataset in datasets for episode in dataset if not_failed(episode)]
    if not episodes:
        raise UsageError(f"{', '.join(map(str, choice.paths))}: no episode to train from")
    if choice.weights is None and (shares := _shares(datasets)) is not None:
        choice = replace(choice, weights=shares)
    robots = [dataset for dataset in datasets if not any(episode.human for episode in dataset)]
    state = robots[0].recorded.state if robots else {}
    standard = {
        "tool_pos": StateSpec(3, ("m",)),
        "tool_quat": StateSpec(4, ("quat",)),
        "gripper": StateSpec(1, ("open",)),
    }
    robot = PolicySpec(
        cameras=spec.cameras, state={name: state.get(name, standard[name]) for name in standard}, action=TOOL_POSE,
        rate_hz=spec.rate_hz / choice.every,
    )  # fmt: skip
    calibrated = next((episode for dataset in robots or datasets for episode in dataset), episodes[0])
    data = OpenData(choice, datasets, episodes, spec, thinned(spec, choice.every))
    seen = {name: entry for name, entry in calibrated.meta.cameras.items() if name in views}
    if lacking := [name for name in views if name not in seen]:
        raise DatasetError(
            f"{calibrated.where}: camera {lacking[0]!r} is not calibrated; tell it (data label --calibration)"
        )
    return TrackPlan(config, data, robot, seen)


def build(plan: TrackPlan, spec: Any, seed: int) -> tuple[Any, Any]:
    """Return the network before its first step, and what writes its checkpoints, as `train` takes it."""
    import torch

    from robopolicy.policies.motion_track import MotionTrackPolicy
    from robopolicy.policies.track_net import TrackNet
    from robopolicy.training.checkpoint import save_checkpoint

    torch.manual_seed(seed)
    net = TrackNet(spec, plan.config)
    robot = on_robot(plan, spec)

    def save(folder: Path, trained: Any, *, train: Mapping[str, Any]) -> None:
        save_checkpoint(folder, MotionTrackPolicy(trained, robot, plan.cameras), train=train)

    MotionTrackPolicy(net, robot, plan.cameras)  # what does not fit is refused here, and not after the training
    return net, save


def described_tracks(plan: TrackPlan) -> Iterator[str]:
    """Yield lines for people: who did what is learnt from, and how much of it the pictures do not show.

    Raises:
        DatasetError: naming what holds no points, or grasps that cannot be right.
    """
    counts = [sum(episode.human == human for episode in plan.data.episodes) for human in (False, True)]
    told = f"views {', '.join(plan.cameras)}: {counts[0]} episodes of robots, {counts[1]} of hands"
    if all(counts) and plan.data.choice.weights is not None:
        kinds = [any(episode.human for episode in dataset) for dataset in plan.data.datasets]
        weights = plan.data.choice.weights
        share = sum(weight for weight, human in zip(weights, kinds, strict=True) if human) / sum(weights)
        told += f", {share:.0%} of the samples of hands"
    yield told
    if not counts[0]:
        yield (
            f"no robot is among them: the checkpoint takes one with {', '.join(plan.robot.state)} (0 closed to 1 open) "
            f"at {plan.robot.rate_hz:g} Hz, commanded by tool poses, whose gripper's points are those of --gripper, or "
            "the twin's"
        )
    yield from described_together(plan.data.datasets, plan.data.choice.every)
    outside = [max(_outside(plan, view, human) for human in (False, True)) for view in plan.cameras]
    if moved := _moved(plan):
        yield (
            f"{', '.join(moved)}: not always in one place; the checkpoint tells where the robot's first episode has "
            "them, to a robot that does not tell its own calibration"
        )
    if max(outside) > SEEN:
        shares = ", ".join(f"{share:.0%} of {view}" for view, share in zip(plan.cameras, outside, strict=True))
        yield f"points outside of the pictures, learnt where they are: {shares}"


def _moved(plan: TrackPlan) -> list[str]:
    """Return the views whose cameras robots' episodes have in another place than the checkpoint."""
    from robopolicy.geometry.cameras import cameras_of

    first, moved = cameras_of(plan.cameras, tuple(plan.cameras)), set()
    for episode in plan.data.episodes:
        if not episode.human:
            here = cameras_of(episode.meta.cameras, tuple(first))
            moved |= {name for name, camera in here.items() if not camera.is_like(first[name])}
    return [name for name in first if name in moved]


def _outside(plan: TrackPlan, view: str, human: bool) -> float:
    """Return the share of the points of robots, or of hands, that a view's pictures do not show.

    Raises:
        DatasetError: if it is most of them: that is no view of what was done.
    """
    import numpy as np

    from robopolicy.geometry.keypoints import keypoints_of

    points = [episode.state(keypoints_of(view)) for episode in plan.data.episodes if episode.human == human]
    if not points:
        return 0.0
    camera, every = plan.robot.cameras[view], np.concatenate(points).reshape(-1, 2)
    shown = (every >= -0.5) & (every <= np.array([camera.width, camera.height]) - 0.5)
    outside = 1 - float(shown.all(-1).mean())
    if outside > MOST:
        who = "hands'" if human else "robots'"
        raise DatasetError(
            f"{outside:.0%} of the {who} points are outside of the pictures of {view!r}; want a view of what is done, "
            "and its calibration: T_base_cam takes from the camera to the base, in m"
        )
    return outside


def on_robot(plan: TrackPlan, spec: Any) -> Any:
    """Return the robot's `PolicySpec` with the horizons of the tracks'."""
    return replace(plan.robot, n_obs=spec.n_obs, horizon=spec.horizon, n_execute=spec.n_execute)


def _fixed_views(datasets: Sequence[Any]) -> tuple[str, ...]:
    """Return the cameras that all datasets have and that do not ride on a tool, in the order of the first."""
    first, *others = datasets
    names = [name for name in first.spec.cameras if all(name in other.spec.cameras for other in others)]
    told = [episode.meta.cameras for dataset in datasets for episode in dataset[:1]]
    return tuple(name for name in names if not any("T_tool_cam" in cameras.get(name, {}) for cameras in told))


def _shares(datasets: Sequence[Any]) -> tuple[float, ...] | None:
    """Return shares by which both embodiments make up half of the samples each; None if there is but one."""
    from robopolicy_data.mixture import not_failed

    rows: list[tuple[bool, int]] = []
    for dataset in datasets:
        kept = [episode for episode in dataset if not_failed(episode)]
        kinds = {episode.human for episode in kept}
        if len(kinds) > 1:
            raise UsageError(f"{dataset.where} holds both robots and hands; want a dataset each, or --weights")
        rows.append((kinds.pop() if kinds else False, sum(episode.length for episode in kept)))
    total = {human: sum(count for kind, count in rows if kind == human) for human in (False, True)}
    if not all(total.values()):
        return None
    return tuple(0.5 * count / total[human] for human, count in rows)
