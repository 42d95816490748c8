"""`robopolicy data view`: a dataset as a page to look at."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least, positive


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the actions' arguments."""
    view = actions.add_parser("view", parents=[debug], help="look at a dataset in a browser, or through Rerun")
    view.add_argument("path", metavar="D.zarr", help="a folder, a .zip or a URL")
    view.add_argument("--episodes", nargs="+", metavar="N", help="numbers and ranges, such as 3 5-8")
    view.add_argument("--out", type=Path, help="write a folder that opens without a server (a .rrd file with --rerun)")
    view.add_argument("--megabytes", type=positive, default=48.0, help="about how big --out may be (default 48)")
    view.add_argument("--port", type=at_least(0), default=0, help="of the local server; 0 lets the system choose")
    view.add_argument("--no-open", action="store_true", help="do not open a browser")
    view.add_argument("--rerun", action="store_true", help="through the Rerun viewer instead (extra: view)")
    view.set_defaults(run=run_view)


def run_view(args: argparse.Namespace) -> None:
    """Write the page, or serve it until Ctrl-C."""
    from robopolicy_data.numbers import parse_numbers

    episodes = None if args.episodes is None else parse_numbers(args.episodes)
    if args.rerun:
        _rerun(args, episodes)
    elif args.out is not None:
        _write(args, episodes)
    else:
        _serve(args, episodes)


def _write(args: argparse.Namespace, episodes: list[int] | None) -> None:
    from robopolicy.cli.progress import bar, say
    from robopolicy_data.view.page import write_page

    with bar("view", None, "episodes") as progress:
        page = write_page(args.path, args.out, episodes=episodes, megabytes=args.megabytes, progress=progress.at)
    say(f"{page.index}: {page.episodes} episodes, {page.megabytes:.1f} MB; {page.note}. Open it in any browser.")


def _serve(args: argparse.Namespace, episodes: list[int] | None) -> None:
    from robopolicy.cli.progress import say
    from robopolicy_data.view.server import ViewServer

    with ViewServer(args.path, port=args.port, episodes=episodes) as server:
        say(f"{args.path}: ", (server.url, "bold"), " (Ctrl-C ends it)")
        if "SSH_CONNECTION" in os.environ:
            port = server.server_address[1]
            say(
                "From your own machine: ",
                (f"ssh -L {port}:127.0.0.1:{port} THIS_MACHINE", "bold"),
                ", then that address",
            )
        _open(server.url, args)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("")


def _rerun(args: argparse.Namespace, episodes: list[int] | None) -> None:
    from robopolicy.cli.progress import bar, say
    from robopolicy_data.view.rerun import to_rerun

    with bar("rerun", None, "episodes") as progress:
        count = to_rerun(args.path, args.out, episodes=episodes, progress=progress.at)
    if args.out is None:
        say(f"{args.path}: {count} episodes in the Rerun viewer")
    else:
        say(f"{args.out}: {count} episodes. Next: ", (f"rerun {args.out}", "bold"))


def _open(address: str, args: argparse.Namespace) -> None:
    """Open a browser where there is a display: a text browser would take the terminal."""
    import webbrowser

    display = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if display and not args.no_open:
        webbrowser.open(address)
