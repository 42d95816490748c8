"""Where cameras are, from a board that an arm carries past them, or that stands where they are carried past it.

All cameras are solved for together. With T_i the tool's pose at moment i, X a camera's place and Y the board's:

    pose of the board in the camera = X^-1 G_i Y,   G_i = T_i     a camera in the base, the board on the tool
                                                    G_i = T_i^-1  a camera on the tool, the board in the base
                                                    G_i = 1       both in the base

A closed form is the start; then X of each camera and Y make the reprojection error of all
corners least (Dornaika and Horaud 1998; Tabb and Ahmad Yousef 2017).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from robopolicy.errors import CalibrationError, ContractError
from robopolicy.rotations import matrix_to_rotvec, rotvec_to_matrix
from robopolicy_hardware.cameras.charuco import Sighting, pose_of, project, rms
from robopolicy_hardware.cameras.lens import KEPT, OUTLIER, OUTLIER_PX, Lens

FEWEST_MOMENTS = 4
HALVES = 8  # of the pictures, drawn at random, to start from
TURN_DEG = 4.0  # root mean square turn of the tool about the second of its axes; less, and a direction is not known


@dataclass(frozen=True)
class Setup:
    """What moves with what.

    Args:
        board: ``"tool"``, the gripper holds it, or ``"base"``, it stands still.
        on_tool: names of the cameras that the tool carries.
        tools: {moment: T_base_tool (4, 4)}.
        T_board: (4, 4) the board's place on what it is on, if it is known.

    Raises:
        ContractError: if a camera on the tool is to see a board on the tool.
    """

    board: Literal["tool", "base"] = "base"
    on_tool: Collection[str] = ()
    tools: Mapping[str, np.ndarray] = field(default_factory=dict)
    T_board: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.board == "tool" and self.on_tool:
            raise ContractError(
                f"camera {min(self.on_tool)} is on the tool and so is the board: nothing moves between them"
            )

    def moves(self, view: str) -> bool:
        """Whether camera and board move against each other."""
        return self.board == "tool" or view in self.on_tool

    def between(self, seen: Sighting, nudge: np.ndarray | None = None) -> np.ndarray:
        """Return G (4, 4), what the tool's pose, nudged by (6,) as `nudged` does, says of the way from board to camera.

        Raises:
            CalibrationError: naming the moment whose tool pose is not known.
        """
        if not self.moves(seen.view):
            return np.eye(4)
        if seen.moment not in self.tools:
            raise CalibrationError(f"no tool pose of picture {seen.moment} of camera {seen.view}")
        tool = np.asarray(self.tools[seen.moment], np.float64)
        if nudge is not None:
            tool = nudged(tool, nudge)
        return np.linalg.inv(tool) if seen.view in self.on_tool else tool


@dataclass(frozen=True)
class Places:
    """Where everything is.

    Args:
        cameras: {view: (4, 4)}: T_base_cam, or T_tool_cam of a camera on the tool.
        board: (4, 4), T_base_board or T_tool_board.
        errors_px: {view: {moment: root mean square reprojection error}}.
        dropped_px: the same of pictures that were left out.
        deviations: {view: (mm, degrees)}, 1 sigma, from how much the pictures contradict each other.
    """

    cameras: dict[str, np.ndarray]
    board: np.ndarray
    errors_px: dict[str, dict[str, float]]
    dropped_px: dict[str, dict[str, float]]
    deviations: dict[str, tuple[float, float]]

    def error_px(self, view: str) -> float:
        """Return the root mean square over a camera's pictures."""
        return float(np.sqrt(np.mean(np.square([*self.errors_px[view].values()]))))


def find_places(
    sightings: Sequence[Sighting], lenses: Mapping[str, Lens], setup: Setup, max_error_px: float = 1.0
) -> Places:
    """Return where the cameras of these sightings are; pictures that fit badly are left out, and counted.

    Raises:
        CalibrationError: saying what the pictures or tool poses lack, or which camera's error is above the limit.
    """
    _require_turns(sightings, setup)
    used = list(sightings)
    dropped: dict[str, dict[str, float]] = {one.view: {} for one in sightings}
    problem = Problem(used, lenses, setup, *start(sightings, lenses, setup))
    problem.solve("soft_l1")
    while True:
        errors = problem.errors()
        limit = max(OUTLIER * float(np.median([rms(one) for one in errors])), OUTLIER_PX)
        worst = int(np.argmax([rms(one) for one in errors]))
        if rms(errors[worst]) <= limit:
            break
        out = used.pop(worst)
        dropped[out.view][out.moment] = rms(errors[worst])
        whole = sum(one.view == out.view for one in sightings)
        if sum(one.view == out.view for one in used) < max(KEPT * whole, 1):
            raise CalibrationError(
                f"camera {out.view}: {len(dropped[out.view])} of {whole} pictures contradict the others (picture "
                f"{out.moment}: {rms(errors[worst]):.1f} px); were the tool's poses read while it stood still?"
            )
        problem = Problem(used, lenses, setup, problem.cameras, problem.board)
        problem.solve("soft_l1")
    deviations = problem.solve("linear")
    errors_px: dict[str, dict[str, float]] = {one.view: {} for one in used}
    for one, error in zip(used, problem.errors(), strict=True):
        errors_px[one.view][one.moment] = rms(error)
    places = Places(problem.cameras, problem.board, errors_px, dropped, deviations)
    for view in errors_px:
        if places.error_px(view) > max_error_px:
            raise CalibrationError(
                f"camera {view}: reprojection error {places.error_px(view):.2f} px with the poses of arm and board, "
                f"the limit is {max_error_px:g}; its lens alone leaves {lenses[view].error_px:.2f}. Is the tool's pose "
                "that of the same instant, and the board fixed firmly?"
            )
    return places


class Problem:
    """The reprojection error of all corners as a function of where cameras and board are.

    Args:
        sightings: what was seen.
        lenses: {view: its lens}.
        setup: what moves with what; a board that it knows stays where it is.
        cameras: {view: (4, 4)} to start from.
        board: (4, 4) to start from.
        fixed: names of cameras that stay where they are.
    """

    def __init__(
        self,
        sightings: Sequence[Sighting],
        lenses: Mapping[str, Lens],
        setup: Setup,
        cameras: Mapping[str, np.ndarray],
        board: np.ndarray,
        fixed: Collection[str] = (),
    ) -> None:
        self.cameras = {one.view: np.array(cameras[one.view]) for one in sightings}
        self.board = np.array(board)
        self._sightings, self._lenses = sightings, lenses
        self._between = [setup.between(one) for one in sightings]
        self._free = [view for view in self.cameras if view not in fixed]
        self._with_board = setup.T_board is None

    def errors(self) -> list[np.ndarray]:
        """Return (N, 2) pixels of each sighting."""
        return self._errors(self.cameras, self.board)

    def solve(self, loss: Literal["linear", "soft_l1"]) -> dict[str, tuple[float, float]]:
        """Make the error least; return {view: (mm, degrees)}, 1 sigma.

        The deviations are the larger of what independent corners and what independent pictures would give (White's
        sandwich): an arm's errors are the same for all corners of a picture.
        """
        from scipy.optimize import least_squares

        cameras, board = self.cameras, self.board
        count = 6 * (len(self._free) + self._with_board)
        if not count:
            return {}

        def placed(x: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
            moved = {view: nudged(cameras[view], x[6 * k : 6 * k + 6]) for k, view in enumerate(self._free)}
            return {**cameras, **moved}, nudged(board, x[-6:]) if self._with_board else board

        def residual(x: np.ndarray) -> np.ndarray:
            return np.concatenate(self._errors(*placed(x))).ravel()

        found = least_squares(residual, np.zeros(count), loss=loss, x_scale="jac", method="trf", max_nfev=100)
        self.cameras, self.board = placed(found.x)
        sd = self._deviations(found.jac, found.fun)
        return {
            view: (1000 * float(np.linalg.norm(sd[k + 3 : k + 6])), float(np.degrees(np.linalg.norm(sd[k : k + 3]))))
            for k, view in zip(range(0, 6 * len(self._free), 6), self._free, strict=True)
        }

    def _errors(self, cameras: Mapping[str, np.ndarray], board: np.ndarray) -> list[np.ndarray]:
        inverse = {view: np.linalg.inv(place) for view, place in cameras.items()}
        errors = []
        for one, between in zip(self._sightings, self._between, strict=True):
            pose, lens = inverse[one.view] @ between @ board, self._lenses[one.view]
            seen = one.points @ pose[:3, :3].T + pose[:3, 3]
            errors.append(project(seen, lens.K, lens.coefficients) - one.pixels)
        return errors

    def _deviations(self, jac: np.ndarray, fun: np.ndarray) -> np.ndarray:
        """Return the standard deviations of the parameters (P,)."""
        bread = np.linalg.pinv(jac.T @ jac)
        plain = np.diag(bread) * (fun @ fun) / max(len(fun) - jac.shape[1], 1)
        ends = np.cumsum([0, *(2 * len(one.points) for one in self._sightings)])
        moments: dict[str, np.ndarray] = {}
        for one, (a, b) in zip(self._sightings, pairwise(ends), strict=True):
            moments[one.moment] = moments.get(one.moment, 0) + jac[a:b].T @ fun[a:b]
        pulls = np.stack([*moments.values()])
        return np.sqrt(np.maximum(plain, np.diag(bread @ (pulls.T @ pulls) @ bread)))


def nudged(pose: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a pose (4, 4) turned about its own axes by x[:3] rad and shifted by x[3:] m."""
    made = pose.copy()
    made[:3, :3] = pose[:3, :3] @ rotvec_to_matrix(x[:3])
    made[:3, 3] += x[3:]
    return made


def start(
    sightings: Sequence[Sighting], lenses: Mapping[str, Lens], setup: Setup
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return places of cameras {view: (4, 4)} and board (4, 4) to start from, each pictured by one picture at least."""
    between = [setup.between(one) for one in sightings]
    seen = [pose_of(one, lenses[one.view].K, lenses[one.view].coefficients) for one in sightings]
    views = list(dict.fromkeys(one.view for one in sightings))
    of = {view: [k for k, one in enumerate(sightings) if one.view == view] for view in views}

    def badness(view: str, camera: np.ndarray, board: np.ndarray) -> float:
        """Median distance, so that some bad pictures do not matter, of boards from where they were seen, m."""
        inverse = np.linalg.inv(camera)
        corner = np.array([0.1, 0.1, 0.0, 1.0])  # m; turns count too
        return float(np.median([np.linalg.norm((inverse @ between[k] @ board - seen[k]) @ corner) for k in of[view]]))

    board = setup.T_board
    cameras: dict[str, np.ndarray] = {}
    if board is None:
        moving = [view for view in views if setup.moves(view)]
        if not moving:
            raise CalibrationError(
                f"nobody says where the board of camera {views[0]} was; give its pose, or the tool's in each picture"
            )
        first = max(moving, key=lambda view: len(of[view]))
        candidates = [
            (camera, np.linalg.inv(between[k]) @ camera @ seen[k])
            for camera in _closed_forms([between[k] for k in of[first]], [seen[k] for k in of[first]])
            for k in of[first]
        ]
        if not candidates:
            raise CalibrationError(f"camera {first}: its pictures and tool poses determine no place; {_TURNS}")
        cameras[first], board = min(candidates, key=lambda pair: badness(first, *pair))
    for view in views:
        if view not in cameras:
            places = [between[k] @ board @ np.linalg.inv(seen[k]) for k in of[view]]
            cameras[view] = min(places, key=lambda camera: badness(view, camera, board))
    return cameras, board


def _closed_forms(between: list[np.ndarray], seen: list[np.ndarray]) -> list[np.ndarray]:
    """Return places X (4, 4) of G_i Y = X C_i: of all pictures, and of random halves, which may lack bad ones."""
    rng, every = np.random.default_rng(0), np.arange(len(seen))
    halves = [rng.choice(every, max(len(every) // 2, FEWEST_MOMENTS - 1), replace=False) for _ in range(HALVES)]
    found = [hand_eye([between[k] for k in chosen], [seen[k] for k in chosen]) for chosen in [every, *halves]]
    return [one for one in found if one is not None]


def hand_eye(between: Sequence[np.ndarray], seen: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return X (4, 4) of G_i Y = X C_i for some Y, None if the motions leave it open.

    Park and Martin 1994: of any two moments, A = G_j G_i^-1 and B = C_j C_i^-1 obey A X = X B. X's turn takes the
    rotation vectors of all B to those of the A best, its shift then makes what is left least. (OpenCV 5 has none.)

    Args:
        between: G_i, (4, 4) each.
        seen: C_i, poses of the board in the camera.
    """
    ways = [(G @ np.linalg.inv(before), C @ np.linalg.inv(seen_before))
            for (before, seen_before), (G, C) in combinations(zip(between, seen, strict=True), 2)]  # fmt: skip
    a, b = (np.array([matrix_to_rotvec(pair[k][:3, :3]) for pair in ways]) for k in (0, 1))
    u, sizes, vt = np.linalg.svd(b.T @ a)
    if sizes[1] < 1e-6 * len(ways):
        return None
    place = np.eye(4)
    place[:3, :3] = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    left = np.concatenate([A[:3, :3] - np.eye(3) for A, _ in ways])
    right = np.concatenate([place[:3, :3] @ B[:3, 3] - A[:3, 3] for A, B in ways])
    place[:3, 3] = np.linalg.lstsq(left, right, rcond=None)[0]
    return place


_TURNS = "turn the tool by 20 degrees and more about two axes between pictures"


def _require_turns(sightings: Sequence[Sighting], setup: Setup) -> None:
    """Refuse motions from which places do not follow: those that never turn, or about one axis only."""
    moments = {one.moment: setup.between(one) for one in sightings if setup.moves(one.view)}
    if setup.T_board is not None or not moments:
        return
    if len(moments) < FEWEST_MOMENTS:
        raise CalibrationError(f"{len(moments)} pictures with a tool pose; want {FEWEST_MOMENTS} or more; {_TURNS}")
    turns = [one[:3, :3] for one in moments.values()]
    vectors = np.array([matrix_to_rotvec(turns[0].T @ one) for one in turns])
    middle = turns[0] @ rotvec_to_matrix(np.median(vectors, axis=0))
    vectors = np.array([matrix_to_rotvec(middle.T @ one) for one in turns])
    second = float(np.degrees(np.linalg.svd(vectors, compute_uv=False)[1] / np.sqrt(len(vectors))))
    if second < TURN_DEG:
        raise CalibrationError(
            f"the tool turned by {second:.1f} degrees about the second of its axes (root mean square); want "
            f"{TURN_DEG:g} or more; {_TURNS}"
        )
