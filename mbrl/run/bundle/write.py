"""A bundle: the policy of a training, its guard, the runtime and the contract, in one folder."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.assets import PACKAGE
from mbrl.core.errors import ConfigError, DataError
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.splits import split_episodes
from mbrl.deploy.contract import (
    CARD_FILE,
    CONTRACT_FILE,
    FALLBACK_ONNX,
    GUARD_ONNX,
    LOG_SCHEMA_FILE,
    POLICY_ONNX,
    RUNTIME_FILE,
    ActionPart,
    Contract,
    GuardPart,
    LogPart,
    ObservationPart,
    ParityPart,
    RuntimePart,
    VerdictPart,
)
from mbrl.deploy.guard import Guard, GuardConfig, fit_guard
from mbrl.deploy.log import FrameLayout, action_channels, log_schema, longest_repeat, observation_channels
from mbrl.deploy.networks import write_policy
from mbrl.deploy.steps import Steps
from mbrl.nets.policy import PolicyNetwork
from mbrl.run.bundle.card import model_card
from mbrl.run.bundle.choices import check_choices, check_rest, contract_ids, resting_vector
from mbrl.run.bundle.parity import check_parity, guard_difference, policy_difference
from mbrl.run.files import make_folder, storing, write_bytes, write_json, write_text
from mbrl.run.policies import StoredPolicy

_PARITY_ROWS: Final = 4096
_STALE_STEPS: Final = 2.5
"""Steps after which an observation counts as stale, unless something else is said."""

_PATIENCE: Final = 3

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BundleConfig(BaseModel):
    """How a bundle is made.

    Attributes:
        stochastic: the graph draws actions; otherwise it gives the evaluation action.
        guard: how the guard is fitted; None leaves it out.
        tolerance: largest difference of an action to torch's that is accepted, scaled to [-1, 1].
        max_change: largest change of an action from one step to the next, environment units: one number for
            all channels or one for each; None for no limit.
        rest: action that ends a hold, the id of one where actions are choices; None is 0 within the limits,
            or the choice that the log makes most often.
        coast_steps: see `RuntimePart`.
        hold_steps: likewise.
        stale_after: seconds, see `RuntimePart`; `auto` is 2.5 steps of the log.
        frozen_after: see `RuntimePart`; `auto` is twice the longest repeat of the log, 10 at least.
        patience: steps far from the log, in a row, that hand over; `auto` is 3 with a fallback policy, else
            None, which only tells of them: holding an action is no answer to a new state.
        release: steps without that hand back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stochastic: bool = False
    guard: GuardConfig | None = GuardConfig()
    tolerance: Positive = 1e-5
    max_change: Positive | tuple[Positive, ...] | None = None
    rest: tuple[float, ...] | None = None
    coast_steps: Annotated[int, Field(ge=0)] = 5
    hold_steps: Annotated[int, Field(ge=0)] = 5
    stale_after: Positive | Literal["auto"] | None = "auto"
    frozen_after: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    patience: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    release: Annotated[int, Field(ge=1)] = 1


@dataclasses.dataclass(frozen=True, slots=True)
class BundleParts:
    """What a bundle is made of.

    Attributes:
        stored: the policy.
        log: that it learned from.
        fallback: a policy that acts in its place, or None.
        verdict: of `mbrl ope`, or None.
    """

    stored: StoredPolicy
    log: Dataset
    fallback: StoredPolicy | None = None
    verdict: VerdictPart | None = None

    @property
    def policies(self) -> dict[str, PolicyNetwork]:
        """The networks by the file of their graph."""
        found = {POLICY_ONNX: self.stored.network}
        return found if self.fallback is None else {**found, FALLBACK_ONNX: self.fallback.network}


def write_bundle(parts: BundleParts, folder: Path, config: BundleConfig) -> Contract:
    """Writes a bundle, whole or not at all.

    Args:
        parts: what it is made of.
        folder: must not exist.
        config: how.

    Returns:
        Its contract.

    Raises:
        ConfigError: the folder exists, sizes contradict each other, a policy has no graph, or a graph does
            not do what torch does.
        DataError: the log does not suffice for a guard.
        MissingExtraError: the extra `deploy` is not installed.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists already. Remedy: give another out (--out), or remove it.")
    _check_sizes(parts, config)
    layout = FrameLayout.of(parts.log)
    graphs = policy_graphs(parts, layout, config)
    obs, is_held_out = _parity_rows(parts)
    parity = _policy_parity(parts, graphs, obs, layout, config, is_held_out=is_held_out)
    guard = None
    if config.guard is not None:
        guard, fitted, largest = _make_guard(parts, layout, config.guard)
        graphs[GUARD_ONNX] = fitted
        check_parity(largest, max(_GUARD_TOLERANCE, config.tolerance), what="the guard")
        parity = parity.model_copy(update={"guard": largest})
    contract = _contract(parts, layout, config, graphs, parity, guard)
    # The form of what is written is checked before anything is.
    contract = Contract.model_validate(contract.model_dump())
    _store(folder, graphs, contract, parts, layout)
    return contract


_GUARD_TOLERANCE: Final = 1e-2
"""Of a part of the guard, in units of an alarm: distances in float32 lose digits near the rows themselves."""


def write_onnx(parts: BundleParts, file: Path, config: BundleConfig) -> Path:
    """Writes the graph of a policy alone, held against torch like that of a bundle.

    Raises:
        ConfigError: as `write_bundle`.
    """
    if file.exists():
        raise ConfigError(f"{file} exists already. Remedy: give another out (--out), or remove it.")
    _check_sizes(parts, config)
    alone = dataclasses.replace(parts, fallback=None)
    layout = FrameLayout.of(parts.log)
    graphs = policy_graphs(alone, layout, config)
    obs, is_held_out = _parity_rows(alone)
    _policy_parity(alone, graphs, obs, layout, config, is_held_out=is_held_out)
    make_folder(file.parent)
    write_bytes(file, graphs[POLICY_ONNX])
    return file


def policy_graphs(parts: BundleParts, layout: FrameLayout, config: BundleConfig) -> dict[str, bytes]:
    """The graphs of policy and fallback, by file."""
    graphs: dict[str, bytes] = {}
    for name, policy in parts.policies.items():
        is_drawn = config.stochastic and name == POLICY_ONNX
        graph = write_policy(policy, history=layout.history, stochastic=is_drawn)
        facts = parts.stored.facts if name == POLICY_ONNX or parts.fallback is None else parts.fallback.facts
        graphs[name] = graph.to_bytes({"facts": json.dumps(dict(facts), default=str, sort_keys=True)})
    return graphs


def _check_sizes(parts: BundleParts, config: BundleConfig) -> None:
    spec = parts.log.spec
    for policy in parts.policies.values():
        space = policy.spec.space
        if (space.obs_dim, space.act_dim) != (spec.obs_dim, spec.act_dim):
            raise ConfigError(
                f"A policy has {space.obs_dim} observation and {space.act_dim} action dimensions, the log "
                f"{parts.log.info.name!r} {spec.obs_dim} and {spec.act_dim}. Remedy: name the log that it "
                "learned from (--dataset)."
            )
    for policy in parts.policies.values():
        check_choices(policy, parts.log)
    check_rest(spec, rest=config.rest, has_max_change=config.max_change is not None)
    for name, value in (("max_change", config.max_change), ("rest", config.rest)):
        if not spec.is_discrete and isinstance(value, tuple) and len(value) != spec.act_dim:
            raise ConfigError(f"{name} has {len(value)} numbers for {spec.act_dim} channels of the action.")


def _parity_rows(parts: BundleParts) -> tuple[NDArray[np.float32], bool]:
    """Rows of the log that a training with `policy_data: train` has not seen, where it can be split."""
    log, is_held_out = parts.log, True
    try:
        part = split_episodes(log, generator=RngStreams(parts.stored.seed).at("split")).holdout
    except DataError:
        part, is_held_out = log, False
    obs = part.transitions().observation
    every = max(1, len(obs) // _PARITY_ROWS)
    return np.array(obs[::every], dtype=np.float32), is_held_out


def _policy_parity(
    parts: BundleParts,
    graphs: Mapping[str, bytes],
    obs: NDArray[np.float32],
    layout: FrameLayout,
    config: BundleConfig,
    *,
    is_held_out: bool,
) -> ParityPart:
    found: dict[str, float] = {}
    for name, policy in parts.policies.items():
        is_drawn = config.stochastic and name == POLICY_ONNX
        found[name] = policy_difference(
            policy, graphs[name], obs, history=layout.history, stochastic=is_drawn
        )
        check_parity(found[name], config.tolerance, what=name.removesuffix(".onnx"))
    return ParityPart(
        rows=len(obs),
        held_out=is_held_out,
        tolerance=config.tolerance,
        policy=found[POLICY_ONNX],
        fallback=found.get(FALLBACK_ONNX),
    )


def _make_guard(
    parts: BundleParts, layout: FrameLayout, config: GuardConfig
) -> tuple[GuardPart, bytes, float]:
    """The guard as the contract says it, its graph, and how far that is from what was fitted."""
    policy = parts.stored.network

    def act(obs: NDArray[np.float64]) -> NDArray[np.float64]:
        with torch.no_grad():
            return policy.act(torch.from_numpy(obs.astype(np.float32))).double().numpy()

    guard: Guard = fit_guard(parts.log, frame_dim=len(layout.names), config=config, act=act)
    content = guard.write(history=layout.history).to_bytes({})
    steps = Steps.of(parts.log)
    rows = np.arange(0, len(steps), max(1, len(steps) // _PARITY_ROWS))
    largest = guard_difference(guard, content, steps.take(rows), history=layout.history)
    said = GuardPart(
        threshold=guard.threshold,
        rate=guard.rate,
        policy_alarms=guard.policy_alarms,
        usual_surprise=guard.usual_surprise,
        prototypes=len(guard.prototypes),
        features=guard.forecast.weight.shape[1],
    )
    return said, content, largest


def _contract(
    parts: BundleParts,
    layout: FrameLayout,
    config: BundleConfig,
    graphs: Mapping[str, bytes],
    parity: ParityPart,
    guard: GuardPart | None,
) -> Contract:
    log = parts.log
    change = config.max_change
    limits = change if change is None or isinstance(change, tuple) else (change,) * log.spec.act_dim
    packages = ("mbrl-offline", "torch", "numpy", "onnx", "onnxruntime")
    return Contract(
        policy={
            **parts.stored.facts,
            "kind": parts.stored.network.spec.kind,
            "content": parts.stored.content,
        },
        stochastic=config.stochastic,
        observation=ObservationPart(history=layout.history, channels=observation_channels(log, layout)),
        action=ActionPart(
            channels=action_channels(log, layout, limits),
            choices=log.spec.choices,
            ids=contract_ids(log.spec.choices),
        ),
        rate=None if log.info.time_step is None else 1.0 / log.info.time_step,
        runtime=_runtime_part(parts, layout, config),
        guard=guard,
        parity=parity,
        log=LogPart(
            name=log.info.name,
            content_hash=log.content_hash,
            episodes=len(log),
            transitions=log.num_transitions,
            source=log.info.provenance.get("source", "")[:2000],
        ),
        verdict=parts.verdict,
        versions={name: _version(name) for name in packages},
        files={
            **{name: hashlib.sha256(content).hexdigest() for name, content in graphs.items()},
            RUNTIME_FILE: hashlib.sha256(_runtime_text().encode()).hexdigest(),
        },
    )


def _runtime_part(parts: BundleParts, layout: FrameLayout, config: BundleConfig) -> RuntimePart:
    log = parts.log
    stale, frozen = config.stale_after, config.frozen_after
    if stale == "auto":
        stale = None if log.info.time_step is None else _STALE_STEPS * log.info.time_step
    if frozen == "auto":
        frozen = max(10, 2 * longest_repeat(log, layout))
    patience = config.patience
    if patience == "auto":
        patience = None if parts.fallback is None else _PATIENCE
    return RuntimePart(
        fallback="hold" if parts.fallback is None else "policy",
        rest=resting_vector(log, config.rest),
        coast_steps=config.coast_steps,
        hold_steps=config.hold_steps,
        stale_after=stale,
        frozen_after=frozen,
        patience=patience,
        release=config.release,
    )


def _store(
    folder: Path, graphs: Mapping[str, bytes], contract: Contract, parts: BundleParts, layout: FrameLayout
) -> None:
    """All files into a folder beside, which then takes its name."""
    make_folder(folder.parent)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        make_folder(partial)
        for name, content in graphs.items():
            write_bytes(partial / name, content)
        write_text(partial / RUNTIME_FILE, _runtime_text())
        schema = log_schema(parts.log, layout, contract.action.channels)
        tree = schema.model_dump(mode="json", exclude_unset=True)
        heading = (
            "# Makes a dataset of the runtime's logs: mbrl import log-schema.yaml LOG.csv --out DATASET\n"
        )
        write_text(partial / LOG_SCHEMA_FILE, heading + yaml.safe_dump(tree, sort_keys=False))
        write_text(partial / CARD_FILE, model_card(contract))
        write_json(partial / CONTRACT_FILE, contract.model_dump(mode="json"))
        with storing(folder):
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@functools.cache
def _runtime_text() -> str:
    return (PACKAGE / "deploy" / RUNTIME_FILE).read_text(encoding="utf-8")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled"
