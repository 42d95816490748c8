"""The whole sampler in one file, ONNX or torch.export: observations and noise in, chunks in robot units out.

The solver's loop is unrolled, normalisers, crops and codec are inside, and the noise is an input, so the file draws
nothing by itself and gives what `DiffusionPolicy.plan` gives for the same noise.
"""

import copy
import json
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError, MissingExtra
from robopolicy.policies.batch import plan_generator
from robopolicy.policies.config import SelectorConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.types import Observation

FORMAT = 1  # of the JSON beside the file
TOLERANCE = 1e-4  # largest difference from ``plan``, as a share of the largest command
SEED = 0  # of the check


class Sampler(nn.Module):
    """A policy as one function of tensors, called with the values of `example_inputs` in their order.

    Args:
        policy: on the CPU, ready to plan; it is copied.
        n: candidates a call.
    """

    def __init__(self, policy: DiffusionPolicy, n: int = 1) -> None:
        super().__init__()
        self.policy = copy.deepcopy(policy).cpu().eval().requires_grad_(False)
        self.policy.config = replace(policy.config, selector=SelectorConfig())  # all candidates, as they were drawn
        self.names = tuple(input_shapes(policy, n))
        self.n = n

    def forward(self, *values: Tensor) -> Tensor:
        """Return chunks (n, H, A) in robot units."""
        policy, given = self.policy, dict(zip(self.names, values, strict=True))
        batch: dict[str, Any] = _streams(given, "")
        if policy.config.goal is not None:
            goal = _streams(given, "goal.")
            zeros = {name: torch.zeros(1, 1, part.dim) for name, part in policy.spec.state.items()}
            black = {
                name: torch.zeros(1, 1, *camera.shape, dtype=torch.uint8)
                for name, camera in policy.spec.cameras.items()
            }
            batch["goal"] = {"state": {**zeros, **goal["state"]}, "images": {**black, **goal["images"]}}
        cond = policy.encode(batch)
        chunks = policy.sample(cond.expand(self.n, -1, -1), given["noise"])
        return policy.codec.decode(policy.action.inverse(chunks)[:, policy.config.past :], batch["state"])


def input_shapes(policy: DiffusionPolicy, n: int = 1) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return ``{input: (shape, dtype)}``: observations oldest first, a goal if there is one, noise last."""
    spec, goal = policy.spec, policy.config.goal
    shapes = {f"state.{name}": ((1, spec.n_obs, part.dim), "float32") for name, part in spec.state.items()}
    shapes |= {f"image.{name}": ((1, spec.n_obs, *camera.shape), "uint8") for name, camera in spec.cameras.items()}
    for name in goal.streams if goal is not None else ():
        if name in spec.state:
            shapes[f"goal.state.{name}"] = ((1, 1, spec.state[name].dim), "float32")
        else:
            shapes[f"goal.image.{name}"] = ((1, 1, *spec.cameras[name].shape), "uint8")
    chunk = (n, policy.rows, policy.codec.dim)
    solver = policy.config.solver
    return {**shapes, "noise": ((solver.steps, *chunk) if solver.stochastic else chunk, "float32")}


def inputs_of(
    policy: DiffusionPolicy, window: list[Observation], noise: Tensor, goal: Observation | None = None
) -> dict[str, np.ndarray]:
    """Return what an exported file takes, from what ``plan`` takes and from `DiffusionPolicy.draw_noise`."""
    found: dict[str, np.ndarray] = {}
    for name in input_shapes(policy):
        kind, _, stream = name.removeprefix("goal.").partition(".")
        seen = [goal] if name.startswith("goal.") and goal is not None else window
        if kind in ("state", "image"):
            found[name] = np.stack([(o.state if kind == "state" else o.images)[stream] for o in seen])[None]
    return {**found, "noise": noise.numpy()}


def export(policy: DiffusionPolicy, path: Path, to: Literal["onnx", "torch"], n: int = 1, **about: Any) -> float:
    """Write the sampler to ``path`` and what it takes and gives to ``path``.json, once it does as ``plan`` does.

    What was there before stays until then.

    Args:
        policy: fitted.
        path: ``.onnx`` or ``.pt2``.
        to: ``"onnx"``, or ``"torch"`` for ``torch.export.load``.
        n: candidates a call.
        about: what else the JSON shall tell.

    Returns:
        The largest difference from ``plan`` on random observations, as a share of the largest command.

    Raises:
        ContractError: if the policy was never fitted, there is no folder for the file, or it does not do as the policy.
        MissingExtra: if ONNX is asked for and not installed.
    """
    if not isinstance(policy, DiffusionPolicy):
        raise ContractError(
            "export: of a motion-track policy the network is but a part: poses are found from its tracks outside of "
            "it; run the checkpoint itself"
        )
    if not policy.action.fitted:
        raise ContractError("export: the policy's normaliser was never fitted; train it or load a checkpoint")
    if path.is_dir() or not path.parent.is_dir():
        wrong = f"{path} is a folder" if path.is_dir() else f"{path.parent} is no folder"
        raise ContractError(f"export: {wrong}; name a file in a folder that is there")
    sampler = Sampler(policy, n).eval()
    window, goal, noise = _example(sampler.policy, n)
    inputs = inputs_of(sampler.policy, window, noise, goal)
    values = tuple(torch.from_numpy(value) for value in inputs.values())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters speak of their own insides
        made = torch.export.export(sampler, values, strict=False)
    fresh = path.with_name(f".wip.{path.name}")
    try:
        fresh.write_bytes(b"")  # the exporters' own words for a folder that cannot be written help nobody
        _write(made, values, fresh, to, tuple(inputs))
        off = _difference(sampler.policy, run_exported(fresh, to, inputs), window, goal, n)
        if not off <= TOLERANCE:
            raise ContractError(
                f"export: {path} differs from plan by {off:.2g} of the largest command; want {TOLERANCE:g}"
            )
        sidecar(path).write_text(json.dumps({**describe(policy, to, n), **about}, indent=1) + "\n")
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return off


def describe(policy: DiffusionPolicy, to: str, n: int) -> dict[str, Any]:
    """Return what the JSON beside an exported file tells: spec, configuration, inputs and outputs."""
    spec, config = policy.spec, policy.config
    left_out = [
        words
        for words, holds in (
            (f"choosing among the candidates (selector {config.selector.name})", config.selector.name != "first"),
            ("real-time chunking: no chunk that is running is an input", config.real_time or config.max_delay),
        )
        if holds
    ]
    return {
        "format": FORMAT,
        "kind": to,
        "inputs": {name: {"shape": shape, "dtype": dtype} for name, (shape, dtype) in input_shapes(policy, n).items()},
        "outputs": {"chunks": {"shape": (n, spec.horizon, spec.action.dim), "dtype": "float32"}},
        "notes": [
            "observations oldest first, raw: states in the units of the spec, pictures RGB",
            "noise is drawn by the caller, of a standard normal distribution",
            "chunks are commands in the units of the spec; row 0 belongs to the newest observation",
            *(f"left out: {words}" for words in left_out),
        ],
        "spec": spec.to_json(),
        "config": config.to_json(),
    }


def sidecar(path: Path) -> Path:
    """Return where the JSON of an exported file lies."""
    return path.with_name(path.name + ".json")


def run_exported(path: Path, to: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the chunks (n, H, A) that an exported file makes of ``inputs``."""
    if to == "torch":
        module = torch.export.load(path).module()
        with torch.no_grad():
            chunks: Tensor = module(*(torch.from_numpy(value) for value in inputs.values()))
        return chunks.numpy()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of what it cannot fold, which costs nothing
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    made: np.ndarray = session.run(None, dict(inputs))[0]
    return made


def _streams(given: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Return the states and pictures among the inputs, as `DiffusionPolicy.encode` takes them."""
    kinds = {"state": f"{prefix}state.", "images": f"{prefix}image."}
    return {
        kind: {name.removeprefix(start): value for name, value in given.items() if name.startswith(start)}
        for kind, start in kinds.items()
    }


def _write(made: Any, values: tuple[Tensor, ...], path: Path, to: str, names: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if to == "torch":
            torch.export.save(made, path)
        else:
            _write_onnx(made, values, path, names)


def _write_onnx(made: Any, values: tuple[Tensor, ...], path: Path, names: tuple[str, ...]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtra(package, "export") from error
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it tells that torchvision, which nothing here needs, is not there
    try:
        torch.onnx.export(
            made, values, path, input_names=list(names), output_names=["chunks"], dynamo=True, external_data=False,
            verbose=False,
        )  # fmt: skip
    finally:
        log.setLevel(level)


def _example(policy: DiffusionPolicy, n: int) -> tuple[list[Observation], Observation | None, Tensor]:
    """Return random observations, a goal if the policy takes one, and noise."""
    rng = np.random.default_rng(0)
    spec = policy.spec

    def observe(k: int) -> Observation:
        state = {name: rng.random(part.dim, np.float32) for name, part in spec.state.items()}
        images = {name: rng.integers(0, 256, camera.shape, np.uint8) for name, camera in spec.cameras.items()}
        return Observation(k * spec.period_ns, state, images=images)

    window = [observe(k) for k in range(spec.n_obs)]
    goal = None if policy.config.goal is None else observe(spec.n_obs)
    return window, goal, policy.draw_noise(n, plan_generator(torch.Generator().manual_seed(SEED)))


def _difference(
    policy: DiffusionPolicy, chunks: np.ndarray, window: list[Observation], goal: Observation | None, n: int
) -> float:
    if policy.config.goal is not None:
        policy.set_goal(goal)
    wanted = policy.plan(window, n=n, generator=torch.Generator().manual_seed(SEED)).chunks
    return float(np.abs(chunks - wanted).max()) / max(float(np.abs(wanted).max()), 1e-6)
