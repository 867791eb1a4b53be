"""Distributional shift of a policy during its training: what it is held against, and when; no bit changes."""

from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

import torch

from mbrl.algorithms.base import RecipeContext
from mbrl.algorithms.imagination import choose_termination, imagine, limit_horizon, settle_halt_reward
from mbrl.algorithms.penalty import PenaltyConfig, UncertaintyRule
from mbrl.core.protocols import Policy, StateValueFn
from mbrl.core.rng import RngStreams
from mbrl.core.types import StateDict
from mbrl.data.dataset import Dataset
from mbrl.data.splits import Split
from mbrl.dynamics.arrays import thin
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.fit import split_for
from mbrl.rollouts.generate import RolloutConfig
from mbrl.run.config import RunConfig, stable_hash
from mbrl.shift.logged_values import logged_values
from mbrl.shift.model_probe import MAX_EDGE_HORIZON, EdgeProbe, ModelProbe
from mbrl.shift.probe import STATES, ShiftProbe
from mbrl.shift.report import alarms_by_kind
from mbrl.shift.support import BehaviourSupport, why_no_support
from mbrl.uncertainty.penalty import UNIT_QUANTILE

_MEASURE = "ens_std"
_FLAG_QUANTILE = 0.99

_STORED_ROWS = 200_000
"""Rows of a log on disk that its behaviour is fitted to, evenly spaced over it."""


class Look(NamedTuple):
    """What one look found.

    Attributes:
        metrics: `shift/...`, finite.
        alarms: those that began to ring.
    """

    metrics: dict[str, float]
    alarms: list[str]


class ShiftMonitor:
    """Looks now and then, remembers mean values, and tells once for each excursion that an alarm rings.

    Args:
        make_probe: makes what is looked through, at the first look: a training that is over needs none.
    """

    def __init__(self, make_probe: Callable[[], ShiftProbe]) -> None:
        self._make_probe: Callable[[], ShiftProbe] | None = make_probe
        self._probe: ShiftProbe | None = None
        self._mean_values: dict[int, float] = {}
        self._ringing: list[str] = []
        self.report: dict[str, Any] | None = None

    def look(
        self, step: int, policy: Policy, value: StateValueFn | None, *, generator: torch.Generator
    ) -> Look:
        """Holds the policy after `step` updates against its log.

        Args:
            step: updates done.
            policy: of the learner.
            value: of the learner, or None.
            generator: of all draws.
        """
        if self._make_probe is not None:
            self._probe = self._make_probe()
            self._make_probe = None  # lets go of the dataset
        assert self._probe is not None
        report = self._probe.look(policy, value, step=step, past=self._mean_values, generator=generator)
        if report.mean_value is not None:
            self._mean_values[step] = report.mean_value
        alarms = alarms_by_kind(report)
        new = [text for kind, text in alarms.items() if kind not in self._ringing]
        self._ringing = list(alarms)
        self.report = report.to_json()
        return Look(report.metrics(), new)

    def state_dict(self) -> StateDict:
        """Mean values, alarms that ring, and the last report."""
        return {
            "mean_values": dict(self._mean_values),
            "ringing": list(self._ringing),
            "report": None if self.report is None else dict(self.report),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._mean_values = dict(state["mean_values"])
        self._ringing = list(state["ringing"])
        self.report = None if state["report"] is None else dict(state["report"])


def make_shift_probe(
    config: RunConfig,
    dataset: Dataset,
    context: RecipeContext,
    *,
    value_bounds: tuple[float, float] | None,
    supports: MutableMapping[str, BehaviourSupport],
) -> ShiftProbe:
    """Fits the behaviour, and measures the model if the recipe has one.

    All draws come from streams of their own, so that a training has the same bits with and without.

    Args:
        config: of the run.
        dataset: that it learns from.
        context: what its recipe was built from.
        value_bounds: least and largest value that the rewards permit, or None.
        supports: behaviours that were fitted before, by dataset, split and seed; a new one is added.
    """
    streams = RngStreams(config.seed)
    split, rng = split_for(config.dynamics, dataset, streams), streams.child("shift")
    held_out = split.holdout.steps()
    rows = torch.randperm(len(held_out), generator=rng.at("states"))[:STATES].numpy()
    why_not: dict[str, str] = {}
    discount = config.algorithm.learner.config.discount
    returns = None
    if dataset.has_rewards and config.algorithm.reads_rewards:
        returns = logged_values(dataset, discount=discount, generator=rng.at("returns"))
    if not config.algorithm.reads_rewards:
        why_not["returns"] = "the algorithm does not read the log's rewards"
    elif not dataset.has_rewards:
        why_not["returns"] = "the log has no rewards"
    elif returns is None:
        why_not["returns"] = f"too few logged steps have a known return at a discount of {discount:g}"
    return ShiftProbe(
        states=torch.tensor(held_out.observation[rows]),
        updates=config.algorithm.updates,
        support=_support(config, dataset, context, split, supports=supports, why_not=why_not),
        returns=returns,
        value_bounds=value_bounds,
        model=_model_probe(context, split, rng.at("model"), why_not),
        edge=_edge_probe(config, context, why_not),
        why_not=why_not,
    )


def _support(
    config: RunConfig,
    dataset: Dataset,
    context: RecipeContext,
    split: Split,
    *,
    supports: MutableMapping[str, BehaviourSupport],
    why_not: dict[str, str],
) -> BehaviourSupport | None:
    held_out, train = split.holdout.steps(), split.train.steps()
    reason = why_no_support(len(held_out))
    if reason is not None:
        why_not["support"] = reason
        return None
    division = {"fraction": config.dynamics.holdout_fraction, "gap": config.dynamics.split_gap}
    key = stable_hash({"dataset": dataset.content_hash, "split": division, "seed": config.seed})
    if key not in supports:
        if train.stored is not None:  # of a log on disk as many rows as show what it does
            train, held_out = thin(train, _STORED_ROWS), thin(held_out, _STORED_ROWS)
        supports[key] = BehaviourSupport.fit(
            (torch.tensor(train.observation), torch.tensor(train.action)),
            (torch.tensor(held_out.observation), torch.tensor(held_out.action)),
            space=dataset.spec,
            normaliser=context.normaliser,
            generator=RngStreams(config.seed).child("shift").at("support"),
        )
    return supports[key]


def _model_probe(
    context: RecipeContext, split: Split, generator: torch.Generator, why_not: dict[str, str]
) -> ModelProbe | None:
    dynamics, transitions = context.dynamics, context.transitions
    if dynamics is None or transitions is None:
        why_not["model"] = "the recipe needs no model, so none was fitted"
        return None
    if not {UNIT_QUANTILE, _FLAG_QUANTILE} <= set(dynamics.thresholds[_MEASURE]):
        why_not["model"] = f"the fit stored no {_FLAG_QUANTILE:g} quantile of its uncertainty"
        return None
    rollout = RolloutConfig(truncation_quantile=_FLAG_QUANTILE)
    imagination = imagine(
        rollout,
        UncertaintyRule.make(rollout, PenaltyConfig(measure=_MEASURE), dynamics, transitions=transitions),
        dynamics,
        termination=dynamics.termination,
        transitions=transitions,
    )
    return ModelProbe.make(
        dynamics,
        imagination,
        train=split.train.transitions(),
        holdout=split.holdout,
        generator=generator,
    )


def _edge_probe(config: RunConfig, context: RecipeContext, why_not: dict[str, str]) -> EdgeProbe | None:
    algorithm: Any = config.algorithm
    rollout: Any = getattr(algorithm, "rollout", None)
    dynamics, transitions = context.dynamics, context.transitions
    is_real = getattr(algorithm, "real_ratio", 0.0) == 1
    if dynamics is None or transitions is None or is_real or not isinstance(rollout, RolloutConfig):
        why_not["edge"] = "the recipe learns from no imagined data"
        return None
    discount = config.algorithm.learner.config.discount
    rollout = settle_halt_reward(limit_horizon(rollout, dynamics), transitions, discount=discount)
    if rollout.horizon > MAX_EDGE_HORIZON:
        why_not["edge"] = f"rollouts of {rollout.horizon} steps are too long to look for their edge"
        return None
    termination = choose_termination(getattr(algorithm, "termination", "learned"), context, dynamics)
    penalty = _penalty(getattr(algorithm, "penalty", None), dynamics)
    rule = UncertaintyRule.make(rollout, penalty, dynamics, transitions=transitions)
    return EdgeProbe(
        imagine(rollout, rule, dynamics, termination=termination, transitions=transitions), rollout
    )


def _penalty(section: Any, dynamics: FittedDynamics) -> PenaltyConfig:
    """What truncates the recipe's rollouts; the default measure where a fit has no quantiles of it."""
    if isinstance(section, PenaltyConfig) and section.measure in dynamics.thresholds:
        return section
    return PenaltyConfig()
