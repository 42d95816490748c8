"""Codecs: exact inverses, no dependence on the base frame, and refusals in one line."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.codecs import make_codec
from robopolicy.policies.rotations import (
    matrix_to_rot6d,
    orthonormal,
    quat_to_matrix,
    rot6d_to_matrix,
    wrap,
)
from robopolicy.spec import TOOL_POSE, ActionSpec, PolicySpec, StateSpec

TOOL = PolicySpec(
    state={"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",)), "q": StateSpec(3, ("rad",))},
    action=TOOL_POSE, horizon=8, n_obs=2,
)  # fmt: skip
JOINTS = replace(TOOL, action=ActionSpec("joint", ("a", "b", "gripper"), ("rad", "rad_wrapped", "open")))


def poses(count: int, rows: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(count * rows, rng=rng).as_matrix()
    columns = np.concatenate([rotation[:, :, 0], rotation[:, :, 1]], axis=1)
    values = np.concatenate([rng.normal(size=(count * rows, 3)), columns, rng.random((count * rows, 1))], axis=1)
    return torch.tensor(values, dtype=torch.float32).view(count, rows, 10)


def tools(count: int, seed: int = 1) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    quat = Rotation.random(count * 2, rng=rng).as_quat(scalar_first=True).reshape(count, 2, 4)
    return {
        "tool_pos": torch.tensor(rng.normal(size=(count, 2, 3)), dtype=torch.float32),
        "tool_quat": torch.tensor(quat, dtype=torch.float32),
        "q": torch.tensor(rng.uniform(-3, 3, (count, 2, 3)), dtype=torch.float32),
    }


def test_rotations_are_scipys():
    rotation = Rotation.random(200, rng=np.random.default_rng(2))
    matrix = torch.tensor(rotation.as_matrix())
    assert torch.allclose(quat_to_matrix(torch.tensor(rotation.as_quat(scalar_first=True)) * 3), matrix, atol=1e-12)
    assert torch.allclose(rot6d_to_matrix(matrix_to_rot6d(matrix)), matrix, atol=1e-12)
    skewed = matrix_to_rot6d(matrix) + 0.1 * torch.randn(200, 6, dtype=torch.float64)
    fixed = rot6d_to_matrix(skewed)
    assert torch.allclose(fixed @ fixed.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(200, 3, 3), atol=1e-9)
    assert torch.allclose(torch.linalg.det(fixed), torch.ones(200, dtype=torch.float64))


@pytest.mark.parametrize("name", ["auto", "plain", "tool_pose", "relative"])
def test_decode_is_the_inverse_of_encode(name):
    codec, actions, state = make_codec(name, TOOL), poses(5, 8), tools(5)
    values = codec.encode(actions, state)
    assert values.shape == (5, 8, codec.dim)
    assert torch.allclose(codec.decode(values, state), actions, atol=1e-5)


def test_a_relative_chunk_is_the_pose_in_the_newest_tools_frame():
    codec, actions, state = make_codec("relative", TOOL), poses(4, 3), tools(4)
    values = codec.encode(actions, state).numpy()
    for b in range(4):
        tool = Rotation.from_quat(state["tool_quat"][b, -1].numpy(), scalar_first=True)
        for k in range(3):
            want = tool.inv().apply(actions[b, k, :3].numpy() - state["tool_pos"][b, -1].numpy())
            np.testing.assert_allclose(values[b, k, :3], want, atol=1e-5)
            turn = rot6d_to_matrix(torch.tensor(values[b, k, 3:9])).numpy()
            here = rot6d_to_matrix(actions[b, k, 3:9]).numpy()
            np.testing.assert_allclose(turn, tool.inv().as_matrix() @ here, atol=1e-5)


def test_a_relative_chunk_does_not_depend_on_the_base_frame():
    actions, state = poses(4, 8), tools(4)
    move = Rotation.from_rotvec([0.3, -1.0, 2.0])
    shift, turn = torch.tensor([1.0, -2.0, 0.5]), torch.tensor(move.as_matrix(), dtype=torch.float32)
    moved = torch.cat(
        [
            actions[..., :3] @ turn.T + shift,
            matrix_to_rot6d(turn @ rot6d_to_matrix(actions[..., 3:9])),
            actions[..., 9:],
        ],
        dim=-1,
    )
    quat = (move * Rotation.from_quat(state["tool_quat"].flatten(0, 1).numpy(), scalar_first=True)).as_quat(
        scalar_first=True
    )
    there = {
        "tool_pos": state["tool_pos"] @ turn.T + shift,
        "tool_quat": torch.tensor(quat, dtype=torch.float32).view(4, 2, 4),
    }
    codec = make_codec("relative", TOOL)
    assert torch.allclose(codec.encode(moved, there), codec.encode(actions, state), atol=1e-5)


def test_one_anchor_serves_all_candidates():
    codec, state = make_codec("relative", TOOL), tools(1)
    values = codec.encode(poses(1, 8), state)
    assert torch.allclose(codec.decode(values.expand(6, -1, -1), state)[5], codec.decode(values, state)[0])


def test_a_tool_pose_comes_back_with_an_orthonormal_rotation():
    values = poses(2, 8) + 0.05 * torch.randn(2, 8, 10, generator=torch.Generator().manual_seed(0))
    decoded = make_codec("tool_pose", TOOL).decode(values, {})
    assert torch.allclose(decoded[..., 3:9], orthonormal(values[..., 3:9]))
    assert torch.equal(decoded[..., [0, 1, 2, 9]], values[..., [0, 1, 2, 9]])
    assert torch.allclose(decoded[..., 3:6].norm(dim=-1), torch.ones(2, 8), atol=1e-5)


def test_a_wrapped_joint_does_not_jump_at_half_a_turn():
    codec = make_codec("joint", JOINTS)
    state = {"q": torch.tensor([[[0.0, 3.1, 0.5]]])}
    actions = torch.tensor([[[0.2, 3.1, 1.0], [0.2, -3.1, 1.0]]])  # 0.083 rad on, across pi
    values = codec.encode(actions, state)
    assert torch.allclose(values[0, :, 1], torch.tensor([0.0, 2 * np.pi - 6.2]), atol=1e-5)
    assert torch.equal(values[..., [0, 2]], actions[..., [0, 2]])
    decoded = codec.decode(values, state)
    assert (decoded[0, 1, 1] - decoded[0, 0, 1]).abs() < 0.1
    assert torch.allclose(wrap(decoded - actions), torch.zeros(1, 2, 3), atol=1e-5)


def test_refusals_are_one_clear_line():
    vector = replace(TOOL, action=ActionSpec("vector", ("x", "y"), ("px",)))
    with pytest.raises(ContractError, match="codec relative: the action is vector; want tool_pose"):
        make_codec("relative", vector)
    with pytest.raises(
        ContractError, match=r"must see tool_pos and tool_quat; tool_quat is not among its states \[tool_pos\]"
    ):
        make_codec("relative", TOOL.select(state=("tool_pos",)))
    with pytest.raises(ContractError, match="joint 1 wraps, and the policy sees 0 joints in 'q'; it must see 2"):
        make_codec("joint", JOINTS.select(state=("tool_pos",)))
    with pytest.raises(UnknownName, match="no codec 'delta'; valid: auto"):
        make_codec("delta", TOOL)
    assert make_codec("auto", vector).encode(torch.ones(1, 1, 2), {}).shape == (1, 1, 2)
