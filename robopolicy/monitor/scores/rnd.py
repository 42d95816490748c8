"""Random network distillation: how badly a network, taught on successful episodes, predicts another one's output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import MonitorError
from robopolicy.monitor.episodes import Episodes, embeddings, owners
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.scores.folds import folds, packed, require_fitted, require_folds, scored_by_folds, unpacked
from robopolicy.monitor.scores.learning import Schedule, linear, load_weights, train, weight_arrays
from robopolicy.monitor.scores.standard import Standard
from robopolicy.types import Decision

TARGET = (1024, 2048, 4096, 512)  # of the paper
PREDICTOR = (1024, 2048, 4096, 2048, 1024, 512)
SMALL_TARGET = (64, 128, 256, 64)
SMALL_PREDICTOR = (64, 128, 256, 128, 64, 64)
LEAKY = 3  # hidden layers of the predictor with a leaky ReLU; those after it have a plain one


class RND:
    """s(o) = |f(o) - g(o)|: a random network g, and f that was taught to equal it on successful embeddings.

    Networks, initialisation, loss and optimiser are those of RND-OE in FIPER (Roemer et al. 2025, published code):
    target E-1024-2048-4096-512 with leaky ReLUs, predictor E-1024-2048-4096-2048-1024-512 with three leaky and two
    plain ones, orthogonal weights of gain sqrt(2), biases 0, the mean distance as loss, AdamW 1e-4 with a cosine to
    1e-6 over at most 250 epochs. Unlike there, validation episodes are left out whole, and the embedding is
    standardised, elements that never moved dropped, unless ``raw``.

    Args:
        layout: not looked at.
        seed: of both networks, the order of the decisions, the validation episodes and the folds.
        small: narrow networks that seconds on a CPU suffice for (64-128-256-64), at most 20 epochs at a rate of 1e-3.
        raw: take embeddings as they are, as the paper does; an element of large numbers then outweighs the others.
        target: widths of g after its input, the last of them the output's; None takes those of the size.
        predictor: widths of f likewise.
        folds: parts that ``held_out`` leaves out in turn; a network is trained for each.
        device: that networks are trained on, such as ``cuda``; they judge on the CPU.
        schedule: entries of `Schedule`, such as ``epochs``.

    Raises:
        MonitorError: if the two outputs differ in width, or a setting makes no sense.
    """

    name = "rnd"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(
        self,
        *,
        layout: ActionLayout | None = None,
        seed: int = 0,
        small: bool = False,
        raw: bool = False,
        target: Sequence[int] | None = None,
        predictor: Sequence[int] | None = None,
        folds: int = 5,
        device: str = "cpu",
        **schedule: Any,
    ) -> None:
        self._target_widths = tuple(target or (SMALL_TARGET if small else TARGET))
        self._predictor_widths = tuple(predictor or (SMALL_PREDICTOR if small else PREDICTOR))
        if self._target_widths[-1] != self._predictor_widths[-1]:
            raise MonitorError(
                f"score rnd: the target ends in {self._target_widths[-1]} numbers, the predictor in "
                f"{self._predictor_widths[-1]}; want as many"
            )
        self._schedule = Schedule(**({"epochs": 20, "lr": 1e-3} if small else {}) | schedule)
        self._seed, self._raw, self._device = seed, raw, device
        self._folds = require_folds(self.name, folds)

    @property
    def widths(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Widths of target and predictor after their input."""
        return self._target_widths, self._predictor_widths

    def fit(self, episodes: Episodes) -> None:
        """Teach the predictor on the embeddings (E,) of successful episodes; a tenth of these tells when to stop.

        Raises:
            ContractError: if there is nothing to learn from, or an embedding is not finite.
        """
        x = embeddings(episodes)
        self._set(x.shape[1], None if self._raw else Standard.of(x), len(episodes))
        self._predictor = self._taught(x, owners(episodes))

    def update(self, decision: Decision) -> float:
        """Return the distance between prediction and target for this decision's embedding."""
        return float(self._distance(self._predictor, decision.embedding[None])[0])

    def reset(self) -> None:
        """Nothing is carried from one decision to the next."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,) by a predictor that never saw it.

        The episodes are left out in ``folds`` parts (one by one where there are no more), for each of which a
        predictor is trained from the same start for the same target; the scaling is kept.

        Raises:
            ContractError: if these are not as many episodes as were fitted.
            MonitorError: if there is only one.
        """
        require_fitted(episodes, self._n)

        def refit(x: np.ndarray, owner: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            predictor = self._taught(x, owner)
            return lambda left_out: self._distance(predictor, left_out)

        return scored_by_folds(episodes, folds(self._n, self._folds, self._seed), refit)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weights of both networks (float32), the scaling and the settings."""
        settings = {
            "seed": self._seed, "raw": self._raw, "target": self._target_widths, "predictor": self._predictor_widths,
            "folds": self._folds, "device": self._device, **asdict(self._schedule),
        }  # fmt: skip
        return {
            **weight_arrays(self._target, "target"),
            **weight_arrays(self._predictor, "predictor"),
            **(self._standard.arrays() if self._standard else {}),
            "sizes": np.array([self._dim, self._n]),
            "settings": packed(settings),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "RND":
        """Rebuild what ``arrays`` gave."""
        score = cls(**unpacked(arrays["settings"]))
        dim, n = (int(number) for number in arrays["sizes"])
        score._set(dim, None if score._raw else Standard.from_arrays(arrays), n, draw=False)
        score._predictor = score._new_predictor(draw=False)
        load_weights(score._target, "target", arrays)
        load_weights(score._predictor, "predictor", arrays)
        return score

    def _set(self, dim: int, standard: Standard | None, n: int, *, draw: bool = True) -> None:
        self._dim, self._standard, self._n = dim, standard, n
        self._inputs = dim if standard is None else len(standard.mean)
        leaky = [True] * (len(self._target_widths) - 1)
        self._target = network(self._inputs, self._target_widths, leaky, self._seed if draw else None).eval()

    def _new_predictor(self, *, draw: bool = True) -> nn.Sequential:
        leaky = [i < LEAKY for i in range(len(self._predictor_widths) - 1)]
        return network(self._inputs, self._predictor_widths, leaky, self._seed + 1 if draw else None)

    def _taught(self, x: np.ndarray, owner: np.ndarray) -> nn.Sequential:
        predictor = self._new_predictor().to(self._device)
        inputs = self._inputs_of(x)
        with torch.inference_mode():
            aims = torch.cat([self._target(rows) for rows in inputs.split(1024)])
        inputs, aims = inputs.to(self._device), aims.clone().to(self._device)

        def loss(rows: Tensor) -> Tensor:
            rows = rows.to(self._device)
            return torch.linalg.vector_norm(predictor(inputs[rows]) - aims[rows], dim=1).mean()

        train(predictor, loss, loss, owner, self._schedule, self._seed)
        return predictor.cpu()

    def _inputs_of(self, x: np.ndarray) -> Tensor:
        standard = x if self._standard is None else self._standard(x)
        return torch.from_numpy(np.ascontiguousarray(standard, np.float32))

    def _distance(self, predictor: nn.Sequential, x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            inputs = self._inputs_of(x)
            distance: np.ndarray = torch.linalg.vector_norm(predictor(inputs) - self._target(inputs), dim=1).numpy()
        return distance.astype(np.float64)


def network(inputs: int, widths: Sequence[int], leaky: Sequence[bool], seed: int | None) -> nn.Sequential:
    """Return linear layers of these widths with ReLUs, leaky or not, between them, and none after the last.

    Args:
        inputs: width of the input.
        widths: of each layer's output.
        leaky: for each ReLU.
        seed: of the orthogonal weights; None leaves them to be loaded.
    """
    generator = torch.Generator().manual_seed(seed) if seed is not None else None

    def fill(weight: Tensor) -> None:
        if generator is not None:
            nn.init.orthogonal_(weight, gain=sqrt(2.0), generator=generator)

    layers: list[nn.Module] = []
    for i, (inside, outside) in enumerate(zip([inputs, *widths[:-1]], widths, strict=True)):
        layers.append(linear(inside, outside, fill))
        if i < len(leaky):
            layers.append(nn.LeakyReLU() if leaky[i] else nn.ReLU())
    return nn.Sequential(*layers)
