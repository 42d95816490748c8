"""Presets: what their descriptions say, and what train.json and spec.json keep of them."""

import re

import pytest
import torch

from robopolicy.errors import ContractError
from robopolicy.policies.config import DESCRIPTIONS, PRESETS, DiffusionConfig

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
