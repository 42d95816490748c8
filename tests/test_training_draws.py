"""What processes that share a batch draw: the rows of what one process draws, or a refusal, never something else."""

import pytest
import torch
from torch.nn import functional

from robopolicy.errors import ContractError
from robopolicy.training.draws import SharedDraws

WORLD, SAMPLES = 3, 2  # processes, and samples of each
DRAWS = {
    "randn of a shape": lambda n, g: torch.randn((n, 4), generator=g),
    "randn of lengths": lambda n, g: torch.randn(n, 4, generator=g),
    "randn of a size": lambda n, g: torch.randn(size=(n, 4), generator=g),
    "rand of one length": lambda n, g: torch.rand(n, generator=g, dtype=torch.float64),
    "randint to a bound": lambda n, g: torch.randint(9, (n, 2), generator=g),
    "randint within bounds": lambda n, g: torch.randint(3, 9, (n,), generator=g),
    "randint by name": lambda n, g: torch.randint(low=3, high=9, size=(n,), generator=g),
}
MASKS = {
    "dropout": lambda x: functional.dropout(x, 0.5),
    "dropout of channels": lambda x: functional.dropout1d(x, 0.5),
    "a layer": torch.nn.Dropout(0.3),
}
REFUSED = {
    "normal": lambda g: torch.normal(0.0, 1.0, (2, 3), generator=g),
    "bernoulli": lambda g: torch.bernoulli(torch.full((2,), 0.5), generator=g),
    "randperm": lambda g: torch.randperm(2, generator=g),
    "in place": lambda g: torch.empty(2).uniform_(generator=g),
    "of torch's own generator": lambda g: torch.randn(2, 3),
    "like another": lambda g: torch.rand_like(torch.ones(2, 3)),
    "alpha dropout": lambda g: functional.alpha_dropout(torch.ones(2, 3), 0.5, training=True),
    "grouped heads": lambda g: functional.scaled_dot_product_attention(
        torch.ones(2, 4, 3, 8), torch.ones(2, 2, 3, 8), torch.ones(2, 2, 3, 8), dropout_p=0.5, enable_gqa=True
    ),
}


def shared(rank: int, generator: torch.Generator) -> SharedDraws:
    return SharedDraws(rank, WORLD, generator, SAMPLES)


@pytest.mark.parametrize("name", DRAWS)
def test_each_process_has_the_rows_of_its_samples(name):
    whole = DRAWS[name](WORLD * SAMPLES, torch.Generator().manual_seed(1))
    for rank in range(WORLD):
        generator = torch.Generator().manual_seed(1)
        with shared(rank, generator):
            mine = DRAWS[name](SAMPLES, generator)
        assert torch.equal(mine, whole[rank::WORLD])


@pytest.mark.parametrize("name", MASKS)
def test_so_it_has_the_rows_of_a_mask(name):
    x = torch.rand(WORLD * SAMPLES, 5, 6) + 1
    torch.manual_seed(2)
    whole = MASKS[name](x)
    assert (whole == 0).any()
    for rank in range(WORLD):
        torch.manual_seed(2)
        with shared(rank, torch.Generator()):
            mine = MASKS[name](x[rank::WORLD])
        assert torch.allclose(mine, whole[rank::WORLD])


def test_rows_of_one_sample_stay_together():
    whole = torch.randn(WORLD * SAMPLES * 2, 4, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    with shared(1, generator):
        mine = torch.randn(SAMPLES * 2, 4, generator=generator)
    assert torch.equal(mine, whole.unflatten(0, (-1, 2))[1::WORLD].flatten(0, 1))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_is_refused(name):
    generator = torch.Generator()
    REFUSED[name](generator)  # alone it is no error
    with shared(0, generator), pytest.raises(ContractError, match="in several processes") as caught:
        REFUSED[name](generator)
    assert "\n" not in str(caught.value)


def test_what_draws_nothing_is_as_ever():
    x = torch.rand(2, 4, 3, 8)
    mixed = functional.scaled_dot_product_attention(x, x, x)
    with shared(0, torch.Generator()):
        assert torch.equal(functional.alpha_dropout(x, 0.5, training=False), x)
        assert torch.equal(functional.dropout(x, 0.5, training=False), x)
        assert torch.equal(functional.scaled_dot_product_attention(x, x, x), mixed)
