import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import SYSTEM_LIBRARIES, NoGLBackend
from sim_envs.lift import Lift
from sim_envs.rendering import choose_backend, probe
from sim_envs.twin import Twin

LAST_LINE = """
import numpy as np
from robopolicy.clock import SimClock
from robopolicy.errors import SYSTEM_LIBRARIES, NoGLBackend
from sim_envs.worlds import make_world
clock = SimClock()
world = make_world("twin:lift", clock, cameras=())
clock.sleep_until(50_000_000)
assert world.read().state["tool_pos"].shape == (3,)
try:
    world.picture()
except NoGLBackend as error:
    print(error)
try:
    make_world("twin:lift", clock).read()
except NoGLBackend as error:
    print(error)
"""


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def needs_gl():
    try:
        return probe()
    except NoGLBackend as error:
        pytest.skip(str(error))


def test_without_gl_the_state_works_and_pictures_say_what_to_install():
    lines = python(LAST_LINE, MUJOCO_GL="disable").stdout.splitlines()
    assert len(lines) == 2
    assert all(SYSTEM_LIBRARIES in line for line in lines)


def test_backend_is_chosen_before_mujoco_and_kept_if_given():
    code = "import os, sys, sim_envs; print(os.environ['MUJOCO_GL'], 'mujoco' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [choose_backend(), "False"]
    assert python(code, MUJOCO_GL="disable").stdout.split() == ["disable", "False"]


def test_who_imports_mujoco_first_is_told_so():
    code = (
        "import mujoco\nfrom robopolicy.clock import SimClock\nfrom robopolicy.errors import NoGLBackend\n"
        "from sim_envs.worlds import make_world\nworld = make_world('twin:lift', SimClock(), cameras=('front',))\n"
        "try:\n    world.read()\nexcept NoGLBackend as error:\n    print(error)"
    )
    hidden = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert f"import sim_envs first, or set MUJOCO_GL={choose_backend()} before" in done.stdout


def test_a_backend_without_its_library_is_not_chosen(monkeypatch):
    monkeypatch.setattr("sim_envs.rendering._loads", lambda library: library.startswith("libOSMesa"))
    assert choose_backend("egl") == "osmesa"
    assert choose_backend("glfw") == "glfw"  # somebody's own screen
    monkeypatch.setattr("sim_envs.rendering._loads", lambda library: library == "libEGL.so.1")
    assert choose_backend() == "disable"


def test_probe_names_what_draws():
    assert needs_gl()


def test_process_ends_quietly_with_open_painters():
    needs_gl()
    code = """
from robopolicy.clock import SimClock
from sim_envs.worlds import make_world
worlds = [make_world("twin:lift", SimClock()) for _ in range(2)]
assert all(world.read().images["front"].std() > 5 for world in worlds)
"""
    assert python(code).stderr == ""


def test_a_collected_painter_does_not_spoil_the_others():
    needs_gl()
    first = Twin(Lift(), SimClock(), cameras=("front",))
    want = first.read().images["front"]
    for _ in range(3):
        Twin(Lift(), SimClock(), cameras=("front",)).read()  # collected at once
    np.testing.assert_array_equal(first.read().images["front"], want)
    first.close()


def test_another_thread_is_told_so():
    needs_gl()
    twin = Twin(Lift(), SimClock(), cameras=("front",))
    twin.read()
    caught = []

    def draw():
        try:
            twin.read()
        except NoGLBackend as error:
            caught.append(str(error))

    thread = threading.Thread(target=draw)
    thread.start()
    thread.join()
    assert "thread" in caught[0]
    twin.close()
