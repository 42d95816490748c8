import numpy as np
import pytest
import torch

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.normaliser import METHODS, Normaliser
from robopolicy.spec import TOOL_POSE, ActionSpec, StateSpec


def fitted(normaliser: Normaliser, values: torch.Tensor) -> Normaliser:
    normaliser.fit(values)
    return normaliser


def test_maps_the_range_to_minus_one_and_one_and_back():
    values = torch.rand(200, 3) * torch.tensor([512.0, 0.01, 3.0]) - torch.tensor([0.0, 5.0, 1.5])
    normaliser = fitted(Normaliser(3), values)
    scaled = normaliser(values)
    assert torch.allclose(scaled.amin(0), -torch.ones(3), atol=1e-3)
    assert torch.allclose(scaled.amax(0), torch.ones(3), atol=1e-3)
    assert torch.allclose(normaliser.inverse(scaled), values, rtol=1e-6, atol=1e-4), "float32 of numbers up to 512"


def test_constant_dimension_is_only_shifted():
    values = torch.full((50, 2), 7.0)
    values[:, 1] += torch.rand(50) * 1e-5  # noise far below the range that counts
    scaled = fitted(Normaliser(2), values)(values)
    assert scaled.abs().max() < 1e-4
    assert torch.allclose(fitted(Normaliser(2), values).inverse(scaled), values)


def test_wrapped_angle_is_continuous_across_pi_and_comes_back():
    spec = StateSpec(2, ("px", "rad_wrapped"))
    values = torch.stack([torch.linspace(0, 9, 100), torch.linspace(-3.1, 3.1, 100)], dim=1)
    normaliser = fitted(Normaliser.of_state(spec), values)
    below, above = torch.tensor([[4.0, np.pi - 1e-4]]), torch.tensor([[4.0, -np.pi + 1e-4]])
    assert normaliser.out_dim == 3
    assert (normaliser(below) - normaliser(above)).abs().max() < 1e-3
    turned = values + torch.tensor([0.0, 2 * np.pi])
    assert torch.allclose(normaliser(turned), normaliser(values), atol=1e-5)
    assert torch.allclose(normaliser.inverse(normaliser(values)), values, atol=1e-5)


def test_rotation_of_a_tool_pose_passes_untouched():
    values = torch.rand(30, 10)
    scaled = fitted(Normaliser.of_action(TOOL_POSE), values)(values)
    assert torch.equal(scaled[:, 3:9], values[:, 3:9])
    assert not torch.allclose(scaled[:, :3], values[:, :3])
    assert torch.allclose(scaled[:, 9].amax(), torch.tensor(1.0), atol=1e-6)


def test_plain_vector_has_no_untouched_part():
    spec = ActionSpec("vector", tuple("abcdefghij"), ("1",))
    assert not Normaliser.of_action(spec).fixed.any()


def test_unfitted_never_passes_for_an_identity():
    normaliser = Normaliser(2)
    assert not normaliser.fitted
    assert normaliser(torch.zeros(1, 2)).isnan().all()


def test_statistics_travel_with_the_weights_and_loading_is_strict():
    values = torch.rand(20, 2)
    source, target = fitted(Normaliser(2), values), Normaliser(2)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(values), source(values))
    with pytest.raises(RuntimeError, match="center"):
        Normaliser(2).load_state_dict({"scale": torch.ones(2)})


@pytest.mark.parametrize("values", [torch.zeros(4, 3), torch.zeros(0, 2), torch.tensor([[0.0, torch.nan]])])
def test_refuses_what_it_cannot_fit(values):
    with pytest.raises(ContractError, match="normaliser: cannot fit"):
        Normaliser(2).fit(values)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [None, 4])
def test_every_method_comes_back_exactly(method, steps):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(300, 4, 3, generator=generator) * torch.tensor([100.0, 1.0, 0.01]) + 5
    values[..., 2] = 0.25  # constant
    normaliser = Normaliser(3, method=method, steps=steps)
    normaliser.fit(values)
    assert normaliser.fitted
    assert torch.allclose(normaliser.inverse(normaliser(values)), values, rtol=1e-6, atol=1e-4)
    other = Normaliser(3, method=method, steps=steps)
    other.load_state_dict(normaliser.state_dict())
    assert torch.equal(other(values), normaliser(values))


def test_mean_and_deviation_are_zero_and_one():
    values = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1)) * 7 + 3
    scaled = fitted(Normaliser(2, method="meanstd"), values)(values)
    assert torch.allclose(scaled.mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(scaled.std(0, correction=0), torch.ones(2), atol=1e-5)


def test_quantiles_do_not_let_an_outlier_squeeze_the_rest():
    values = torch.linspace(-1, 1, 1001)[:, None].clone()
    values[0] = -1000.0
    squeezed, kept = fitted(Normaliser(1), values), fitted(Normaliser(1, method="quantile"), values)
    assert (squeezed(values)[500:].amax() - squeezed(values)[500:].amin()) < 0.01
    assert torch.allclose(kept(torch.tensor([[-0.98], [0.98]])), torch.tensor([[-1.0], [1.0]]), atol=0.01)
    assert kept.limit > 900  # what was demonstrated is not clipped away


def test_quantiles_of_what_rarely_changes_are_its_range():
    gripper = torch.ones(1000, 1)
    gripper[:5] = 0.0
    scaled = fitted(Normaliser(1, method="quantile"), gripper)(gripper)
    assert torch.equal(scaled.unique(), torch.tensor([-1.0, 1.0]))


def test_statistics_of_each_step_leave_padding_out():
    values = torch.arange(10.0)[:, None, None] * torch.tensor([[1.0], [10.0]])  # (10, 2, 1)
    valid = torch.ones(10, 2, dtype=torch.bool)
    values[9, 1], valid[9, 1] = 1e6, False
    normaliser = Normaliser(1, steps=2)
    normaliser.fit(values, valid)
    assert torch.allclose(normaliser.center[:, 0], torch.tensor([4.5, 40.0]))
    assert torch.allclose(normaliser.scale[:, 0], torch.tensor([4.5, 40.0]))


def test_one_clear_line_for_what_cannot_be_fitted():
    with pytest.raises(UnknownName, match="no normaliser 'zscore'; valid: identity, meanstd, minmax, quantile"):
        Normaliser(2, method="zscore")
    with pytest.raises(ContractError, match=r"cannot fit values \(5, 3, 2\); want \(N, 4, 2\)"):
        Normaliser(2, steps=4).fit(torch.zeros(5, 3, 2))
    with pytest.raises(ContractError, match="padding everywhere"):
        Normaliser(1, steps=2).fit(torch.zeros(3, 2, 1), torch.tensor([[True, False]] * 3))
