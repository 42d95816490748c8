"""Parameters of an arm: onto a model and back, as a file, and what is none."""

import json
from dataclasses import replace

import mujoco
import pytest

from robopolicy.errors import ConfigError, ContractError, UnknownName
from sim_envs.arm import HOME, JOINTS, KP, KV
from sim_envs.parameters import FORMAT, JointParameters, Parameters, apply, load, read_model, save
from sim_envs.sysid_arm import arm_spec

JOINT = JointParameters(kp=900.0, kv=33.0, damping=2.0, armature=0.3, frictionloss=0.7)


def test_a_model_takes_them_and_gives_them_back():
    model = arm_spec().compile()
    nominal = read_model(model, JOINTS)
    assert [joint.kp for joint in nominal.joints.values()] == KP.tolist()
    assert [joint.kv for joint in nominal.joints.values()] == KV.tolist()
    assert (nominal.joints["joint1"].damping, nominal.joints["joint1"].armature) == (1.0, 0.1)
    changed = replace(nominal, joints={**nominal.joints, "joint3": JOINT})
    apply(changed, model)
    assert read_model(model, JOINTS) == changed
    assert model.actuator_biasprm[2, 1] == -900, "the servo's bias follows its gain"


def test_they_change_how_the_arm_moves():
    moved = []
    for friction in (0.0, 5.0):
        model = arm_spec().compile()
        data = mujoco.MjData(model)
        apply(Parameters({"joint1": replace(JOINT, frictionloss=friction)}), model)
        data.qpos[:7] = data.ctrl[:7] = HOME
        data.ctrl[0] += 0.05
        mujoco.mj_step(model, data, 100)
        moved.append(abs(data.qpos[0] - HOME[0]))
    assert 0.02 < moved[1] < moved[0] - 0.001, "5 N m of friction against 900 N m / rad"


def test_a_joint_that_is_none_changes_nothing():
    model = arm_spec().compile()
    before = read_model(model, JOINTS)
    with pytest.raises(UnknownName, match=r"no joint 'joint9'; valid: .*joint1, joint2"):
        apply(Parameters({"joint1": JOINT, "joint9": JOINT}), model)
    assert read_model(model, JOINTS) == before


def test_a_joint_without_a_position_servo():
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body()
    body.add_geom(size=[0.1, 0, 0])
    body.add_joint(name="knee")
    with pytest.raises(ContractError, match="knee is not driven by one position actuator"):
        read_model(spec.compile(), ["knee"])
    spec.add_actuator(name="motor", target="knee", trntype=mujoco.mjtTrn.mjTRN_JOINT).set_to_motor()
    with pytest.raises(ContractError, match="knee is not driven by one position actuator"):
        read_model(spec.compile(), ["knee"])


def test_a_file_and_back(tmp_path):
    parameters = Parameters({"joint1": JOINT}, 0.0125, {"dataset": "d.zarr"})
    save(parameters, tmp_path / "arm.json")
    assert load(tmp_path / "arm.json") == parameters


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "something else"}, "its format is not"),
        ({"delay_s": -1.0}, "delay_s is -1.0; want seconds"),
        ({"delay_s": None}, "delay_s is None"),
        ({"joints": {"joint1": {"kp": 1.0}}}, "missing 4 required"),
        ({"joints": {"joint1": {**vars(JOINT), "kp": float("nan")}}}, "kp is nan; want a finite number from 0"),
        (
            {"joints": {"joint1": {**vars(JOINT), "kp": 0}}},
            "kp is 0; want it above 0: a servo without it holds nothing",
        ),
        ({"joints": {"joint1": {**vars(JOINT), "kd": 1.0}}}, "unexpected keyword argument 'kd'"),
        ({"joints": [1]}, "no attribute 'items'"),
    ],
)
def test_what_is_no_such_file(tmp_path, change, says):
    path = tmp_path / "arm.json"
    good = {"format": FORMAT, "delay_s": 0.0, "joints": {"joint1": vars(JOINT)}}
    path.write_text(json.dumps(good))
    load(path)
    path.write_text(json.dumps({**good, **change}))
    with pytest.raises(ConfigError, match=f"arm.json.*{says}.*twin identify"):
        load(path)


def test_what_is_no_json(tmp_path):
    (tmp_path / "arm.json").write_text("kp: 3")
    with pytest.raises(ConfigError, match="is no JSON"):
        load(tmp_path / "arm.json")
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "other.json")
