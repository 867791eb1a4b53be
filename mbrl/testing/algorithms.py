"""What every algorithm, a recipe with its learner, must keep to."""

import contextlib
import copy
import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, cast

import torch
from pydantic import BaseModel

from mbrl.algorithms.base import RECIPES, RecipeConfig, RecipeContext
from mbrl.core.device import CPU, on_device
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec
from mbrl.envs.specs import load_task
from mbrl.learners.base import LEARNERS
from mbrl.nets.normaliser import Normaliser
from mbrl.run.config import RunConfig, find_part, parse_algorithm
from mbrl.run.diagnostics import ShiftMonitor, make_shift_probe
from mbrl.run.documents import Tree, read_yaml, set_at
from mbrl.run.loop import renew
from mbrl.shift.report import MEASURED
from mbrl.testing.audit import Audit
from mbrl.testing.card import StandIn
from mbrl.testing.checks import Checks, Subject, expect, expect_same, find_difference, run_checks
from mbrl.testing.learners import small_settings
from mbrl.testing.policies import POLICY_CHECKS, PolicyCase
from mbrl.testing.samples import (
    CHOICES,
    SPACE,
    TINY_DYNAMICS,
    fitted_dynamics,
    make_dataset,
    make_expert,
    make_normaliser,
    make_preferences,
    make_transitions,
)
from mbrl.testing.trainings import check_longer, check_resume, check_stored_policy, train_in

UPDATES: Final = 24
_CUTS = (3, 5, 10, 12, 23)
_SHORTER = (11, 15)
_ONLINE_TASKS = {False: "pendulum", True: "cartpole"}
"""By whether actions are choices."""

_BATCH_FIELDS = ("observation", "action", "reward", "next_observation", "terminated")
_SMALL: Final[dict[str, Any]] = {
    "updates": UPDATES,
    "refresh_interval": 10,
    "refresh_steps": 20,
    "warmup_steps": 20,
    "rollout.starts": 12,
    "rollout.horizon": 2,
    "rollout.respect_trusted_horizon": False,
    "states": 12,
    "sims": 8,
    "search_from": 5,
    "discriminator_hidden": [8],
    "demonstrations": 8,
    "pairs": 4,
}
"""Settings that make an algorithm small, by dotted key; those that it does not have are passed over."""


@dataclasses.dataclass(frozen=True, slots=True)
class AlgorithmCase:
    """An algorithm with small settings.

    Attributes:
        recipe: name in the registry.
        config: of recipe and learner.
    """

    recipe: str
    config: RecipeConfig

    @property
    def is_online(self) -> bool:
        """Whether it learns in a simulator and not from a log."""
        return RECIPES.get(self.recipe).is_online

    @property
    def space(self) -> SpaceSpec:
        """Of the small log: a box of actions, or three choices."""
        return CHOICES if self.config.learner.config.acts_on_choices else SPACE

    def make_context(self) -> RecipeContext:
        """The small log and its model, or a simulator."""
        space = self.space
        if self.is_online:
            task = load_task(_ONLINE_TASKS[space.is_discrete])
            return RecipeContext(task.space, Normaliser.identity(task.obs_dim), task=task)
        return RecipeContext(
            space,
            make_normaliser(space),
            make_transitions(space),
            fitted_dynamics(space),
            episode=torch.tensor(make_dataset(space=space).transitions().episode),
            expert=make_expert(space),
            preferences=make_preferences(space),
        )

    def build(self, context: RecipeContext | None = None) -> Training:
        """What the loop runs."""
        return RECIPES.get(self.recipe).build(self.config, context or self.make_context())


def check_algorithm(
    algorithm: str | Path | Mapping[str, Any], *, checks: Sequence[str] | None = None
) -> None:
    """Checks an algorithm: repetition, continuation, what it leaves alone, what its policy does.

    Its networks, rollouts and length are made small where the settings have the usual names.

    Args:
        algorithm: name of a shipped one, path of a yaml, or the mapping that a yaml holds.
        checks: names from `ALGORITHM_CHECKS`; None for all.

    Raises:
        CheckError: a check failed; the message says what was expected and what came.
        ConfigError: the algorithm cannot be read, or there is no check of that name.
    """
    if isinstance(algorithm, Mapping):
        name, tree = str(algorithm.get("recipe")), copy.deepcopy(dict(algorithm))
    else:
        name, tree = str(algorithm), read_yaml(find_part("algorithms", str(algorithm)))
    recipe, config = parse_algorithm(_shrunk(tree), where=name)
    run_checks(ALGORITHM_CHECKS, AlgorithmCase(recipe, config), Subject("algorithm", name), checks)


def _shrunk(tree: Tree) -> Tree:
    """The tree with small settings; what is wrong with it is for `parse_algorithm` to say."""
    recipe, learner = tree.get("recipe"), tree.get("learner")
    if recipe in RECIPES:
        config = RECIPES.get(str(recipe)).Config
        for key, value in _SMALL.items():
            path = tuple(key.split("."))
            if _has_setting(config, path):
                set_at(tree, path, value)
    if isinstance(learner, dict):
        fields = cast("Tree", learner)
        if fields.get("name") in LEARNERS:
            fields |= small_settings(LEARNERS.get(fields["name"]).Config)
    return tree


def _has_setting(config: type[BaseModel], path: tuple[str, ...]) -> bool:
    """Whether a config has a setting, perhaps in a section that has defaults."""
    field = config.model_fields.get(path[0])
    if field is None or len(path) == 1:
        return field is not None
    return isinstance(field.default, BaseModel) and _has_setting(type(field.default), path[1:])


def trainings_repeat(case: AlgorithmCase) -> None:
    """One seed makes the same bits and metrics again, another seed makes others."""
    with tempfile.TemporaryDirectory() as folder:
        first, second, other = (
            train_in(Path(folder) / str(index), case.build(), updates=UPDATES, seed=seed)
            for index, seed in enumerate((0, 0, 1))
        )
    expect_same(first.content, second.content, "the same states after the same training")
    expect_same(first.metrics, second.metrics, "the same metrics of the same training")
    expect(
        find_difference(first.content, other.content) is not None,
        "other states with another seed",
        came="the same",
    )


def trainings_resume_to_the_same_bits(case: AlgorithmCase) -> None:
    """A training that is killed in any update and continued ends where the uninterrupted one does."""
    check_resume(case.build, updates=UPDATES, cuts=_CUTS)


def longer_trainings_go_on_from_shorter_ones(case: AlgorithmCase) -> None:
    """Unless its updates depend on its length, a training that ended can be made longer, to the same bits."""
    if case.config.depends_on_length:
        return

    def make(updates: int) -> Training:
        return dataclasses.replace(case, config=case.config.model_copy(update={"updates": updates})).build()

    check_longer(make, updates=UPDATES, shorter=_SHORTER)


def training_leaves_the_data_alone(case: AlgorithmCase) -> None:
    """The logged transitions and the model are as before."""
    context = case.make_context()
    before, model = copy.deepcopy(context.transitions), _model_tensors(case)
    with tempfile.TemporaryDirectory() as folder:
        train_in(Path(folder), case.build(context), updates=UPDATES)
    expect_same(_model_tensors(case), model, "the dynamics model as it was before training")
    for field in _BATCH_FIELDS if context.transitions is not None else ():
        logged = getattr(context.transitions, field)
        expect_same(logged, getattr(before, field), f"the logged {field} as it was before training")


def _model_tensors(case: AlgorithmCase) -> dict[str, torch.Tensor]:
    return copy.deepcopy(dict(fitted_dynamics(case.space).to_tensors()[1]))


def policy_is_a_policy(case: AlgorithmCase) -> None:
    """The last policy passes every check of a policy, and survives its file."""
    context = case.make_context()
    training = case.build(context)
    with tempfile.TemporaryDirectory() as folder:
        state = train_in(Path(folder), training, updates=UPDATES).state
    policy = training.learner.policy(state)
    for check in POLICY_CHECKS.values():
        check(PolicyCase(policy, context.space))
    obs = torch.randn(8, context.space.obs_dim, generator=torch.Generator().manual_seed(2))
    check_stored_policy(policy, obs)


def updates_read_no_number_back_and_copy_no_log(case: AlgorithmCase) -> None:
    """Each read makes a GPU wait; a copy of the log in every update is its size in traffic."""
    context = case.make_context()
    training, rng = case.build(context), RngStreams(0)
    state = training.learner.init(rng.at("init"))
    renew(training, state, 0, rng.at("rollout", 0))
    with Audit(len(make_transitions()) if context.transitions is None else len(context.transitions)) as audit:
        for step in range(2):
            batch = training.source.sample(training.batch_size, rng.at("batch", step))
            training.learner.update(state, batch, rng.at("update", step))
    expect(not audit.reads, "updates that read no number out of a tensor", came=", ".join(audit.reads))
    expect(not audit.copies, "updates that copy no log", came=", ".join(audit.copies))


def runs_on_a_card(case: AlgorithmCase) -> None:
    """Batches, updates and what renews the stream compute on a card, with the numbers of a CPU.

    Drawing a batch and updating neither wait for it nor send anything there.
    """
    expected = _train_on(case, CPU, contextlib.nullcontext)
    with StandIn() as card:
        found = _train_on(case, card.device, lambda: card.unattended("batches and updates"))
    expect_same(found, expected, "the states of a CPU after a training on a card")


def _train_on(
    case: AlgorithmCase, device: torch.device, watch: Callable[[], AbstractContextManager[None]]
) -> dict[str, Any]:
    """States of learner and source after two refreshes, an early and a late one, and updates after each."""
    training, rng = on_device(case.build(), device), RngStreams(0, device)
    state = training.learner.init(rng.at("init"))
    for step in (0, 1, UPDATES, UPDATES + 1):
        if step in {0, UPDATES}:
            renew(training, state, step, rng.at("rollout", step))
        draws, noise = rng.at("batch", step), rng.at("update", step)
        with watch():
            training.learner.update(state, training.source.sample(training.batch_size, draws), noise)
    return on_device({"learner": state.state_dict(), "source": training.source.state_dict()}, CPU)


def diagnostics_change_nothing(case: AlgorithmCase) -> None:
    """A training has the same bits when its shift is measured, and what is not measured says why."""
    if case.is_online:
        return
    context = case.make_context()
    training = case.build(context)
    run = RunConfig.model_validate(
        {"recipe": case.recipe, "algorithm": case.config, "dynamics": TINY_DYNAMICS}
    )
    monitor = ShiftMonitor(
        lambda: make_shift_probe(
            run, make_dataset(space=case.space), context, value_bounds=training.value_bounds, supports={}
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        seen = train_in(Path(folder) / "seen", training, updates=UPDATES, diagnostics=monitor)
        unseen = train_in(Path(folder) / "unseen", case.build(), updates=UPDATES)
    expect_same(seen.content, unseen.content, "the same states with and without diagnostics")
    report = monitor.report or {}
    missing = {name for name in MEASURED if report.get(name) is None}
    explained = {*report.get("why_not", ())}
    expect(
        missing == explained,
        "a reason for each measurement that is missing",
        came=sorted(missing ^ explained),
    )
    infinite = [name for name in sorted({*MEASURED} - missing) if not math.isfinite(report[name])]
    expect(not infinite, "measurements that are finite", came=", ".join(infinite))


ALGORITHM_CHECKS: Final[Checks[AlgorithmCase]] = {
    check.__name__: check
    for check in (
        trainings_repeat,
        trainings_resume_to_the_same_bits,
        longer_trainings_go_on_from_shorter_ones,
        training_leaves_the_data_alone,
        policy_is_a_policy,
        updates_read_no_number_back_and_copy_no_log,
        runs_on_a_card,
        diagnostics_change_nothing,
    )
}
"""Checks of `check_algorithm` by name."""
