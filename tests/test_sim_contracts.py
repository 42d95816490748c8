"""The simulated worlds, tasks and experts keep the contracts we ship."""

import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import NoGLBackend
from robopolicy.testing import AgentContract, EnvironmentContract, TaskContract
from sim_envs.experts import make_expert
from sim_envs.rendering import probe
from sim_envs.tasks import make_task
from sim_envs.worlds import make_world


class TestLiftWorld(EnvironmentContract):
    def make(self, clock):
        return make_world("twin:lift", clock, cameras=())


class TestLiftWorldWithCameras(EnvironmentContract):
    @pytest.fixture(autouse=True)
    def gl(self):
        try:
            probe()
        except NoGLBackend as error:
            pytest.skip(str(error))

    def make(self, clock):
        return make_world("twin:lift", clock)


class TestPushTWorld(EnvironmentContract):
    def make(self, clock):
        return make_world("twin:pusht", clock, cameras=())


class TestStackWorld(EnvironmentContract):
    def make(self, clock):
        return make_world("twin:stack", clock, cameras=())


class TestDrawerWorld(EnvironmentContract):
    def make(self, clock):
        return make_world("twin:drawer", clock, cameras=())


class TestPegWorld(EnvironmentContract):
    def make(self, clock):
        return make_world("twin:peg", clock, cameras=())


class TestPublishedPushT(EnvironmentContract):
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("gym_pusht", reason="pip install 'robopolicy[pusht]'")

    def make(self, clock):
        return make_world("gymnasium:gym_pusht/PushT-v0", clock)


class TestLift(TaskContract):
    def make(self):
        return make_task("lift")


class TestPushT(TaskContract):
    def make(self):
        return make_task("pusht")


class TestLiftExpert(AgentContract):
    def make(self):
        spec = make_world("twin:lift", SimClock(), cameras=()).spec
        return make_expert("lift", spec), spec


class TestStackExpert(AgentContract):
    def make(self):
        spec = make_world("twin:stack", SimClock(), cameras=()).spec
        return make_expert("stack", spec), spec


class TestDrawerExpert(AgentContract):
    def make(self):
        spec = make_world("twin:drawer", SimClock(), cameras=()).spec
        return make_expert("drawer", spec), spec


class TestPegExpert(AgentContract):
    def make(self):
        spec = make_world("twin:peg", SimClock(), cameras=()).spec
        return make_expert("peg", spec), spec


class TestPushTExpert(AgentContract):
    def make(self):
        spec = make_world("twin:pusht", SimClock(), cameras=()).spec
        return make_expert("pusht", spec), spec
