import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import group_norm, mish

from robopolicy.errors import ContractError
from robopolicy.policies.config import DESCRIPTIONS, PRESETS, DiffusionConfig
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import FlowConfig, VPConfig
from robopolicy.policies.steps import StepEmbedding, sinusoidal
from robopolicy.policies.transformer import TransformerConfig
from robopolicy.policies.unet1d import UnetConfig

NETS = {
    "mlp": MlpConfig(width=32, depth=2, dropout=0.1),
    "unet1d": UnetConfig((8, 16, 32), groups=4, step_dim=16),
    "transformer": TransformerConfig(width=32, depth=2, heads=4, dropout=0.1),
    "causal": TransformerConfig(width=32, depth=2, heads=4, causal=True),
}


def built(config, rows=8, action_dim=2, tokens=2, token_dim=3) -> nn.Module:
    """A network none of whose weights is zero, as after some training."""
    torch.manual_seed(0)
    net = config.build(rows, action_dim, tokens, token_dim).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def inputs(batch=3, rows=8, action_dim=2, tokens=2, token_dim=3) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, rows, action_dim, generator=draw),
        torch.tensor([2.0, 30.0, 99.0])[:batch],
        torch.randn(batch, tokens, token_dim, generator=draw),
    )


@pytest.mark.parametrize("name", NETS)
class TestEveryNet:
    def test_a_level_for_the_chunk_is_the_same_level_for_each_row(self, name):
        net, (x, t, cond) = built(NETS[name]), inputs()
        for levels in (t, t.long() - 1):  # VP counts in whole numbers, -1 is clean
            assert torch.allclose(net(x, levels, cond), net(x, levels[:, None].expand(3, 8), cond), atol=1e-5)

    def test_a_rows_own_level_is_seen(self, name):
        net, (x, t, cond) = built(NETS[name]), inputs()
        rows = t[:, None].repeat(1, 8)
        given = rows.clone()
        given[:, :3] = -1.0
        assert ((net(x, given, cond) - net(x, rows, cond)).abs().amax(dim=(1, 2)) > 1e-3).all()
        fewer = rows.clone()
        fewer[:, :2] = -1.0
        assert not torch.allclose(net(x, given, cond), net(x, fewer, cond), atol=1e-4)

    def test_every_input_matters_and_samples_do_not_mix(self, name):
        net, (x, t, cond) = built(NETS[name]), inputs()
        base = net(x, t, cond)
        assert base.shape == x.shape
        for other in (net(x + 0.5, t, cond), net(x, t + 7, cond), net(x, t, cond + 0.5), net(x, t, cond.flip(1))):
            assert ((other - base).abs().amax(dim=(1, 2)) > 1e-4).all()
        assert torch.allclose(net(x[1:2], t[1:2], cond[1:2]), base[1:2], atol=1e-5)

    def test_learns_what_depends_on_level_row_and_condition(self, name):
        torch.manual_seed(0)
        net = NETS[name].build(8, 2, 2, 3).eval()  # without dropout the fit can be exact
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        draw = torch.Generator().manual_seed(0)
        row = torch.linspace(-1, 1, 8)[:, None]
        losses = []
        for _ in range(150):
            x, cond = torch.randn(48, 8, 2, generator=draw), torch.randn(48, 2, 3, generator=draw)
            t = 100 * torch.rand(48, generator=draw)
            want = row * cond[:, 1, :2][:, None] + (t / 50 - 1)[:, None, None] * cond[:, 0, :1][:, None]
            loss = ((net(x, t, cond) - want) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-20:]) / 20 < 0.6 * losses[0]

    def test_every_parameter_gets_a_gradient(self, name):
        net, (x, t, cond) = built(NETS[name]), inputs()
        net(x, t, cond).square().mean().backward()
        for key, parameter in net.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key

    def test_bfloat16_stays_near(self, name):
        net, (x, t, cond) = built(NETS[name]), inputs()
        with torch.autocast("cpu", torch.bfloat16):
            near = net(x, t, cond).float()
        want = net(x, t, cond)
        assert (near - want).abs().max() < 0.05 * want.abs().max()


def test_only_dropout_makes_training_differ():
    x, t, cond = inputs()
    for name, config in NETS.items():
        net = built(config)
        calm = net(x, t, cond)
        differs = not torch.equal(net.train()(x, t, cond), calm)
        assert differs == (getattr(config, "dropout", 0) > 0), name


def test_causal_rows_see_only_the_rows_before_them():
    x, t, cond = inputs()
    later = x.clone()
    later[:, 5] += 1
    changed = {name: (built(NETS[name])(later, t, cond) - built(NETS[name])(x, t, cond)) for name in NETS}
    assert (changed["causal"][:, :5] == 0).all()
    assert (changed["causal"][:, 5:].abs().amax(dim=(0, 2)) > 1e-4).all()
    assert (changed["transformer"].abs().amax(dim=(0, 2)) > 1e-4).all()


def test_a_new_transformer_says_nothing_yet():
    x, t, cond = inputs()
    assert (TransformerConfig(width=32, depth=2).build(8, 2, 2, 3)(x, t, cond) == 0).all()


def test_transformer_tells_rows_and_tokens_by_their_place():
    x, t, cond = inputs()
    net = built(NETS["transformer"])
    same = net(x[:, :1].expand(-1, 8, -1), t, cond)
    assert ((same - same[:, :1]).abs().amax(dim=(0, 2))[1:] > 1e-4).all()


@pytest.mark.parametrize("per_row", [False, True])
def test_unet_equals_a_plain_reading_of_the_paper(per_row):
    """The same weights through functions of torch alone, one convolution after the other."""
    net, (x, t, cond) = built(NETS["unet1d"]), inputs()
    levels = t[:, None] + torch.arange(8) if per_row else t
    weights = dict(net.named_parameters())

    def conv(key, y, **how):
        return torch.conv1d(y, weights[f"{key}.weight"], weights[f"{key}.bias"], **how)

    def norm(key, y):
        return group_norm(y, 4, weights[f"{key}.weight"], weights[f"{key}.bias"])

    def film_block(key, y, film):
        told = mish(film) @ weights[f"{key}.film.1.weight"].T + weights[f"{key}.film.1.bias"]
        scale, shift = told.transpose(1, 2).chunk(2, dim=1)
        first = mish(norm(f"{key}.first.1", conv(f"{key}.first.0", y, padding=2)))
        second = first * (1 + scale) + shift
        second = mish(norm(f"{key}.second.1", conv(f"{key}.second.0", second, padding=2)))
        return second + (conv(f"{key}.skip", y) if f"{key}.skip.weight" in weights else y)

    rows = levels if per_row else levels[:, None].expand(-1, 8)
    films = [torch.cat([net.step(rows), cond.flatten(1)[:, None].expand(-1, 8, -1)], dim=-1)]
    films += [films[0].unflatten(1, (4, 2)).mean(2), films[0].unflatten(1, (2, 4)).mean(2)]
    y, skips = x.transpose(1, 2), []
    for i in range(3):
        y = film_block(f"down.{i}.1", film_block(f"down.{i}.0", y, films[i]), films[i])
        skips.append(y)
        y = conv(f"down.{i}.2", y, stride=2, padding=1) if i < 2 else y
    y = film_block("middle.1", film_block("middle.0", y, films[2]), films[2])
    for i in range(2):
        y = torch.cat([y, skips[2 - i]], dim=1)
        y = film_block(f"up.{i}.1", film_block(f"up.{i}.0", y, films[2 - i]), films[2 - i])
        up = weights[f"up.{i}.2.weight"], weights[f"up.{i}.2.bias"]
        y = torch.conv_transpose1d(y, *up, stride=2, padding=1)
    y = conv("leave.1", mish(norm("leave.0.1", conv("leave.0.0", y, padding=2))))
    assert torch.allclose(net(x, levels, cond), y.transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_sinusoids_are_those_of_the_formula():
    t = torch.tensor([0.0, 3.0, 50.0])
    made = sinusoidal(t, 6)
    want = [[f(v * 10_000 ** (-i / 2)) for f in (torch.sin, torch.cos) for i in range(3)] for v in t]
    assert torch.allclose(made, torch.tensor(want), atol=1e-5)
    assert StepEmbedding(6, 5)(t[:, None].expand(3, 4)).shape == (3, 4, 5)


@pytest.mark.parametrize("process", [VPConfig(prediction="x0"), FlowConfig()], ids=["vp", "flow"])
def test_mlp_continues_given_rows(process):
    """Half-lines whose slope only the given rows tell: the rest is guessed far better with them than without."""
    torch.manual_seed(0)
    net, process = MlpConfig(width=96, depth=2).build(8, 1, 1, 1), process.build()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    draw = torch.Generator().manual_seed(0)
    line = torch.linspace(-1, 1, 8)[:, None]

    def noisy(count, delay, level=None):
        x0 = line * (2 * torch.rand(count, 1, 1, generator=draw) - 1)
        t = process.draw(count, draw, x0.device) if level is None else torch.full((count,), level)
        given = torch.arange(8) < delay
        levels = torch.where(given, torch.full_like(t, process.clean_level)[:, None], t[:, None])
        eps = torch.randn(x0.shape, generator=draw)
        return x0, eps, levels, (~given).float()

    for _ in range(250):
        x0, eps, levels, asked = noisy(128, torch.randint(4, (128, 1), generator=draw))
        loss = process.loss(net, torch.zeros(128, 1, 1), x0, eps, levels, asked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def error(delay):
        x0, eps, levels, _ = noisy(1000, torch.full((1000, 1), delay), process.grid(1).t[0])
        with torch.no_grad():
            made = process.denoise(net, torch.zeros(1000, 1, 1), process.noised(x0, eps, levels), levels)
        return ((made - x0)[:, 3:] ** 2).mean().item()

    assert error(3) < 0.2 * error(0)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("unet-small", 4.46), ("unet", 65.4), ("unet-large", 248), ("mlp", 3.24), ("transformer", 12.25), ("edm", 6.5)],
)
def test_presets_have_the_sizes_they_say(name, millions):
    with torch.device("meta"):
        net = PRESETS[name].net.build(16, 2, 2, 6)  # Push-T from its state
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_large_unet_has_the_papers_256_m_for_two_cameras():
    with torch.device("meta"):
        net = PRESETS["unet-large"].net.build(16, 10, 2, 2 * 64 + 9)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(256, rel=0.01)


def test_each_preset_says_what_it_is_and_goes_with_its_solver():
    assert list(DESCRIPTIONS) == list(PRESETS)
    for name, config in PRESETS.items():
        assert len(DESCRIPTIONS[name]) <= 90
        assert config.solver.name != "consistency" or hasattr(config.process, "share"), name
        said = [word for word, following in itertools.pairwise(DESCRIPTIONS[name].split()) if following[:4] == "step"]
        assert said in ([], [str(config.solver.steps)]), name
        assert DiffusionConfig.from_json(config.to_json()) == config


def test_sizes_that_cannot_be_are_one_line():
    with pytest.raises(ContractError, match="width 30 is not a multiple of twice its 4 heads"):
        TransformerConfig(width=30, heads=4)
    with pytest.raises(ContractError, match="horizon 6 is not a multiple of 4, as 3 levels need"):
        UnetConfig((8, 16, 32)).build(6, 2, 1, 3)
