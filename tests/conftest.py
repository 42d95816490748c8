"""What holds for every test."""

import concurrent.futures.thread
import os
import signal
import sys
import threading

import sim_envs  # noqa: F401  # before a test imports mujoco, which could then not draw

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs so, and every process started from here would ignore the Ctrl-C that a test sends it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure():
    """A thread that a test left behind would keep this process for ever: it is named, and the run has failed."""
    pools = set(concurrent.futures.thread._threads_queues)  # which end with the interpreter
    left = [one for one in threading.enumerate() if not one.daemon and one not in pools]
    left.remove(threading.main_thread())
    for one in left:
        one.join(10)
    if left := [one.name for one in left if one.is_alive()]:
        print(f"threads that tests left behind: {', '.join(left)}", file=sys.stderr, flush=True)
        os._exit(1)
