"""What processes that share a batch draw at random: the rows of what one process would have drawn for all of it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from robopolicy.errors import ContractError

_SHAPED = (torch.randn, torch.rand, torch.randint)  # with a shape, whose first length is that of the samples
_ELSEWHERE = (  # would come out alike in all processes, had they not the generator that is shared
    *_SHAPED,
    torch.randn_like,
    torch.rand_like,
    torch.randint_like,
    torch.normal,
    torch.bernoulli,
    torch.multinomial,
    torch.randperm,
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.bernoulli_,
    Tensor.random_,
    Tensor.exponential_,
)
_DROPOUTS = (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)  # scale or zero
_OTHERS = (  # draw in ways that are not shared
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
    functional.multi_head_attention_forward,
    functional.rrelu,
)


class SharedDraws(TorchFunctionMode):
    """Draws for all processes and keeps the rows of one: noise, levels, crops and the masks of dropout.

    On a CPU these are the numbers that one process draws. A GPU draws the masks within its fused attention in an order
    of its own, so there they are as random but not the same.

    Args:
        rank: of this process, which has the samples rank, rank + world, ... of the batch.
        world: how many processes there are.
        generator: that a policy's loss was given.
        samples: of this process.

    Raises:
        ContractError: within it, if something is drawn that it cannot share.
    """

    def __init__(self, rank: int, world: int, generator: torch.Generator, samples: int) -> None:
        super().__init__()
        self._rank, self._world, self._generator, self._samples = rank, world, generator, samples

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is self._generator:
            return self._draw(func, args, kwargs)
        if func in _ELSEWHERE:
            raise ContractError(
                f"training: {func.__name__} in several processes; want every draw from the generator the loss is given"
            )
        if func in _DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func in _OTHERS and _on(func, args, kwargs):
            raise ContractError(
                f"training: {func.__name__} in several processes; want nn.Dropout, which they can share"
            )
        return func(*args, **kwargs)

    def _draw(self, func: Callable, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        if func not in _SHAPED:
            name = getattr(func, "__name__", func)
            raise ContractError(f"training: {name} in several processes; want randn, rand or randint, one row a sample")
        if "size" in kwargs:
            shape, bounds = tuple(kwargs.pop("size")), args
        elif isinstance(args[-1], Sequence):
            shape, bounds = tuple(args[-1]), args[:-1]
        else:
            shape, bounds = tuple(args), ()
        return self._rows(func(*bounds, size=(self._world * shape[0], *shape[1:]), **kwargs), shape)

    def _dropout(
        self, func: Callable, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return input
        ones = torch.ones((self._world * len(input), *input.shape[1:]), dtype=input.dtype, device=input.device)
        return input * self._rows(func(ones, p, training), input.shape)

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        """Attend as torch's own does, its weights dropped in rows that are shared; eq. 1 of Vaswani et al. 2017."""
        fused = functional.scaled_dot_product_attention
        if dropout_p == 0:
            return fused(query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)
        if enable_gqa:
            raise ContractError("training: grouped attention with dropout in several processes; want equal heads")
        heat = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(heat.shape[-2:], dtype=torch.bool, device=heat.device).tril()
        if attn_mask is not None:
            heat = heat.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else heat + attn_mask
        return self._dropout(functional.dropout, heat.softmax(-1), dropout_p) @ value

    def _rows(self, drawn: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the rows of this process; ``shape`` may have several rows a sample, which stay together."""
        each = max(shape[0] // self._samples, 1)
        mine = drawn.unflatten(0, (-1, each))[self._rank :: self._world]
        return mine.flatten(0, 1).reshape(tuple(shape))


def _on(func: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function that draws in training does so in this call."""
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    return bool(bound.arguments["training"]) and bound.arguments.get("dropout_p", 1.0) > 0
