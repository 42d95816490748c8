"""`robopolicy data info | check | stats`: what is in a dataset, what is wrong with it, its numbers."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the actions' arguments."""
    info = actions.add_parser("info", parents=[debug], help="what is in a dataset, and what happened to it")
    info.add_argument("path", metavar="D.zarr")
    info.add_argument("--json", action="store_true", help="print it as JSON")
    info.set_defaults(run=run_info)
    check = actions.add_parser("check", parents=[debug], help="find what is wrong; exit 1 if anything is")
    check.add_argument("path", type=Path, metavar="D.zarr")
    check.set_defaults(run=run_check)
    stats = actions.add_parser("stats", parents=[debug], help="ranges, quantiles, lengths, rates, success rates")
    stats.add_argument("path", metavar="D.zarr")
    stats.add_argument("--json", action="store_true", help="print all of it as JSON")
    stats.set_defaults(run=run_stats)


def run_info(args: argparse.Namespace) -> None:
    """Print what is in a dataset."""
    from robopolicy_data.check import info

    found = info(args.path)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for key, value in found.items():
        print(f"{key:<20} {_words(value)}")


def run_check(args: argparse.Namespace) -> int:
    """Print every problem; 1 if there is an error among them."""
    from robopolicy.cli.progress import say
    from robopolicy_data.check import check

    problems = check(args.path)
    for problem in problems:
        print(problem)
    errors = sum(problem.severity == "error" for problem in problems)
    if not problems:
        say((f"{args.path}: nothing wrong", "green"))
    return 1 if errors else 0


def run_stats(args: argparse.Namespace) -> int:
    """Print the numbers of a dataset; 1 if an episode is damaged and not in them."""
    from robopolicy_data.stats import stats

    found = stats(args.path)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        for line in _table(found):
            print(line)
    for number, why in found["damaged"].items():
        print(f"robopolicy: episode {number} is damaged and left out: {why}", file=sys.stderr)
    return 1 if found["damaged"] else 0


def _table(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['path']}: {found['episodes']} episodes"
    if not found["episodes"]:
        return
    yield f"{'':<26}{'min':>11}{'median':>11}{'max':>11}"
    spreads = {"steps": found["steps"], "seconds": found["seconds"]}
    for name, spread in {**spreads, **{f"{k}, Hz": v for k, v in found["rate_hz"].items()}}.items():
        yield f"{name:<26}{spread['min']:>11.5g}{spread['median']:>11.5g}{spread['max']:>11.5g}"
    for name, camera in found["cameras"].items():
        yield f"{name}: {camera['frames']} frames, {camera['kilobytes_a_frame']:.1f} kB a frame"
    total = sum(found["sources"].values())
    yield "driven by " + ", ".join(f"{name} {n / total:.1%}" for name, n in found["sources"].items() if n)
    yield f"\n{'':<26}{'episodes':>11}{'success':>11}{'failure':>11}{'unknown':>11}{'rate':>11}{'seconds':>11}"
    groups = {"all": {**found["success"], "seconds": found["seconds"]["median"]}}
    groups |= {f"operator {name or '(none)'}": v for name, v in found["by_operator"].items()}
    groups |= {f"task {name or '(none)'}": v for name, v in found["by_task"].items()}
    for name, g in groups.items():
        count, rate = g["true"] + g["false"] + g["unknown"], "-" if g["rate"] is None else f"{g['rate']:.1%}"
        yield f"{name:<26}{count:>11}{g['true']:>11}{g['false']:>11}{g['unknown']:>11}{rate:>11}{g['seconds']:>11.4g}"
    yield f"\n{'':<26}{'min':>11}{'1 %':>11}{'median':>11}{'99 %':>11}{'max':>11}{'mean':>11}{'std':>11}"
    for name, s in found["streams"].items():
        for i in range(len(s.get("mean", ()))):
            q = s["quantiles"]
            values = (s["min"][i], q["0.01"][i], q["0.5"][i], q["0.99"][i], s["max"][i], s["mean"][i], s["std"][i])
            yield f"{f'{name}[{i}]':<26}" + "".join(f"{value:>11.4g}" for value in values)
        if s["not_finite"]:
            yield f"{name}: {s['not_finite']} steps with NaN or infinity left out"


def _words(value: Any) -> str:
    """Return a value of ``info`` as a person would write it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key or '(none)'} {_words(part)}" for key, part in value.items()) or "none"
    if isinstance(value, tuple | list):
        if all(isinstance(part, int) for part in value):
            return "x".join(map(str, value))
        return " ".join(_words(part) for part in value)
    return str(value)
