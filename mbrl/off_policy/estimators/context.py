"""What estimators are asked, one policy on one log; what is fitted to answer is fitted once for all."""

import dataclasses
from typing import Any

import numpy as np
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.data.dataset import Dataset
from mbrl.data.splits import episode_folds
from mbrl.off_policy.estimators.marginal_ratio import MarginalRatio, MWLConfig, marginal_ratio
from mbrl.off_policy.log.behaviour import Behaviour, BehaviourCache
from mbrl.off_policy.log.layout import Array, OPEArrays, pad_log
from mbrl.off_policy.log.policies import action_log_prob, is_stochastic
from mbrl.off_policy.log.weights import PLAIN, WeightTransform
from mbrl.off_policy.value.evaluation_model import EvaluationModel
from mbrl.off_policy.value.fqe import FitValues, fit_fqe
from mbrl.off_policy.value.fqe_config import FQEConfig
from mbrl.off_policy.value.fqe_result import FQEResult
from mbrl.off_policy.value.model_value import ModelValueConfig


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EstimatorSettings:
    """What is asked, and how the answers are fitted; the same for every policy and log.

    Attributes:
        estimand: what is estimated.
        fqe: fitted values.
        crossfit: folds of the episodes for estimators that correct values by the same episodes; the values
            then come from members that have not seen the episode. 0 fits all members to all.
        fit_values: makes a fit of values.
        behaviour: who acted, logged or fitted; a fit depends on the log alone, so policies share it.
        weights: changes of the weights, which trade variance for bias.
        mwl: marginal ratios.
        model: dynamics to roll out, or None.
        rollouts: how they are rolled out.

    Raises:
        ConfigError: one fold, or more folds than members.
    """

    estimand: Estimand
    fqe: FQEConfig = dataclasses.field(default_factory=FQEConfig)
    crossfit: int = 0
    fit_values: FitValues = fit_fqe
    behaviour: BehaviourCache = dataclasses.field(default_factory=BehaviourCache)
    weights: WeightTransform = PLAIN
    mwl: MWLConfig = dataclasses.field(default_factory=MWLConfig)
    model: EvaluationModel | None = None
    rollouts: ModelValueConfig = dataclasses.field(default_factory=ModelValueConfig)

    def __post_init__(self) -> None:
        members = self.fqe.members
        if self.crossfit != 0 and not 2 <= self.crossfit <= members:
            raise ConfigError(
                f"crossfit={self.crossfit}: every member leaves one fold out, so {members} members serve 2 "
                f"to {members} folds. Remedy: one of these, or 0 for none."
            )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FittedValues:
    """Q and V of the evaluated policy on a log, see `pad_log`.

    Attributes:
        action_value: `[N]`.
        value: `[N + n]`.
        why_not: why the fit does not count, or None where it does.
        members: the same of each member of the fit; empty where members value some episodes only.
    """

    action_value: Array
    value: Array
    why_not: str | None = None
    members: "tuple[FittedValues, ...]" = ()


class EstimatorContext:
    """One policy on one log; every fit is made when an estimator first asks for it, and kept.

    Args:
        policy: whatever acts; one with a density is taken as stochastic.
        dataset: logged episodes.
        settings: what is asked.
    """

    def __init__(self, policy: Policy, dataset: Dataset, settings: EstimatorSettings) -> None:
        self.policy, self.dataset, self.settings = policy, dataset, settings
        # By whether each episode is valued by members that have not seen it.
        self._fits: dict[bool, FQEResult] = {}
        self._on_log: dict[bool, tuple[Array, Array]] = {}
        self._marginal: MarginalRatio | None = None

    @property
    def estimand(self) -> Estimand:
        """What is estimated."""
        return self.settings.estimand

    @property
    def behaviour(self) -> Behaviour:
        """Who acted: as logged where every episode says so, else fitted."""
        return self.settings.behaviour.of(self.dataset)

    @property
    def is_one_step(self) -> bool:
        """Whether every episode is a single decision, or only the first one counts."""
        return self.estimand.horizon == 1 or int(self.dataset.episode_lengths.max()) == 1

    @property
    def needs_tail(self) -> bool:
        """Whether episodes were cut before the horizon, so that ratios need values of what comes after."""
        rows, horizon = self.dataset.transitions(), self.estimand.horizon
        is_open = rows.truncated & ~rows.terminated
        return bool(np.any(is_open if horizon is None else is_open & (rows.step + 1 < horizon)))

    def fit_values(self, generator: torch.Generator, *, is_corrected: bool = False) -> FQEResult:
        """The fit of the policy's values to these episodes.

        Args:
            generator: source of all draws.
            is_corrected: ratios correct the values by the same episodes: no value may have seen its own, if
                folds were asked for.
        """
        is_crossfitted = is_corrected and self.settings.crossfit > 0
        if is_crossfitted not in self._fits:
            folds = self.settings.crossfit
            self._fits[is_crossfitted] = self.settings.fit_values(
                self.dataset,
                self.policy,
                estimand=self.estimand,
                config=self.settings.fqe,
                generator=generator,
                fold=episode_folds(self.dataset, folds, generator) if is_crossfitted else None,
            )
        return self._fits[is_crossfitted]

    def members_on_log(
        self, generator: torch.Generator, *, is_corrected: bool = False
    ) -> tuple[Array, Array]:
        """`FQEResult.members_on_log` of `fit_values` on its episodes."""
        is_crossfitted = is_corrected and self.settings.crossfit > 0
        if is_crossfitted not in self._on_log:
            fit = self.fit_values(generator, is_corrected=is_corrected)
            self._on_log[is_crossfitted] = fit.members_on_log(self.dataset, generator=generator)
        return self._on_log[is_crossfitted]

    def values_on_log(self, generator: torch.Generator, *, is_corrected: bool = False) -> FittedValues:
        """Fitted values of the policy at every logged step and state; arguments as of `fit_values`."""
        fit = self.fit_values(generator, is_corrected=is_corrected)
        found = fit.estimate()
        by_member = self.members_on_log(generator, is_corrected=is_corrected)
        # Cross-fitted members know some of the episodes only, so none can answer for the log.
        members = () if fit.fold is not None else tuple(map(FittedValues, *by_member))
        why_not = None if found.valid else found.why_not
        return FittedValues(*fit.mean_on_log(*by_member, self.dataset), why_not, members)

    def marginal_ratio(self, generator: torch.Generator) -> MarginalRatio:
        """Ratios of the policy's visits to those of the log."""
        if self._marginal is None:
            self._marginal = marginal_ratio(
                self.dataset,
                self.policy,
                estimand=self.estimand,
                config=self.settings.mwl,
                generator=generator,
            )
        return self._marginal

    def log_prob(self) -> Array:
        """`[N]` log-densities of the logged actions under the policy, among the choices that were allowed.

        Raises:
            UndefinedRatioError: the policy is deterministic.
        """
        rows = self.dataset.transitions()
        mask = None if rows.action_mask is None else torch.tensor(rows.action_mask)
        obs, action = torch.tensor(rows.observation), torch.tensor(rows.action)
        found = action_log_prob(self.policy, obs, action, mask)
        return found.double().numpy()

    def arrays(self, log_prob: Array | None, values: FittedValues | None = None) -> OPEArrays:
        """The log padded, with ratios to the behaviour, logged or fitted.

        Args:
            log_prob: `[N]`, of the logged actions under what is evaluated; None for all ratios 1.
            values: of the policy, for estimators that read them.
        """
        return pad_log(
            self.dataset.episodes,
            log_prob,
            estimand=self.estimand,
            behaviour_log_prob=None if log_prob is None else self.behaviour.log_prob,
            action_value=None if values is None else values.action_value,
            value=None if values is None else values.value,
            is_discrete=isinstance(self.policy, DiscretePolicy),
        )

    def ratio_arrays(self, values: FittedValues | None = None) -> OPEArrays:
        """`arrays` with the ratios of the policy.

        Raises:
            UndefinedRatioError: the policy is deterministic.
        """
        return self.arrays(self.log_prob(), values)

    def behaviour_facts(self) -> dict[str, Any]:
        """`Behaviour.facts`, with the mean ratios of a policy that has ratios."""
        return self.behaviour.facts(self.ratio_arrays() if is_stochastic(self.policy) else None)
