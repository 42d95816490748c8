"""A twin that is driven from a browser, in a process of its own: ``python browser_world.py TASK [SECONDS]``.

It prints its address, and one line of JSON a tick: where the tool is, who drives, what was pressed.
"""

import json
import sys

from robopolicy.clock import WallClock
from robopolicy.types import Status
from robopolicy_hardware.teleop.browser import BrowserTeleop
from sim_envs.tasks import make_task
from sim_envs.twin import Twin


def main(task: str, seconds: float, cameras: tuple[str, ...]) -> None:
    clock = WallClock()
    twin = Twin(make_task(task), clock, cameras=cameras, size=(120, 160))
    teleop = BrowserTeleop(twin.spec, scene=twin, port=0, silence_s=2.0)
    print(json.dumps({"url": teleop.url}), flush=True)
    start_ns = clock.now_ns()
    teleop.engage(twin.read(), None)
    phase = "waiting"
    for k in range(1, int(seconds * 20)):
        clock.sleep_until(start_ns + k * twin.spec.period_ns)
        observation = twin.read()
        command = teleop.read(observation)
        if command.values is None:
            twin.stop()
        else:
            twin.command(command.values, clock.now_ns())
        events = list(teleop.events())
        if events:
            phase = {"start": "recording", "pause": "paused"}.get(events[-1], "waiting")
        teleop.show(Status(phase, 3, 20, k / 20, 20.0, source=command.source, message="lift the red cube"))
        tool = [round(float(v), 4) for v in observation.state["tool_pos"]]
        grip = None if command.values is None else round(float(command.values[9]), 2)
        line = {"k": k, "tool": tool, "source": command.source, "grip": grip, "events": events, "done": twin.success()}
        print(json.dumps(line | {"reason": command.reason}), flush=True)
    teleop.close()
    twin.close()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0, tuple(sys.argv[3:]))
