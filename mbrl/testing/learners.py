"""What every learner must keep to, whatever it minimises."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from mbrl.core.device import CPU, on_device
from mbrl.core.protocols import DiscretePolicy, Learner, StateValueFn, Training, ValueFn
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec, TransitionBatch, take
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext, LearnerEntry
from mbrl.testing.audit import Audit
from mbrl.testing.card import StandIn
from mbrl.testing.checks import (
    Checks,
    Subject,
    expect,
    expect_instance,
    expect_refusal,
    expect_same,
    find_difference,
    run_checks,
)
from mbrl.testing.policies import POLICY_CHECKS, PolicyCase
from mbrl.testing.samples import CHOICES, SPACE, make_batch, make_normaliser, make_source
from mbrl.testing.trainings import check_resume, check_stored_policy

_UPDATES = 10
_BATCH_FIELDS = ("observation", "action", "reward", "next_observation", "terminated", "from_model")
_HIDDEN = [8, 8]
_BATCH_SIZE = 16
_CLONE_UPDATES = 1


@dataclasses.dataclass(frozen=True, slots=True)
class LearnerCase:
    """A learner with small networks, and a log for it.

    Attributes:
        entry: as it is registered.
        config: its settings.
    """

    entry: LearnerEntry
    config: LearnerConfig

    @property
    def space(self) -> SpaceSpec:
        """Of the small log: a box of actions, or three choices."""
        return CHOICES if self.config.acts_on_choices else SPACE

    def batch(self) -> TransitionBatch:
        """The whole log, as the learner reads it."""
        return make_batch(self.config.batch_kind, self.space)

    def build(self) -> Learner[Any]:
        """The learner, told of the small log's task."""
        return self.entry(self.config, LearnerContext(self.space, make_normaliser(self.space), _UPDATES))

    def start(self, seed: int = 0) -> tuple[Learner[Any], Any]:
        """The learner and a fresh state."""
        learner = self.build()
        return learner, learner.init(RngStreams(seed).at("init"))

    def train(self, updates: int = 3) -> tuple[Learner[Any], Any]:
        """The learner and its state after a few updates on the whole log."""
        learner, state = self.start()
        for step in range(updates):
            learner.update(state, self.batch(), RngStreams(0).at("update", step))
        return learner, state


def check_learner(
    learner: str | LearnerEntry,
    config: Mapping[str, Any] | None = None,
    *,
    checks: Sequence[str] | None = None,
) -> None:
    """Checks a learner: its config, its state, its updates, its policy and values, a resumed training.

    Networks are made small where the names of their widths in the config end in `hidden`.

    Args:
        learner: name in the registry, or the class itself.
        config: settings that differ from the defaults.
        checks: names from `LEARNER_CHECKS`; None for all.

    Raises:
        CheckError: a check failed; the message says what was expected and what came.
        ConfigError: there is no learner, or no check, of that name.
    """
    entry = LEARNERS.get(learner) if isinstance(learner, str) else learner
    name = learner if isinstance(learner, str) else getattr(learner, "__name__", str(learner))
    made = entry.Config.model_validate({**small_settings(entry.Config), **(config or {})})
    run_checks(LEARNER_CHECKS, LearnerCase(entry, made), Subject("learner", name), checks)


def small_settings(config: type[LearnerConfig]) -> dict[str, Any]:
    """Small batches, narrow layers for every network whose widths are a setting, and a short first phase."""
    widths = {name: _HIDDEN for name in config.model_fields if name.endswith("hidden")}
    phases = {"clone_updates": _CLONE_UPDATES} if "clone_updates" in config.model_fields else {}
    return {"batch_size": _BATCH_SIZE, **widths, **phases}


def config_is_strict_and_survives_a_file(case: LearnerCase) -> None:
    """Settings of other names are refused, none can be changed afterwards, and all can be written down."""
    config = case.config
    expect_instance(config, LearnerConfig)
    again = type(config).model_validate(config.model_dump(mode="json"))
    expect(again == config, "the same settings after writing and reading them", came=again)
    expect_refusal(lambda: type(config).model_validate({"no_such_setting": 1}), "no_such_setting")
    is_frozen = bool(type(config).model_config.get("frozen"))
    expect(is_frozen, "a Config with frozen=True", came="one that is not")


def weights_come_from_the_generator(case: LearnerCase) -> None:
    """One seed makes one state, another seed another."""
    first, second, other = (case.start(seed)[1].state_dict() for seed in (0, 0, 1))
    expect_same(first, second, "the same initial state from the same generator")
    expect(
        find_difference(first, other) is not None,
        "another initial state from another generator",
        came="the same",
    )


def updates_repeat(case: LearnerCase) -> None:
    """An update is a function of state, batch and generator."""
    first, second = (case.train()[1].state_dict() for _ in range(2))
    expect_same(first, second, "the same state after the same updates")


def updates_change_the_state_alone(case: LearnerCase) -> None:
    """The state changes; batch, config and an earlier snapshot do not; metrics are detached scalars."""
    learner, state = case.start()
    snapshot, batch, config = state.state_dict(), case.batch(), case.config.model_dump()
    before = copy.deepcopy(snapshot)
    metrics = learner.update(state, batch, RngStreams(0).at("update"))
    expect_same(_fields(batch), _fields(case.batch()), "the batch as it was before the update")
    expect(case.config.model_dump() == config, "the config as it was before the update", came="another")
    expect(
        find_difference(before, state.state_dict()) is not None, "a state that learns", came="the same state"
    )
    expect_same(before, snapshot, "a state_dict that later updates do not change")
    for name, value in metrics.items():
        is_plain = value.ndim == 0 and not value.requires_grad
        expect(
            is_plain,
            f"the metric {name} as a scalar without a gradient",
            came=f"the shape {list(value.shape)}, requires_grad={value.requires_grad}",
        )


def states_survive_their_state_dict(case: LearnerCase) -> None:
    """A state that is filled from another's `state_dict` goes on like that one."""
    learner, state = case.train(1)
    other = learner.init(RngStreams(9).at("init"))
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    for one in (state, other):
        learner.update(one, case.batch(), RngStreams(0).at("update", 1))
    expect_same(
        state.state_dict(), other.state_dict(), "the same state after saving, loading and one more update"
    )
    obs = case.batch().observation[:8]
    actions = [learner.policy(one).act(obs) for one in (state, other)]
    expect(torch.equal(*actions), "the same actions of a state and its copy", came="others")


def updates_read_no_number_back(case: LearnerCase) -> None:
    """No `.item()`, no branch on a tensor, no NumPy: each read makes a GPU wait."""
    learner, state = case.train(1)
    batch = case.batch()
    with Audit(rows=None) as audit:
        learner.update(state, batch, RngStreams(0).at("update", 1))
    expect(not audit.reads, "updates that read no number out of a tensor", came=", ".join(audit.reads))


def runs_on_a_card(case: LearnerCase) -> None:
    """State, policy and values lie where their generator does, with the numbers of the host.

    Updates neither wait for a card nor send anything there.
    """
    learner, state = case.train()
    expected = state.state_dict(), _answers(learner, state, case.batch())
    with StandIn() as card:
        learner, rng = on_device(case.build(), card.device), RngStreams(0, card.device)
        state, batch = learner.init(rng.at("init")), on_device(case.batch(), card.device)
        for step in range(3):
            generator = rng.at("update", step)
            with card.unattended("updates"):
                metrics = learner.update(state, batch, generator)
            elsewhere = [name for name, value in metrics.items() if value.device != card.device]
            expect(not elsewhere, "metrics on the device of the state", came=", ".join(elsewhere))
        found = on_device((state.state_dict(), _answers(learner, state, batch)), CPU)
    expect_same(found[0], expected[0], "the state of a CPU after updates on a card")
    expect_same(found[1], expected[1], "the actions and values of a CPU from a card")


def _answers(learner: Learner[Any], state: Any, batch: TransitionBatch) -> dict[str, Any]:
    """What policy and values say of a batch."""
    values, found = learner.value(state), {"action": learner.policy(state).act(batch.observation)}
    if values is not None:
        found["value"] = values.value(batch.observation)
    if isinstance(values, ValueFn):
        found["action_value"] = values.action_value(batch.observation, batch.action)
    return found


def policy_is_a_policy(case: LearnerCase) -> None:
    """What `policy` returns passes every check of a policy."""
    learner, state = case.train()
    for check in POLICY_CHECKS.values():
        check(PolicyCase(learner.policy(state), case.space))


def values_are_finite_and_one_for_each_row(case: LearnerCase) -> None:
    """`value` returns V, and Q if it is known, of shape `[b]`; or None for a learner without values."""
    learner, state = case.train()
    values, batch = learner.value(state), case.batch()
    if values is None:
        return
    expect_instance(values, StateValueFn)
    found = {"value": values.value(batch.observation)}
    if isinstance(values, ValueFn):
        found["action_value"] = values.action_value(batch.observation, batch.action)
    for name, value in found.items():
        expect(
            list(value.shape) == [len(batch)],
            f"{name} of the shape {[len(batch)]}",
            came=f"the shape {list(value.shape)}",
        )
        expect(bool(value.isfinite().all()), f"{name} to be finite", came="NaN or infinity")


def forbidden_choices_are_never_read(case: LearnerCase) -> None:
    """Masks hold: what a forbidden choice is worth, and whether it would be the best, changes nothing.

    Learners of a box of actions are passed over. The last choice is forbidden everywhere, in a log that never
    makes it: an update with masks then leaves the probabilities of the other two a distribution.
    """
    if not case.config.acts_on_choices:
        return
    batch = case.batch()
    mask = torch.ones_like(batch.action, dtype=torch.bool)
    mask[:, -1] = False
    rows = (batch.action[:, -1] == 0).nonzero()[:, 0]
    told = dataclasses.replace(batch, action_mask=mask, next_action_mask=mask)
    learner, state = case.start()
    for step in range(3):
        learner.update(state, take(told, rows), RngStreams(0).at("update", step))
    policy = learner.policy(state)
    expect_instance(policy, DiscretePolicy)
    assert isinstance(policy, DiscretePolicy)
    probs = policy.probs(batch.observation, mask)
    expect(bool((probs[:, -1] == 0).all()), "a probability of 0 of forbidden choices", came="more")
    expect(bool(probs.isfinite().all()), "finite probabilities after updates with masks", came="NaN")


def trainings_resume_to_the_same_bits(case: LearnerCase) -> None:
    """A training that is killed and continued ends where the uninterrupted one does."""

    def make() -> Training:
        source = make_source(case.config.batch_kind, case.space)
        return Training(case.build(), source, batch_size=case.config.batch_size)

    check_resume(make, updates=_UPDATES, cuts=(3, 5))


def policy_survives_its_file(case: LearnerCase) -> None:
    """The policy that is exported acts as the policy that was trained."""
    learner, state = case.train()
    check_stored_policy(learner.policy(state), case.batch().observation)


def _fields(batch: TransitionBatch) -> dict[str, Any]:
    return {name: getattr(batch, name) for name in _BATCH_FIELDS}


LEARNER_CHECKS: Final[Checks[LearnerCase]] = {
    check.__name__: check
    for check in (
        config_is_strict_and_survives_a_file,
        weights_come_from_the_generator,
        updates_repeat,
        updates_change_the_state_alone,
        states_survive_their_state_dict,
        updates_read_no_number_back,
        runs_on_a_card,
        policy_is_a_policy,
        values_are_finite_and_one_for_each_row,
        forbidden_choices_are_never_read,
        trainings_resume_to_the_same_bits,
        policy_survives_its_file,
    )
}
"""Checks of `check_learner` by name."""
