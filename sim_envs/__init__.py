"""Simulated worlds: MuJoCo twins and their tasks, scripted experts, adapters to other simulators."""

import os
import sys

from sim_envs.rendering import choose_backend

# Both are read once, by `import mujoco` and by the first GL context, so they are set before either.
_backend = choose_backend(os.environ.get("MUJOCO_GL", ""))
TOO_LATE = "mujoco" in sys.modules and _backend != os.environ.get("MUJOCO_GL", "")  # to choose: it chose another
os.environ["MUJOCO_GL"] = _backend
os.environ.setdefault("LP_NUM_THREADS", "1")  # llvmpipe would start a thread a core in every worker process
