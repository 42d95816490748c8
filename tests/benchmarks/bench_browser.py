"""What the browser page costs the control loop: ``python tests/benchmarks/bench_browser.py [SECONDS] [HZ]``.

A loop at HZ (100) reads a twin's scene and two cameras of 640x480 and calls ``read``, ``events`` and ``show`` each
tick: with no browser, with one that drives from another machine (here: a process that draws nothing), and with a real
Chromium that drags the handle and draws on these very cores. Printed: CPU of these three calls in the
loop's own thread, how late the loop's ticks were (with the interpreter shared with the page's threads), and CPU of the
whole process.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser_chromium import chromium
from browser_operator import drag, open_page

from robopolicy.clock import SimClock, WallClock
from robopolicy.spec import CameraSpec
from robopolicy.types import Observation, Status
from robopolicy_hardware.teleop.browser import BrowserTeleop
from sim_envs.tasks import make_task
from sim_envs.twin import Twin

SIZE = (480, 640)


@dataclass
class Costs:
    """Of one run."""

    cpu_ms: list[float] = field(default_factory=list)  # of the three calls, in the loop's thread
    late_ms: list[float] = field(default_factory=list)  # of each tick
    process_cpu_s: float = 0.0
    seconds: float = 0.0
    human: int = 0

    def line(self, name: str) -> str:
        share = 100 * self.process_cpu_s / self.seconds
        cpu, late = np.percentile(self.cpu_ms, [50, 99, 100]), np.percentile(self.late_ms, [50, 99, 100])
        return (
            f"{name:28s} read+events+show ms CPU: p50 {cpu[0]:.3f}  p99 {cpu[1]:.3f}  max {cpu[2]:.3f}   "
            f"tick late ms: p50 {late[0]:.2f}  p99 {late[1]:.2f}  max {late[2]:.1f}   "
            f"process {share:.0f} % of a core   human {self.human} of {len(self.cpu_ms)}"
        )


def loop(twin: Twin, teleop: BrowserTeleop, seconds: float, hz: float, running: Any) -> Costs:
    """Run the loop; the twin stands still, its poses are read all the same."""
    clock, rng = WallClock(), np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (*SIZE, 3), np.uint8) for _ in range(8)]
    first = twin.read()
    costs, period_ns = Costs(), round(1e9 / hz)
    start_ns, cpu_s = clock.now_ns(), time.process_time()
    teleop.engage(first, None)
    k = 0
    while (k < seconds * hz) if running is None else not running.done():
        due_ns = start_ns + k * period_ns
        clock.sleep_until(due_ns)
        costs.late_ms.append((clock.now_ns() - due_ns) / 1e6)
        images = {name: pictures[(k + i) % 8] for i, name in enumerate(("front", "wrist"))}
        observation = Observation(clock.now_ns(), first.state, images, dict.fromkeys(images, clock.now_ns()))
        before_s = time.thread_time()
        command = teleop.read(observation)
        teleop.events()
        teleop.show(Status("recording", 1, 20, k / hz, hz, source=command.source))
        costs.cpu_ms.append((time.thread_time() - before_s) * 1e3)
        costs.human += command.source == "human"
        k = max(k + 1, (clock.now_ns() - start_ns) // period_ns)
    costs.seconds = (clock.now_ns() - start_ns) / 1e9
    costs.process_cpu_s = time.process_time() - cpu_s
    return costs


@contextmanager
def operator(url: str, tool: np.ndarray, seconds: float) -> Iterator[Any]:
    """A browser that pulls the handle up and down for a while, driven from a thread of its own."""

    def work() -> None:
        with chromium() as browser:
            page = open_page(browser, url)
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s:
                drag(page, tool, (0, 0, 0.05))
                page.wait_for_timeout(200)

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def main(seconds: float, hz: float) -> None:
    twin = Twin(make_task("lift"), SimClock(), cameras=())
    spec = replace(twin.spec, cameras={name: CameraSpec(*SIZE) for name in ("front", "wrist")}, rate_hz=hz)
    tool = twin.read().state["tool_pos"].astype(np.float64)
    teleop = BrowserTeleop(spec, scene=twin, port=0)
    print(loop(twin, teleop, seconds, hz, None).line("no browser"))
    script = Path(__file__).parents[1] / "browser_raw.py"
    with subprocess.Popen([sys.executable, str(script), teleop.url, str(seconds)]):
        print(loop(twin, teleop, seconds, hz, None).line("a browser elsewhere"))
    with operator(teleop.url, tool, seconds) as running:
        print(loop(twin, teleop, seconds, hz, running).line("Chromium on these cores"))
        running.result()
    teleop.close()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0, float(sys.argv[2]) if len(sys.argv) > 2 else 100.0)
