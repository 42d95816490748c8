"""Presets: what their descriptions say, and what train.json and spec.json keep of them."""

import re

import pytest
import torch

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.config import DESCRIPTIONS, PRESETS, DiffusionConfig, GoalConfig, RealTimeConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.transformer import TransformerConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec

SIZES = {name: re.search(r"of (\d+) M\b", words) for name, words in DESCRIPTIONS.items()}
STEPS = {name: re.search(r"(\d+) steps", words) for name, words in DESCRIPTIONS.items()}


def test_every_preset_is_described():
    assert DESCRIPTIONS.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", [name for name, said in SIZES.items() if said])
def test_a_network_is_as_large_as_its_description_says(name):
    rows, dim, tokens = 16, 2, 2
    with torch.device("meta"):
        net = PRESETS[name].net.build(rows, dim, tokens, 5)
    size = sum(parameter.numel() for parameter in net.parameters())
    said = float(SIZES[name][1])
    assert size / 1e6 == pytest.approx(said, abs=max(0.5, 0.04 * said))  # in words it is rounded; more inputs, more


@pytest.mark.parametrize("name", [name for name, said in STEPS.items() if said])
def test_a_preset_takes_as_many_steps_as_its_description_says(name):
    assert PRESETS[name].solver.steps == int(STEPS[name][1])


@pytest.mark.parametrize("name", PRESETS)
def test_json_brings_a_preset_back_and_names_what_is_wrong_with_it(name):
    data = PRESETS[name].to_json()
    assert DiffusionConfig.from_json(data) == PRESETS[name]
    with pytest.raises(ContractError, match="horizon_of_dreams"):
        DiffusionConfig.from_json({**data, "horizon_of_dreams": 1})
    with pytest.raises(ContractError, match=r"missing.*selector"):
        DiffusionConfig.from_json({key: value for key, value in data.items() if key != "selector"})


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (MlpConfig, {"width": 0}, "mlp: width is 0; want at least 1"),
        (MlpConfig, {"depth": -1}, "mlp: depth is -1; want at least 1"),
        (MlpConfig, {"expansion": 0}, "mlp: expansion is 0"),
        (MlpConfig, {"dropout": 1.0}, "mlp: dropout is 1.0; want 0 or more, and below 1"),
        (MlpConfig, {"step_dim": 3}, "mlp: step_dim is 3; want an even number, at least 2"),
        (MlpConfig, {"step_dim": 0}, "mlp: step_dim is 0"),
        (UnetConfig, {"kernel": 4}, "unet1d: kernel is 4; want an odd number of rows"),
        (UnetConfig, {"kernel": -1}, "unet1d: kernel is -1"),
        (UnetConfig, {"groups": 5}, r"channels are \(256, 512, 1024\); want multiples of groups, 5"),
        (UnetConfig, {"channels": ()}, "want multiples of groups, 8"),
        (UnetConfig, {"channels": (16, 0)}, "want multiples of groups, 8"),
        (UnetConfig, {"step_dim": 1}, "unet1d: step_dim is 1"),
        (TransformerConfig, {"heads": 0}, "transformer: heads is 0"),
        (TransformerConfig, {"depth": 0}, "transformer: depth is 0"),
        (TransformerConfig, {"dropout": -0.1}, "transformer: dropout is -0.1"),
        (VPConfig, {"steps": 0}, "vp: steps is 0; want at least 1"),
        (EDMConfig, {"sigma_data": 0.0}, "edm: sigma_data is 0.0; want a finite number above 0"),
        (EDMConfig, {"scale": float("nan")}, "edm: scale is nan"),
        (EDMConfig, {"rho": -7.0}, "edm: rho is -7.0"),
        (FlowConfig, {"alpha": 0.0}, "flow: alpha is 0.0"),
        (ConsistencyConfig, {"alpha": float("inf")}, "consistency: alpha is inf"),
        (VisionConfig, {"crop": 1.5}, "vision: crop is 1.5; want a share of the side, above 0, at most 1"),
        (VisionConfig, {"keypoints": 0}, "vision: keypoints is 0"),
        (VisionConfig, {"feature_dim": 0}, "vision: feature_dim is 0"),
        (VisionConfig, {"width": 0}, "vision: width is 0"),
        (RealTimeConfig, {"beta": -1.0}, "real_time: beta is -1.0"),
        (RealTimeConfig, {"jacobian": "vpj"}, "no jacobian 'vpj'; valid: identity, vjp"),
        (RealTimeConfig, {"schedule": "lin"}, "no schedule 'lin'; valid: exp, linear, ones"),
        (GoalConfig, {"streams": ("a",), "weight": float("nan")}, "goal: weight is nan; want a finite number"),
        (DiffusionConfig, {"lr": 0.0}, "policy: lr is 0.0"),
    ],
)
def test_what_is_out_of_its_range_is_one_line(kind, fields, message):
    with pytest.raises((ContractError, UnknownName), match=message) as caught:
        kind(**fields)
    assert "\n" not in str(caught.value)


def test_a_chunk_keeps_a_row_that_is_not_given():
    spec = PolicySpec(state={"a": StateSpec(1, ("m",))}, action=ActionSpec("vector", ("x",), ("m",)), horizon=4)
    DiffusionPolicy(spec, DiffusionConfig(MlpConfig(width=8, depth=1), max_delay=3))
    with pytest.raises(ContractError, match="max_delay 4 gives all of a chunk's 4 rows; want fewer"):
        DiffusionPolicy(spec, DiffusionConfig(MlpConfig(width=8, depth=1), max_delay=4))
