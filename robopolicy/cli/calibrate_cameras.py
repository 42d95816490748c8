"""`robopolicy calibrate-cameras`: lenses and places of cameras from pictures of a printed board."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import EachOnce, at_least, positive
from robopolicy.cli.calibrate_cameras_out import held, kept, place_of, write_twin
from robopolicy.errors import CalibrationError, CameraMoved, UsageError

MAX_ERROR_PX = 1.0
MOST = 40  # pictures of a camera that are taken from a dataset
MODELS = (0, 4, 5, 8)
COEFFICIENTS = 4
OF_PICTURES = (
    "pictures", "data", "episode", "most", "still", "board", "square_mm", "marker_mm", "dictionary", "legacy_pattern",
    "tool_poses", "camera_on_tool", "board_pose", "touched", "placed", "lenses", "distortion", "max_error", "each",
    "check",
)  # fmt: skip
WORST = 3  # pictures that are named without --each


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "calibrate-cameras",
        parents=[debug],
        help="lenses and places of cameras, from pictures of a printed board",
        description="Print a board (calibrate-cameras board --out board.pdf), let the gripper carry it past the "
        "cameras, or put it somewhere known, and calibrate. hardware/README.md has each way, step by step.",
    )
    source = parser.add_argument_group("pictures")
    source.add_argument(
        "--pictures",
        nargs="+",
        action="extend",
        metavar="VIEW=FOLDER",
        help="of the board, of each camera; a name that comes twice is one moment",
    )
    source.add_argument("--data", metavar="D.zarr", help="instead: recorded episodes, with the tool's poses")
    source.add_argument("--episode", type=at_least(0), nargs="+", metavar="N", help="of --data; default all")
    source.add_argument(
        "--cameras", nargs="+", action=EachOnce, metavar="VIEW", help="of --data or --twin; default all"
    )
    source.add_argument("--most", type=at_least(8), metavar="N", help=f"moments of --data (default {MOST})")
    source.add_argument("--still", type=positive, metavar="M_S", help="slower than this the tool rests (default 0.01)")
    _add_board(parser)
    place = parser.add_argument_group("places; without any of these, lenses only")
    place.add_argument(
        "--tool-poses",
        type=Path,
        metavar="FILE",
        help=".json or .csv beside --pictures: name, x y z (m), quaternion wxyz, base to tool",
    )
    place.add_argument(
        "--camera-on-tool",
        nargs="+",
        default=[],
        metavar="VIEW",
        help="the tool carries these, the board stands; default: the tool carries the board",
    )
    place.add_argument(
        "--board-pose",
        type=float,
        nargs="+",
        metavar="X",
        help="x y z (m) and roll pitch yaw (degrees) or a quaternion wxyz of the board in the base",
    )
    place.add_argument(
        "--touched",
        type=Path,
        metavar="FILE",
        help="instead: .json or .csv: number of an inner corner, x y z (m) where the tool touched it",
    )
    place.add_argument(
        "--placed",
        nargs="+",
        action="extend",
        metavar="VIEW=FOLDER",
        help="pictures of the board at that pose; --pictures are for the lens then",
    )
    place.add_argument("--lenses", type=Path, metavar="CAMS", help="take the lenses of this calibration")
    how = parser.add_argument_group("results")
    how.add_argument(
        "--distortion",
        type=int,
        choices=MODELS,
        help="coefficients: 4 k1 k2 p1 p2, 5 k3 too, 8 for wide lenses (default 4)",
    )
    how.add_argument(
        "--max-error",
        type=positive,
        metavar="PX",
        help=f"reprojection error (RMS) above which it is refused (default {MAX_ERROR_PX:g})",
    )
    how.add_argument("--each", action="store_true", help="print the error of each picture")
    how.add_argument(
        "--out",
        type=Path,
        metavar="CAMS",
        help="written to: .yaml, .yml or .json (default cams.yaml); other cameras in it are kept",
    )
    how.add_argument(
        "--check", type=Path, metavar="CAMS", help="instead: say whether cameras have moved since this one"
    )
    how.add_argument("--twin", metavar="TASK", help="instead: write the exact cameras of twin:TASK")
    how.add_argument("--size", metavar="HxW", help="of --twin's pictures (default: as it records them)")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", metavar="[board]", required=False)
    board = actions.add_parser("board", parents=[debug], help="write a board to print, at its true size")
    board.add_argument("--out", type=Path, required=True, metavar="BOARD", help=".png or .pdf")
    _add_board(board)
    board.set_defaults(run=run_board)


def _add_board(parser: argparse.ArgumentParser) -> None:
    board = parser.add_argument_group("board")
    board.add_argument(
        "--board", metavar="FILE|CxR", help="the file that was printed, or columns and rows of squares (default 7x5)"
    )
    board.add_argument(
        "--square-mm",
        type=positive,
        metavar="MM",
        help="a square's edge (default 35, or what the file says); measure the print",
    )
    board.add_argument("--marker-mm", type=positive, metavar="MM", help="a marker's (default 26/35 of the square)")
    board.add_argument("--dictionary", metavar="NAME", help="of cv2.aruco (default DICT_5X5_100)")
    board.add_argument("--legacy-pattern", action="store_true", help="of a board drawn by OpenCV before 4.6")


def run_board(args: argparse.Namespace) -> None:
    """Write a board."""
    from robopolicy.cli.progress import say
    from robopolicy_hardware.cameras.board import write_board

    board = board_of(args)
    page = write_board(args.out, board)
    say(f"{args.out}: {board}. Print it at 100 % on {page}, glue it onto something flat, measure a square")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    place_of(args.out)
    if args.twin is not None:
        _refuse(args, OF_PICTURES, "--twin takes no pictures, only --cameras, --size and --out")
        return write_twin(args)
    if args.size is not None:
        raise UsageError("--size is of --twin; pictures have their own")
    if (args.pictures is None) == (args.data is None) and not (args.placed and args.lenses and not args.data):
        raise UsageError("say where the pictures are: --pictures VIEW=FOLDER ..., or --data D.zarr (not both)")
    if args.data is None:
        _refuse(args, ("episode", "cameras", "still", "most"), "without --data there is nothing to choose from")
    elif args.tool_poses is not None:
        raise UsageError("--tool-poses are of --pictures; a dataset has its own")
    return _check(args) if args.check is not None else _calibrate(args)


def board_of(args: argparse.Namespace) -> Any:
    """Return the `Board` that the options say.

    Raises:
        UsageError, ConfigError, ContractError: if they say none.
    """
    from dataclasses import replace

    from robopolicy_hardware.cameras.board import Board, read_board

    columns, cross, rows = (args.board or "7x5").partition("x")
    counted = bool(cross) and columns.isdecimal() and rows.isdecimal()
    board = Board(int(columns), int(rows)) if counted else read_board(args.board)
    if args.square_mm is not None:
        board = replace(
            board, square_m=args.square_mm / 1000, marker_m=board.marker_m / board.square_m * args.square_mm / 1000
        )
    if args.marker_mm is not None:
        board = replace(board, marker_m=args.marker_mm / 1000)
    if args.dictionary is not None:
        board = replace(board, dictionary=args.dictionary)
    return replace(board, legacy=True) if args.legacy_pattern else board


def _refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        value = getattr(args, name)
        if value is not None and value is not False and value != []:  # 0 is a value
            raise UsageError(f"--{name.replace('_', '-')}: {why}")


def _calibrate(args: argparse.Namespace) -> None:
    from robopolicy.cli.progress import say
    from robopolicy.geometry.calibrations import read_calibrations, write_calibrations
    from robopolicy_hardware.cameras.calibration import calibrate, known_lenses

    board, out = board_of(args), place_of(args.out)
    before = kept(out)
    setup, shots = _setup(args, board)
    lenses = known_lenses(read_calibrations(args.lenses)) if args.lenses is not None else {}
    placed = _looked(args, args.placed, board) if args.placed else None
    sightings = _seen(shots, board)
    views = {one.view for one in [*sightings, *(placed or [])]}
    if args.board_pose or args.touched:
        if placed is None and not args.camera_on_tool and args.lenses is None:
            raise UsageError(
                "--placed VIEW=FOLDER is wanted: pictures of the board where --board-pose or --touched say"
            )
    elif placed is not None:
        raise UsageError("--placed: where is the board in them? give --board-pose or --touched")
    if strangers := set(args.camera_on_tool) - views:
        raise UsageError(
            f"--camera-on-tool {min(strangers)}: its pictures are wanted; there are: {', '.join(sorted(views))}"
        )
    found = calibrate(
        board,
        sightings,
        setup,
        placing=placed,
        lenses={name: one for name, one in lenses.items() if name in views},
        coefficients=COEFFICIENTS if args.distortion is None else args.distortion,
        max_error_px=args.max_error or MAX_ERROR_PX,
    )
    entries = found.entries()
    head = f"written by robopolicy calibrate-cameras; board: {board}"
    write_calibrations(out, {**before, **entries}, head)
    for view, entry in entries.items():
        _tell(view, entry, args.each)
    placed_all = found.places is not None
    next_words = [
        "robopolicy",
        "calibrate-cameras",
        *(["--check", str(out)] if placed_all else ["--lenses", str(out)]),
        "...",
    ]
    say(f"{out} holds {held(entries, before)}. {'Have they moved?' if placed_all else 'To place them:'} ",
        (shlex.join(next_words), "bold"))  # fmt: skip


def _setup(args: argparse.Namespace, board: Any) -> tuple[Any, Any]:
    """Return what moves with what, None if nothing is to be placed, and the pictures."""
    from robopolicy.cli.calibrate_cameras_sources import (
        SLOW_M_S,
        Shots,
        pose_of_numbers,
        read_tool_poses,
        read_touched,
        shots_of_data,
        shots_of_files,
    )
    from robopolicy.cli.progress import say
    from robopolicy_hardware.cameras.hand_eye import Setup

    if args.board_pose is not None and args.touched is not None:
        raise UsageError("--board-pose and --touched both say where the board is; give one")
    T_board = None if args.board_pose is None else pose_of_numbers(args.board_pose, "--board-pose")
    if args.touched is not None:
        T_board, off_mm = read_touched(args.touched, board.corners)
        say(f"{args.touched}: the touched corners are {off_mm:.2f} mm from the board's (root mean square)")
    if args.data is not None:
        shots = shots_of_data(args.data, args.episode, args.cameras, args.most or MOST, args.still or SLOW_M_S)
    else:
        shots = shots_of_files(args.pictures, "--pictures") if args.pictures else Shots()
        shots.tools = {} if args.tool_poses is None else read_tool_poses(args.tool_poses)
    if args.camera_on_tool and not shots.tools:
        raise UsageError("--camera-on-tool: where was the tool? give --tool-poses, or --data")
    if T_board is not None or args.camera_on_tool:
        return Setup("base", tuple(args.camera_on_tool), shots.tools, T_board), shots
    return (Setup("tool", (), shots.tools) if shots.tools else None), shots


def _looked(args: argparse.Namespace, words: list[str], board: Any) -> Any:
    from robopolicy.cli.calibrate_cameras_sources import shots_of_files

    return _seen(shots_of_files(words, "--placed"), board)


def _seen(shots: Any, board: Any) -> list[Any]:
    """Return where the board was found, and say how often."""
    from robopolicy.cli.calibrate_cameras_sources import looked_at
    from robopolicy.cli.progress import say
    from robopolicy_hardware.cameras.charuco import BoardFinder

    found, counts = [], {}
    for view, _, seen in looked_at(shots, BoardFinder(board)) if shots.pictures else ():
        there, all_of_it = counts.get(view, (0, 0))
        counts[view] = there + (seen is not None), all_of_it + 1
        found += [] if seen is None else [seen]
    for view, (there, all_of_it) in counts.items():
        if not there:
            raise CalibrationError(
                f"camera {view}: the board is in none of {all_of_it} pictures; is it {board}? (--board, --dictionary, "
                "--legacy-pattern)"
            )
        if there < all_of_it:
            say(f"{view}: the board was found in {there} of {all_of_it} pictures")
    return found


def _tell(view: str, entry: dict[str, Any], each: bool) -> None:
    from robopolicy.cli.progress import say

    about = entry["calibration"]
    placed = "place_sd_mm" in about
    pictures, dropped = (
        (about["pictures"], about["dropped"]) if placed else (about["lens_pictures"], about["lens_pictures_dropped"])
    )
    parts = [f"{about['error_px']:.2f} px over {pictures} pictures, {dropped} dropped"]
    if placed:
        frame, pose = next((name, entry[f"T_{name}_cam"]) for name in ("base", "tool") if f"T_{name}_cam" in entry)
        x, y, z = (row[3] for row in pose[:3])
        parts.append(f"at x {x:.3f} y {y:.3f} z {z:.3f} m in the {frame}'s frame")
        parts.append(f"place +-{about['place_sd_mm']:.2f} mm +-{about['turn_sd_deg']:.3f} deg (1 sigma)")
    lens = f"lens {about['lens_error_px']:.2f} px, focal length +-{about['focal_sd_percent']:.2f} %"
    parts.append(f"{lens}, {about['covered_percent']:.0f} % of the picture seen")
    if "cross_view_px" in about:
        parts.append(f"with the other views {about['cross_view_px']:.2f} px")
    say(f"{view}: {'; '.join(parts)}")
    if each:
        for moment, error in about["pictures_px"].items():
            say(f"  {moment}: {error:.2f} px")
    dropped_px = sorted(about["dropped_px"].items(), key=lambda pair: -pair[1])
    for moment, error in dropped_px if each else dropped_px[:WORST]:
        say(f"  {moment}: {error:.2f} px, dropped")


def _check(args: argparse.Namespace) -> None:
    from robopolicy.cli.progress import say
    from robopolicy.geometry.calibrations import read_calibrations
    from robopolicy_hardware.cameras.calibration import check
    from robopolicy_hardware.cameras.hand_eye import Setup

    _refuse(args, ("lenses", "placed", "out", "distortion", "each"), "--check compares, and writes nothing")
    limit_px = args.max_error or MAX_ERROR_PX
    entries, board = read_calibrations(args.check), board_of(args)
    setup, shots = _setup(args, board)
    found = check(entries, _seen(shots, board), setup or Setup(), limit_px)
    for view, residual in found.residual_px.items():
        say(f"{view}: {residual:.2f} px against {found.how}")
    if moved := {view: px for view, px in found.residual_px.items() if not px <= limit_px}:
        worst = max(moved, key=moved.__getitem__)
        who = ", ".join(f"{view} ({px:.2f} px)" for view, px in moved.items())
        if found.sure:
            raise CameraMoved(f"moved since the calibration in {args.check}: {who}; the limit is {limit_px:g} px")
        others = ", ".join(view for view in found.residual_px if view != worst)
        raise CameraMoved(
            f"{worst} and {others} do not agree any more ({who}; the limit is {limit_px:g} px): one of them has "
            f"moved since the calibration in {args.check}"
        )
    say(f"the cameras are where {args.check} says")
