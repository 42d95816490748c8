"""`robopolicy data quality`: idle spans, smoothness, outliers, compatibility and extraneous segments."""

import argparse
import json
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import positive


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("quality", parents=[debug], help="measure demonstrations, name what sticks out")
    parser.add_argument("path", type=Path, metavar="D.zarr")
    parser.add_argument("--write", action="store_true", help="write the marks into derived/, for training and viewing")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with plots")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--motion", metavar="STATE", help="state whose motion is the path")
    parser.add_argument("--idle-seconds", type=positive, default=0.5, help="standing still for so long is idle")
    parser.set_defaults(run=run_quality)


def run_quality(args: argparse.Namespace) -> None:
    """Measure, and print, write or draw what came of it."""
    from robopolicy.cli.progress import bar, say
    from robopolicy_data.quality.measure import Options, measure, write_marks
    from robopolicy_data.quality.page import write_page
    from robopolicy_data.reader import Dataset

    dataset = Dataset(args.path)
    with bar("read", len(dataset), "episodes") as progress:
        quality = measure(dataset, Options(idle_s=args.idle_seconds, motion=args.motion), progress=progress.at)
    if args.write:
        write_marks(args.path, quality)
    if args.html is not None:
        write_page(args.html, quality)
    if args.json:
        print(json.dumps(quality.to_json(), indent=1))
        return
    _print_table(quality)
    for note in quality.outliers:
        print(note)
    if args.write:
        say(f"{args.path}: marks of {len(dataset)} episodes written to derived/quality@1")
    if args.html is not None:
        say(f"page: {args.html}")


def _print_table(quality: Any) -> None:
    """One line a measure: its median and range."""
    import numpy as np

    print(f"{len(quality.episodes)} episodes; the path is that of {' '.join(quality.motion)}, {quality.unit}")
    print(f"{'':<16} {'median':>10} {'least':>10} {'most':>10}")
    for key in ("duration_s", "idle_share", "path", "sparc", "jerk", "coverage", "novelty", "saturated_share", "lag_s"):
        values = quality.column(key)
        if np.isfinite(values).any():
            print(f"{key:<16} {np.nanmedian(values):>10.4g} {np.nanmin(values):>10.4g} {np.nanmax(values):>10.4g}")
