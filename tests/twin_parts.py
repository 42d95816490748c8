"""The lift twin, its expert and its safety layer, importable by name in a spawned process."""

from robopolicy.clock import SimClock


def make_world(clock):
    from sim_envs.worlds import make_world as make

    return make("twin:lift", clock, cameras=())


def make_expert():
    from sim_envs.experts import make_expert as make

    world = make_world(SimClock())
    spec = world.spec
    world.close()
    return make("lift", spec)


def make_safety(spec):
    from robopolicy_hardware.safety import SafetyLayer, limits_for

    return SafetyLayer(limits_for(spec), spec)
