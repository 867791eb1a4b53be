"""Critics at a planner's leaves: those of the run's learner, or some that are fitted to the log."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand
from mbrl.core.protocols import CriticValues, DiscretePolicy, Policy
from mbrl.core.rng import RngStreams
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.log.policies import as_deployed
from mbrl.off_policy.value.fqe import FitValues, FQEConfig, FQEResult
from mbrl.off_policy.value.fqe_result import MAX_DRIFT
from mbrl.off_policy.value.value_net import QEnsemble, RewardScale
from mbrl.run.artifacts import load_artifact, save_artifact
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.inputs import manifest_facts, split_identity
from mbrl.run.judge.value_fits import KeptFits
from mbrl.run.plan.basis import PlanBasis, make_basis_context
from mbrl.run.plan.config import PlanConfig
from mbrl.run.records import Record
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import StageKey

CRITIC_FILE: Final = "critic.safetensors"
_CRITIC_VERSION: Final = 1


class _CriticFacts(BaseModel):
    """What the file of fitted critics says besides its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fqe: FQEConfig
    scale: tuple[FiniteFloat, Annotated[FiniteFloat, Field(gt=0)]]
    discount: Annotated[float, Field(ge=0, le=1)]
    is_discrete: bool


class _CriticSummary(Record):
    """What the fit of critics found."""

    is_converged: bool
    drift: float
    updates: int
    least_updates: int


@dataclasses.dataclass(frozen=True, slots=True)
class LeafCritics:
    """Critics at leaves and where they come from.

    Attributes:
        critics: Q of the policy.
        identity: of everything that they depend on.
        source: `learner` or `fqe`.
        is_converged: whether the fit settled; None for a learner's.
    """

    critics: CriticValues
    identity: str
    source: str
    is_converged: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class FQECritics:
    """The members of a fitted Q evaluation as critics.

    Attributes:
        values: without a horizon.
    """

    values: QEnsemble

    def action_values(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "k b"]:
        """Each member's Q, reward units."""
        return self.values.action_value(obs, action).to(obs.dtype)


def find_critics(basis: PlanBasis, config: PlanConfig, workspace: Workspace) -> LeafCritics:
    """The learner's critics at its last update if the policy is that one's, or a fitted Q evaluation of it.

    Raises:
        ConfigError: the learner's are wanted, and it has none; or fitted ones did not settle.
    """
    if config.critic != "fqe":
        critics = _learner_critics(basis, workspace)
        if critics is not None:
            return LeafCritics(critics, basis.policy_hash, "learner")
        if config.critic == "learner":
            raise ConfigError(
                f"The learner {basis.resolved.run.algorithm.learner.name!r} of {basis.run.path} keeps no "
                "critics, its checkpoint is gone, or the policy was selected from before its last update. "
                "Remedy: set critic=fqe, which fits some to the log."
            )
    return fit_critic_stage(basis, config, workspace)


def _learner_critics(basis: PlanBasis, workspace: Workspace) -> CriticValues | None:
    config = basis.resolved.run
    digest = str(basis.run.manifest()["hash"])
    checkpoints = CheckpointFolder(basis.run.path / "checkpoints", digest)
    if not checkpoints.files() or not basis.is_last:
        return None  # critics of the last update are not those of a policy that was selected before
    training = RECIPES.get(config.recipe).build(config.algorithm, make_basis_context(basis))
    if basis.run.summary().get("reward_unit") != training.reward_unit:
        workspace.progress.message(
            f"The critics of {basis.run.path} learned rewards in another unit than this version gives them, "
            "so they are not used. Remedy: train again."
        )
        return None
    state = training.learner.init(RngStreams(config.seed).child("policy").at("init"))
    latest = checkpoints.load_latest(
        workspace.progress.message, accept=lambda content: state.load_state_dict(content["learner"])
    )
    if latest is None or latest[0] != config.algorithm.updates:
        return None  # critics of an earlier update are not those of the policy
    value = training.learner.value(state)
    return value if isinstance(value, CriticValues) else None


def fit_critic_stage(basis: PlanBasis, config: PlanConfig, workspace: Workspace) -> LeafCritics:
    """Fits Q of a run's policy to the training part of its log, or loads the fit of before.

    Raises:
        ConfigError: the values did not settle, and the config does not take such ones.
    """
    run = basis.resolved.run
    identity = {
        "fqe": config.fqe.model_dump(mode="json"),
        "doublings": config.fqe_doublings,
        "policy": basis.policy_hash,
        "dataset": basis.dataset.content_hash,
        "split": split_identity(run.dynamics),
        "discount": basis.discount,
    }

    def work(work: StageWork) -> Mapping[str, Any]:
        kept = KeptFits.of(work, "fit critic", workspace.device)
        fitted = _fit_critic(basis, config, kept)
        _save_critic(work.path / CRITIC_FILE, fitted.values, config.fqe)
        kept.drop()
        return {
            "value": fitted.estimate().point,
            "drift": fitted.drift,
            "is_converged": _has_settled(fitted),
            "updates": fitted.config.updates,
            "least_updates": fitted.least_updates,
        }

    stage = Stage(
        key=StageKey("fit_critic", basis.dataset.info.name, basis.label, run.seed, identity),
        config=identity,
        facts=manifest_facts(run, basis.dataset),
        work=work,
        results=(CRITIC_FILE,),
    )
    folder = perform(stage, workspace)
    values = FQECritics(_load_critic(folder.path / CRITIC_FILE, basis))
    found = folder.summary(_CriticSummary)
    if not found["is_converged"]:
        problem = (
            f"The values at the planner's leaves did not settle in {found['updates']:,} updates: they moved "
            f"by {found['drift']:.1%} over the last fifth, where {MAX_DRIFT:.0%} counts as standing still, "
            f"and values need {found['least_updates']:,} updates to cross the horizon."
        )
        remedy = "raise fqe.updates, fqe.polyak_tau or fqe_doublings"
        if config.unsettled_critic == "refuse":
            raise ConfigError(f"{problem} Remedy: {remedy}; or take them as they are: unsettled_critic=use.")
        workspace.progress.message(f"{problem} Plans may be worse than the policy. Remedy: {remedy}.")
    return LeafCritics(values, stage.key.digest, "fqe", bool(found["is_converged"]))


def _fit_critic(basis: PlanBasis, config: PlanConfig, fit_values: FitValues) -> FQEResult:
    """Twice as many updates as long as the values do not stand still; a longer fit continues the shorter."""
    policy: Policy = basis.stored.policy
    if not isinstance(policy, DiscretePolicy):
        policy = as_deployed(policy)
    result: FQEResult | None = None
    for doubling in range(config.fqe_doublings + 1):
        if result is not None and _has_settled(result):
            break
        result = fit_values(
            basis.split.train,
            policy,
            estimand=Estimand(basis.discount, None),
            config=config.fqe.model_copy(update={"updates": config.fqe.updates * 2**doubling}),
            generator=RngStreams(basis.resolved.run.seed).child("critic").at("fit"),
        )
    assert result is not None
    return result


def _has_settled(result: FQEResult) -> bool:
    """Whether the values stood still, after as many updates as they need to cross the horizon."""
    return result.converged and result.config.updates >= result.least_updates


def _save_critic(path: Path, values: QEnsemble, config: FQEConfig) -> None:
    tensors = {
        "flat": values.net.flat,
        "normaliser.mean": values.normaliser.mean,
        "normaliser.std": values.normaliser.std,
    }
    header = {
        "fqe": config.model_dump(mode="json"),
        "scale": [values.scale.mean, values.scale.std],
        "discount": values.estimand.discount,
        "is_discrete": values.is_discrete,
    }
    save_artifact(path, tensors, {"critic": header}, version=_CRITIC_VERSION)


def _load_critic(path: Path, basis: PlanBasis) -> QEnsemble:
    artifact = load_artifact(path, version=_CRITIC_VERSION, what="critic")
    fields = artifact.entry("critic", _CriticFacts)
    space, config = basis.dataset.spec, fields.fqe
    shapes = QEnsemble.tensor_shapes(config, space, is_discrete=fields.is_discrete)
    artifact.check_shapes(shapes)
    artifact.check_positive(["normaliser.std"])
    tensors = artifact.tensors
    values = QEnsemble(
        config.members,
        space,
        config.hidden,
        normaliser=Normaliser(tensors["normaliser.mean"], tensors["normaliser.std"]),
        scale=RewardScale(*fields.scale),
        estimand=Estimand(fields.discount, None),
        is_discrete=fields.is_discrete,
        layer_norm=config.layer_norm,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        values.net.flat.copy_(tensors["flat"])
    return values
