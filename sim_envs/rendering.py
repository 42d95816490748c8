"""Headless drawing: which GL backend works here, and one painter a thread that draws every camera."""

import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.errors import SYSTEM_LIBRARIES, NoGLBackend

OFFSCREEN = (480, 640)  # (H, W) of the one off-screen buffer; every picture is at most this big


def choose_backend(wanted: str = "") -> str:
    """Return the value of MUJOCO_GL that can work headless here: "egl", "osmesa" or "disable".

    Args:
        wanted: what the user set. It is kept, unless its library is missing: then `import mujoco` itself would fail.
    """
    works = {
        "egl": _loads("libEGL.so.1") and _loads("libGL.so.1"),  # PyOpenGL needs both, libEGL alone fails
        "osmesa": any(_loads(name) for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")),
    }
    if wanted and works.get(wanted.strip().lower(), True):
        return wanted
    return next((name for name, found in works.items() if found), "disable")


def probe() -> str:
    """Draw one small frame and return the GL_RENDERER that drew it, e.g. ``"llvmpipe (LLVM 15.0.6, 256 bits)"``.

    Raises:
        NoGLBackend: with the one command that installs what is missing.
    """
    import mujoco

    spec = mujoco.MjSpec()
    spec.worldbody.add_light(pos=[0, 0, 2], dir=[0, 0, -1])
    spec.worldbody.add_camera(name="eye", pos=[0, 0, 1])
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.2, 0, 0], rgba=[1, 0, 0, 1])
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    painter = Painter(model)
    try:
        picture = painter.draw(data, "eye", 32, 32)
        if not picture[16, 16, 0] > picture[0, 0, 0]:
            raise NoGLBackend(f"MUJOCO_GL={os.environ.get('MUJOCO_GL')} drew a black frame; try: {SYSTEM_LIBRARIES}")
        return painter.gl_renderer
    finally:
        painter.close()


@dataclass(frozen=True)
class Decoration:
    """A shape that is only drawn: the model does not have it, and nothing touches it."""

    kind: str  # box, cylinder (along z) or sphere
    position: tuple[float, float, float]  # m, of its centre
    half: tuple[float, float, float]  # m: half sizes; radius, radius, half length; radius, three times
    colour: tuple[float, float, float]  # RGB, 0 to 1
    yaw: float = 0.0  # rad


class Painter:
    """Draws any camera of a model at any size up to `OFFSCREEN` with one GL context.

    A context costs 0.2 s to make and belongs to the thread that made it, so a world makes one, once.

    Args:
        model: a compiled ``mujoco.MjModel`` whose ``vis.global_`` off-screen size is at least `OFFSCREEN`'s default.
        hidden: groups of geoms that are not drawn, 0 to 5, beside 3 to 5, which never are.

    Raises:
        NoGLBackend: if no GL context can be made.
    """

    def __init__(self, model: Any, *, hidden: Sequence[int] = ()) -> None:
        import mujoco

        self._mj = mujoco
        self._model = model
        self._thread = threading.get_ident()
        self._height, self._width = model.vis.global_.offheight, model.vis.global_.offwidth
        model.vis.quality.offsamples = 0  # multisampling costs more than all else on a software renderer
        self._gl, self._context = _make_context(mujoco, model, self._width, self._height)
        self._free = weakref.finalize(self, _free, self._gl, self._context, self._thread)
        self._free.atexit = False  # it would come after the display is gone; atexit runs the newest first
        atexit.register(self._free)
        self._scene = mujoco.MjvScene(model, maxgeom=max(200, 2 * model.ngeom))
        self._option = mujoco.MjvOption()
        for group in hidden:
            self._option.geomgroup[group] = 0
        self._stale_textures = False
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value

    @property
    def gl_renderer(self) -> str:
        """What draws: the GL_RENDERER string."""
        from OpenGL import GL

        self._use()
        name = GL.glGetString(GL.GL_RENDERER)
        return name.decode() if isinstance(name, bytes) else str(name)

    def retexture(self) -> None:
        """Take the textures anew from the model, before the next picture."""
        self._stale_textures = True

    def draw(
        self,
        data: Any,
        camera: str,
        height: int,
        width: int,
        *,
        shadows: bool = False,
        decorations: Sequence[Decoration] = (),
    ) -> np.ndarray:
        """Return what ``camera`` sees of ``data``, a fresh (height, width, 3) uint8 RGB array.

        Raises:
            NoGLBackend: when called from another thread than the one that made this painter.
        """
        self._use()
        mj, rect = self._mj, self._mj.MjrRect(0, 0, width, height)
        if self._stale_textures:
            for texture in range(self._model.ntex):
                mj.mjr_uploadTexture(self._model, self._context, texture)
            self._stale_textures = False
        self._camera.fixedcamid = self._model.camera(camera).id
        self._scene.flags[mj.mjtRndFlag.mjRND_SHADOW.value] = shadows
        self._scene.flags[mj.mjtRndFlag.mjRND_REFLECTION.value] = False
        mj.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mj.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        for one in decorations:
            self._decorate(one)
        mj.mjr_render(rect, self._scene, self._context)
        picture = np.empty((height, width, 3), np.uint8)
        mj.mjr_readPixels(picture, None, rect, self._context)
        return picture[::-1].copy()  # GL counts rows from the bottom

    def close(self) -> None:
        """Free the context; idempotent. It happens too when the painter is collected, but later."""
        self._free()
        atexit.unregister(self._free)

    def _decorate(self, one: Decoration) -> None:
        mj, scene = self._mj, self._scene
        if scene.ngeom >= scene.maxgeom:
            return
        kind = getattr(mj.mjtGeom, f"mjGEOM_{one.kind.upper()}").value
        c, s = np.cos(one.yaw), np.sin(one.yaw)
        turned = np.array([c, -s, 0, s, c, 0, 0, 0, 1])
        colour = np.array([*one.colour, 1], np.float32)
        mj.mjv_initGeom(scene.geoms[scene.ngeom], kind, np.array(one.half), np.array(one.position), turned, colour)
        scene.ngeom += 1

    def _use(self) -> None:
        if not self._free.alive:
            raise NoGLBackend("this painter is closed; make a new one")
        if threading.get_ident() != self._thread:
            raise NoGLBackend("a GL context belongs to the thread that made it; draw from that one")
        self._gl.make_current()


_ORPHANS: list[Any] = []


def _free(gl: Any, context: Any, thread: int) -> None:
    """Free in the context's own name: left to the collector, it would delete the objects of whichever is current."""
    if threading.get_ident() != thread:
        _ORPHANS.append((gl, context))  # only its own thread could free it, so keep it until the process ends
        return
    gl.make_current()
    context.free()
    gl.free()


def _make_context(mujoco: Any, model: Any, width: int, height: int) -> tuple[Any, Any]:
    backend = os.environ.get("MUJOCO_GL", "")
    if not hasattr(mujoco, "GLContext"):
        undo = "unset MUJOCO_GL, or " if choose_backend() != "disable" else ""
        raise NoGLBackend(f"nothing can be drawn (MUJOCO_GL={backend}); {undo}install a renderer: {SYSTEM_LIBRARIES}")
    try:
        gl = mujoco.GLContext(width, height)
        gl.make_current()
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
    except Exception as error:  # ImportError, EGLError, FatalError, AttributeError: each backend has its own
        import sim_envs

        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = f"try: {SYSTEM_LIBRARIES}"
        if sim_envs.TOO_LATE:
            remedy = f"mujoco was imported before sim_envs: import sim_envs first, or set MUJOCO_GL={backend} before"
        raise NoGLBackend(f"nothing can be drawn (MUJOCO_GL={backend}: {reason}); {remedy}") from error
    return gl, context


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
