"""The estimators by id: a policy and a dataset in, an `Estimate` out."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand, Estimate, Family, Flag
from mbrl.core.protocols import DiscretePolicy, Estimator, Policy
from mbrl.core.registry import Registry
from mbrl.data.dataset import Dataset
from mbrl.data.splits import episode_folds
from mbrl.ope.estimators.doubly_robust import doubly_robust, weighted_doubly_robust
from mbrl.ope.estimators.importance import Kind, direct_method, importance_sampling
from mbrl.ope.estimators.magic import magic
from mbrl.ope.estimators.marginal import MarginalCache
from mbrl.ope.log.behaviour import BehaviourCache
from mbrl.ope.log.diagnostics import LEAST_ESS
from mbrl.ope.log.layout import Array, OPEArrays, pad_log
from mbrl.ope.log.policies import action_log_prob, is_stochastic, require_density
from mbrl.ope.statistics.ensembles import widened_by_members
from mbrl.ope.value.fqe import FQEConfig, FQEResult, fit_fqe
from mbrl.ope.value.model_value import DEFAULT as MODEL_DEFAULT
from mbrl.ope.value.model_value import EvaluationModel, ModelValueConfig, TailValue, model_value
from mbrl.rollouts.generate import Box

VALUES_IN_DOUBT: Final = Flag.VALUES_IN_DOUBT
"""Flag of an estimate that rests on fitted values which do not count themselves."""

NO_CROSSFIT: Final = Flag.NO_CROSSFIT
"""Flag of a doubly robust estimate whose values were fitted to the episodes that they correct."""


_NO_MODEL: Final = (
    "No dynamics model was given. Remedy: pass a fit (mbrl ope --dynamics RUN), or have one made "
    "(--fit-dynamics)."
)


@runtime_checkable
class FitValues(Protocol):
    """`fit_fqe`, or one that also keeps what it did, shows progress, and the like."""

    def __call__(
        self,
        dataset: Dataset,
        policy: Policy,
        *,
        estimand: Estimand,
        config: FQEConfig,
        generator: torch.Generator,
        fold: NDArray[np.int64] | None = None,
    ) -> FQEResult:
        """See `fit_fqe`."""
        ...


class CriticCache:
    """Fits the value of a policy once for all estimators that ask for it.

    Args:
        estimand: of the values.
        config: of the fits.
        crossfit: folds of the episodes for doubly robust estimators, whose values then come from members
            that have not seen the episode; 0 fits all members to all.
        fit_values: makes a fit.

    Raises:
        ConfigError: one fold, or more folds than members.
    """

    def __init__(
        self, estimand: Estimand, config: FQEConfig, *, crossfit: int = 0, fit_values: FitValues = fit_fqe
    ) -> None:
        if crossfit != 0 and not 2 <= crossfit <= config.members:
            raise ConfigError(
                f"crossfit={crossfit}: every member leaves one fold out, so {config.members} members serve 2 "
                f"to {config.members} folds. Remedy: one of these, or 0 for none."
            )
        self._estimand, self._config, self.crossfit = estimand, config, crossfit
        self._fit_values = fit_values
        self._known: dict[tuple[int, str, bool], FQEResult] = {}
        self._logged: dict[int, tuple[Array, Array]] = {}

    def fit(self, policy: Policy, dataset: Dataset, generator: torch.Generator) -> FQEResult:
        """The fit of this very policy object to these episodes; made on the first call."""
        return self._find(policy, dataset, generator, is_crossfitted=False)

    def fit_across(self, policy: Policy, dataset: Dataset, generator: torch.Generator) -> FQEResult:
        """The fit whose values on an episode have not seen it, where folds were asked for; else `fit`."""
        return self._find(policy, dataset, generator, is_crossfitted=self.crossfit > 0)

    def members_on_log(
        self, critics: FQEResult, dataset: Dataset, generator: torch.Generator
    ) -> tuple[Array, Array]:
        """`FQEResult.members_on_log` of a fit of this cache on its episodes; worked out on the first call."""
        if id(critics) not in self._logged:  # the fit is kept, so its id stays taken
            self._logged[id(critics)] = critics.members_on_log(dataset, generator=generator)
        return self._logged[id(critics)]

    def _find(
        self, policy: Policy, dataset: Dataset, generator: torch.Generator, *, is_crossfitted: bool
    ) -> FQEResult:
        key = (id(policy), dataset.content_hash, is_crossfitted)
        if key not in self._known:  # the result holds the policy, so its id stays taken
            self._known[key] = self._fit_values(
                dataset,
                policy,
                estimand=self._estimand,
                config=self._config,
                generator=generator,
                fold=episode_folds(dataset, self.crossfit, generator) if is_crossfitted else None,
            )
        return self._known[key]


@dataclasses.dataclass(frozen=True, slots=True)
class EstimatorContext:
    """What estimators share.

    Attributes:
        estimand: what is estimated.
        critics: fitted values.
        behaviour: who acted, logged or fitted.
        marginals: ratios of visits.
        model: fitted dynamics for `model_value`, or None.
        rollouts: how they are rolled out.
    """

    estimand: Estimand
    critics: CriticCache
    behaviour: BehaviourCache = dataclasses.field(default_factory=BehaviourCache)
    marginals: MarginalCache = dataclasses.field(default_factory=MarginalCache)
    model: EvaluationModel | None = None
    rollouts: ModelValueConfig = MODEL_DEFAULT

    @classmethod
    def make(
        cls, estimand: Estimand, config: FQEConfig, *, crossfit: int = 0, fit_values: FitValues = fit_fqe
    ) -> "EstimatorContext":
        """A context with nothing fitted yet; see `CriticCache`."""
        return cls(estimand, CriticCache(estimand, config, crossfit=crossfit, fit_values=fit_values))

    def behaviour_facts(self, policy: Policy, dataset: Dataset) -> dict[str, Any]:
        """`Behaviour.facts`, with the mean ratios of a policy that has ratios."""
        arrays = ratio_arrays(policy, dataset, self) if is_stochastic(policy) else None
        return self.behaviour.of(dataset).facts(arrays)


EstimatorBuilder: TypeAlias = Callable[[EstimatorContext], Estimator[Dataset]]

ESTIMATORS: Registry[EstimatorBuilder] = Registry(
    "estimator",
    "mbrl.ope.estimators",
    group="mbrl.estimators",
    spelling='mbrl.registry("estimators")',
    needs=("__call__",),
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FittedValues:
    """Q and V of the evaluated policy on a log, see `pad_log`.

    Attributes:
        action_value: `[N]`.
        value: `[N + n]`.
        doubt: why the fit does not count, or None where it does.
        members: the same of each member of the fit; empty where members value some episodes only.
    """

    action_value: Array
    value: Array
    doubt: str | None = None
    members: "tuple[FittedValues, ...]" = ()


def fit_values(
    policy: Policy,
    data: Dataset,
    context: EstimatorContext,
    *,
    generator: torch.Generator,
    is_corrected: bool = False,
) -> FittedValues:
    """Fitted values of the policy at every logged step and state.

    Args:
        policy: whatever acts.
        data: logged episodes.
        context: shared parts.
        generator: source of all draws.
        is_corrected: ratios correct them by the same episodes: no value may have seen its own, if folds were
            asked for.
    """
    cache = context.critics
    critics = (cache.fit_across if is_corrected else cache.fit)(policy, data, generator)
    found = critics.estimate()
    doubt = None if found.valid else found.why_not
    by_member = cache.members_on_log(critics, data, generator)
    members = () if critics.fold is not None else tuple(map(FittedValues, *by_member))
    return FittedValues(*critics.mean_on_log(*by_member, data), doubt, members)


def needs_tail(data: Dataset, estimand: Estimand) -> bool:
    """Whether time-outs cut episodes, so that ratios need values of what comes after."""
    rows = data.transitions()
    return estimand.horizon is None and bool(np.any(rows.truncated & ~rows.terminated))


def ratio_arrays(
    policy: Policy, data: Dataset, context: EstimatorContext, *, values: FittedValues | None = None
) -> OPEArrays:
    """The log padded, with the ratios of the policy to the behaviour, logged or fitted.

    Args:
        policy: with a density.
        data: logged episodes.
        context: shared parts.
        values: of the policy, for estimators that read them.

    Raises:
        UndefinedRatioError: the policy is deterministic.
    """
    is_discrete = isinstance(policy, DiscretePolicy)
    return pad_ratios(logged_log_prob(policy, data), data, context, values=values, is_discrete=is_discrete)


def logged_log_prob(policy: Policy, data: Dataset) -> Array:
    """`[N]` log-densities of the logged actions under a policy.

    Raises:
        UndefinedRatioError: the policy is deterministic.
    """
    rows = data.transitions()
    found = action_log_prob(policy, torch.tensor(rows.observation), torch.tensor(rows.action))
    return found.double().numpy()


def pad_ratios(
    log_prob: Array | None,
    data: Dataset,
    context: EstimatorContext,
    *,
    values: FittedValues | None = None,
    is_discrete: bool = False,
) -> OPEArrays:
    """The log padded, with ratios to the behaviour, logged or fitted.

    Args:
        log_prob: `[N]`, of the logged actions under what is evaluated; None for all ratios 1.
        data: logged episodes.
        context: shared parts.
        values: for estimators that read them.
        is_discrete: see `pad_log`.
    """
    return pad_log(
        data.episodes,
        log_prob,
        estimand=context.estimand,
        behaviour_log_prob=None if log_prob is None else context.behaviour.of(data).log_prob,
        action_value=None if values is None else values.action_value,
        value=None if values is None else values.value,
        is_discrete=is_discrete,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ArrayEstimator:
    """An estimator of padded arrays, fed from a dataset.

    Attributes:
        context: shared parts.
        compute: the estimator proper.
        needs_ratio: whether it reads density ratios.
        needs_values: whether it always reads fitted values; the others do at time-outs alone.
    """

    context: EstimatorContext
    compute: Callable[[OPEArrays], Estimate]
    needs_ratio: bool
    needs_values: bool

    def estimate(self, policy: Policy, data: Dataset, *, generator: torch.Generator) -> Estimate:
        """See `mbrl.core.protocols.Estimator`.

        Raises:
            UndefinedRatioError: ratios are needed, and the policy is deterministic.
        """
        if self.needs_ratio:
            require_density(policy)
        values = None
        if self.needs_values or needs_tail(data, self.context.estimand):
            values = fit_values(
                policy, data, self.context, generator=generator, is_corrected=self.needs_ratio
            )
        doubt = values.doubt if self.needs_values and values is not None else None
        log_prob = logged_log_prob(policy, data) if self.needs_ratio else None
        pad = functools.partial(
            pad_ratios, log_prob, data, self.context, is_discrete=isinstance(policy, DiscretePolicy)
        )
        arrays = pad(values=values)
        estimate = self.compute(arrays)
        if self.needs_values and values is not None and values.members:
            points = [self.compute(pad(values=member)).point for member in values.members]
            estimate = widened_by_members(estimate, np.array(points))
        if not self.needs_ratio:
            return estimate if doubt is None else estimate.invalidated(doubt, VALUES_IN_DOUBT)
        estimate = estimate.flagged(*self.context.behaviour.of(data).flags(arrays))
        if doubt is not None and estimate.n_eff < LEAST_ESS:  # neither of its two supports holds
            estimate = estimate.invalidated(f"few effective episodes, and {doubt}", VALUES_IN_DOUBT)
        is_seen = self.needs_values and self.context.critics.crossfit == 0
        return estimate.flagged(NO_CROSSFIT) if is_seen else estimate


@dataclasses.dataclass(frozen=True, slots=True)
class FittedQEvaluation:
    """The value ensemble's own estimate.

    Attributes:
        context: shared parts.
    """

    context: EstimatorContext

    def estimate(self, policy: Policy, data: Dataset, *, generator: torch.Generator) -> Estimate:
        """See `mbrl.core.protocols.Estimator`."""
        return self.context.critics.fit(policy, data, generator).estimate()


@dataclasses.dataclass(frozen=True, slots=True)
class ModelBasedValue:
    """The dynamics ensemble's estimate; fitted values stand for what its roll-outs leave out.

    Attributes:
        context: shared parts.
    """

    context: EstimatorContext

    def estimate(self, policy: Policy, data: Dataset, *, generator: torch.Generator) -> Estimate:
        """See `mbrl.core.protocols.Estimator`; without a model it refuses.

        The noise of the roll-outs comes from the generator as it is handed in: two policies that are given
        equal ones meet the same luck.
        """
        model, estimand = self.context.model, self.context.estimand
        if model is None:
            return refused("model_value", "model", estimand, _NO_MODEL)
        seed = int(torch.randint(2**62, (), generator=generator))
        critics = self.context.critics.fit(policy, data, generator)
        reference = critics.estimate()
        found = model_value(
            model,
            policy,
            torch.from_numpy(np.stack([episode.observations[0] for episode in data.episodes])),
            estimand=estimand,
            box=Box.around(data.transitions().to_batch(), margin=self.context.rollouts.box_margin),
            config=self.context.rollouts,
            seed=seed,
            tail=_fitted_tail(critics) if np.isfinite(reference.point) else None,
        )
        estimate = found.estimate(reference if reference.valid else None)
        if found.tail_share > 0 and not reference.valid:
            estimate = estimate.flagged(Flag.UNRELIABLE_TAIL)
        if model.dataset_hash not in {"", data.content_hash}:
            estimate = estimate.flagged(Flag.MODEL_OF_OTHER_DATA)
        return estimate


def refused(name: str, family: Family, estimand: Estimand, reason: str) -> Estimate:
    """No estimate, and why."""
    nothing = math.nan
    return Estimate(
        name,
        family,
        point=nothing,
        se=nothing,
        ci95=(nothing, nothing),
        method_of_ci="none: refused",
        n_eff=0.0,
        estimand=estimand,
        valid=False,
        why_not=reason,
    )


def _fitted_tail(critics: FQEResult) -> TailValue:
    def tail(obs: Tensor, action: Tensor, to_go: int | None) -> Tensor:
        clock = None if to_go is None else torch.full((len(obs),), to_go)
        return critics.values.action_value(obs, action, clock).mean(0)

    return tail


@ESTIMATORS.register("is")
def make_is(context: EstimatorContext) -> Estimator[Dataset]:
    """Importance sampling: whole returns times the ratio of the whole episode."""
    return _sampling(context, "is")


@ESTIMATORS.register("pdis")
def make_pdis(context: EstimatorContext) -> Estimator[Dataset]:
    """Per-decision importance sampling: each reward times the ratio up to it."""
    return _sampling(context, "pdis")


@ESTIMATORS.register("wis")
def make_wis(context: EstimatorContext) -> Estimator[Dataset]:
    """Weighted importance sampling: ratios of whole episodes, normalised to sum to 1."""
    return _sampling(context, "wis")


@ESTIMATORS.register("pdwis")
def make_pdwis(context: EstimatorContext) -> Estimator[Dataset]:
    """Per-decision weighted importance sampling; the primary estimate of the ratio family."""
    return _sampling(context, "pdwis")


@ESTIMATORS.register("dm")
def make_dm(context: EstimatorContext) -> Estimator[Dataset]:
    """Direct method: mean fitted value of the first states."""
    return ArrayEstimator(context, direct_method, needs_ratio=False, needs_values=True)


@ESTIMATORS.register("dr")
def make_dr(context: EstimatorContext) -> Estimator[Dataset]:
    """Doubly robust: fitted values, corrected by ratios."""
    return ArrayEstimator(context, doubly_robust, needs_ratio=True, needs_values=True)


@ESTIMATORS.register("wdr")
def make_wdr(context: EstimatorContext) -> Estimator[Dataset]:
    """Weighted doubly robust: fitted values, corrected by normalised ratios."""
    return ArrayEstimator(context, weighted_doubly_robust, needs_ratio=True, needs_values=True)


@ESTIMATORS.register("magic")
def make_magic(context: EstimatorContext) -> Estimator[Dataset]:
    """MAGIC: the blend of WDR and the direct method with the least estimated error."""
    return ArrayEstimator(context, magic, needs_ratio=True, needs_values=True)


@ESTIMATORS.register("fqe")
def make_fqe(context: EstimatorContext) -> Estimator[Dataset]:
    """Fitted Q evaluation with an ensemble; the primary estimate of the value family."""
    return FittedQEvaluation(context)


@ESTIMATORS.register("model_value")
def make_model_value(context: EstimatorContext) -> Estimator[Dataset]:
    """Roll-outs of a dynamics ensemble; the primary estimate of the model family."""
    return ModelBasedValue(context)


def _sampling(context: EstimatorContext, kind: Kind) -> ArrayEstimator:
    def compute(arrays: OPEArrays) -> Estimate:
        return importance_sampling(arrays, kind=kind, tail="bootstrap")

    return ArrayEstimator(context, compute, needs_ratio=True, needs_values=False)
