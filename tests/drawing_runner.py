"""A worker that draws, importable in a spawned process."""

import hashlib

from sim_envs.rendering import Painter


def draw():
    """Return a painter, and what it drew, as a hash."""
    import mujoco

    from sim_envs.lift import Lift

    model = Lift().build().compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    painter = Painter(model)
    return painter, hashlib.sha256(painter.draw(data, "front", 64, 64).tobytes()).hexdigest()


class Drawing:
    """Draws one frame an item."""

    def prepare(self, item):
        pass

    def run(self, item):
        painter, picture = draw()
        painter.close()
        return picture

    def close(self):
        pass
