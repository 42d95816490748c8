"""`robopolicy`: parse, run one command, turn an error into one line and a non-zero exit."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from robopolicy import __version__
from robopolicy.cli import (
    calibrate,
    calibrate_cameras,
    compare,
    data,
    demo,
    deploy,
    doctor,
    evaluate,
    export,
    monitor,
    node,
    record,
    replay,
    sweep,
    train,
    twin,
)
from robopolicy.errors import RobopolicyError

COMMANDS = (
    demo,
    record,
    replay,
    train,
    calibrate,
    calibrate_cameras,
    evaluate,
    compare,
    sweep,
    deploy,
    node,
    export,
    data,
    monitor,
    twin,
    doctor,
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command; importing it loads nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="robopolicy", description="One small stack from a demonstration to a guarded robot."
    )
    parser.add_argument("--version", action="version", version=f"robopolicy {__version__}")
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands, debug)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 after an error (one line on stderr), 2 after a usage error, 130 after Ctrl-C."""
    # Before torch loads: its threads would otherwise spin at barriers, and on busy cores several of them are then
    # many times slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = argparse.Namespace(debug=False)
    try:
        words = sys.argv[1:] if argv is None else list(argv)
        args = build_parser().parse_args(words, argparse.Namespace(words=words))  # the options of train need torch
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a closed pager is not an error
        return 0
    except RobopolicyError as error:
        return _report(args, str(error))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = f" at {error.filename}" if error.filename else ""
            return _report(args, f"no space left on the disk{where}; what was committed before is intact")
        if error.filename is None:
            return _unexpected(args, error)
        return _report(args, f"{error.strerror}: {error.filename}")
    except Exception as error:
        end = _end_behind(error)
        if isinstance(end, SystemExit):
            raise end from None
        return _unexpected(args, error) if end is None else _interrupted()


def _interrupted() -> int:
    print("robopolicy: interrupted; what was committed is kept", file=sys.stderr)
    return 130


def _end_behind(error: BaseException | None) -> BaseException | None:
    """Return the Ctrl-C or signal's exit that an error came of: C++ modules make an ImportError of it as they load."""
    while error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
        error = error.__cause__ or error.__context__
    return error


def _unexpected(args: argparse.Namespace, error: Exception) -> int:
    """A fault of ours, or of a robot's own code: one line all the same, and how to see where it was."""
    what = " ".join(str(error).split())
    return _report(args, f"unexpected {type(error).__name__}: {what} (the same command with --debug shows where)")


def _report(args: argparse.Namespace, message: str) -> int:
    if args.debug:
        raise  # only called from an except block
    print(f"robopolicy: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
