"""`robopolicy export`: a checkpoint's whole sampler as one ONNX or torch.export file."""

import argparse
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.cli.running import Choice, add_solver

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("export", parents=[debug], help="write a policy's sampler as ONNX or torch.export")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FOLDER", help="as train wrote it")
    parser.add_argument("--to", choices=sorted(SUFFIX), required=True, help="torch: for torch.export.load")
    parser.add_argument("--n", type=at_least(1), default=1, metavar="N", help="candidates a call (default 1)")
    parser.add_argument("file", type=Path, metavar="FILE", help=".onnx or .pt2; what it takes is told in FILE.json")
    add_solver(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say
    from robopolicy.errors import UsageError
    from robopolicy.policies.export import export, sidecar

    if args.file.suffix != SUFFIX[args.to]:
        raise UsageError(
            f"--to {args.to} writes {SUFFIX[args.to]} files; name it {args.file.with_suffix(SUFFIX[args.to])}"
        )
    running = Choice.of(args).resolve(args.checkpoint)
    off = export(running.load(), args.file, args.to, args.n, checkpoint=str(args.checkpoint), sha=running.sha)
    size = args.file.stat().st_size / 1e6
    say((str(args.file), "bold"), f", {size:.1f} MB: within {off:.1g} of plan. What it takes: {sidecar(args.file)}")
