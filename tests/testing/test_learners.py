"""Each check of a learner finds the defect that it is there for, and says what was expected and what came."""

import copy
import itertools
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ConfigDict
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Learner
from mbrl.core.rng import RngStreams
from mbrl.learners.awac import AWAC
from mbrl.learners.bc import BC, BCConfig, BCState
from mbrl.learners.discrete.bc import DiscreteBC
from mbrl.nets.actors import DeterministicActor
from mbrl.nets.categorical import SoftmaxPolicy
from mbrl.testing import LEARNER_CHECKS, CheckError, check_learner


class LooseConfig(BCConfig):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Loose(BC):
    """Takes settings that it does not have."""

    Config: ClassVar[Any] = LooseConfig


class Seeded(BC):
    """Makes the same weights whatever it is handed."""

    def init(self, generator: torch.Generator) -> BCState:
        return super().init(RngStreams(7).at("init"))


class Counting(BC):
    """Learns from the number of updates that this process has made."""

    updates = itertools.count()

    def update(self, state: Any, batch: Any, generator: Any) -> Any:
        metrics = super().update(state, batch, generator)
        with torch.no_grad():
            state.actor.net.flat += 1e-3 * next(self.updates)
        return metrics


class Writing(BC):
    """Clips rewards where they lie."""

    def update(self, state: Any, batch: Any, generator: Any) -> Any:
        batch.reward.clamp_(min=-1.0)
        return super().update(state, batch, generator)


class Idle(BC):
    """Learns nothing."""

    def update(self, state: Any, batch: Any, generator: Any) -> Any:
        return {}


class Attached(BC):
    """Hands out a loss with its graph."""

    def update(self, state: Any, batch: Any, generator: Any) -> Any:
        return {**super().update(state, batch, generator), "loss": state.actor.net.flat.sum()}


class ForgetfulState(BCState):
    def state_dict(self) -> Any:
        return {"actor": super().state_dict()["actor"]}

    def load_state_dict(self, state: Any) -> None:
        self.actor.load_state_dict(state["actor"])


class Forgetful(BC):
    """Leaves the moments of Adam out of its checkpoints."""

    def init(self, generator: torch.Generator) -> BCState:
        state = super().init(generator)
        return ForgetfulState(state.actor, state.optimiser)


class Reading(BC):
    """Looks at its loss in every update."""

    def update(self, state: Any, batch: Any, generator: Any) -> Any:
        metrics = super().update(state, batch, generator)
        assert float(metrics["policy/loss"]) < 1e9
        return metrics


class FarActor(DeterministicActor):
    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().act(obs, noise) + 5.0


class Escaping(BC):
    """Acts outside of the box."""

    def policy(self, state: Any) -> Any:
        actor = copy.copy(state.actor)
        actor.__class__ = FarActor
        return actor


class Column:
    def __init__(self, values: Any) -> None:
        self.value, self._values = values.value, values

    def action_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self._values.action_value(obs, action)[:, None]


class Columns(AWAC):
    """Values of the shape [b, 1]."""

    def value(self, state: Any) -> Any:
        return Column(super().value(state))


class Remembering(BC):
    """Keeps in the learner what belongs into its state."""

    def init(self, generator: torch.Generator) -> BCState:
        self._seen = 0
        return super().init(generator)

    def update(self, state: Any, batch: Any, generator: Any) -> Any:
        self._seen += 1
        with torch.no_grad():
            state.actor.net.flat += 1e-3 * self._seen
        return super().update(state, batch, generator)


class Bare:
    def __init__(self, actor: Any) -> None:
        self.act_dim, self.act = actor.act_dim, actor.act


class Unstorable(BC):
    """A policy that is no network."""

    def policy(self, state: Any) -> Any:
        return Bare(state.actor)


class Global(BC):
    """Draws from torch's own generator."""

    def update(self, state: Any, batch: Any, generator: Any) -> Any:
        torch.rand(())
        return super().update(state, batch, generator)


class DeafPolicy(SoftmaxPolicy):
    def probs(self, obs: Tensor, mask: Tensor | None = None) -> Tensor:
        del mask
        return super().probs(obs)


class Deaf(DiscreteBC):
    """A policy that hears no mask."""

    def policy(self, state: Any) -> Any:
        deaf = copy.copy(state.actor)
        deaf.__class__ = DeafPolicy
        return deaf


class HostBound(BC):
    """Makes a metric where no card is."""

    def update(self, state: Any, batch: Any, generator: Any) -> Any:
        return {**super().update(state, batch, generator), "policy/weight": torch.ones(())}


MUTANTS: list[tuple[type[Learner[Any]], str, str]] = [
    (Loose, "config_is_strict_and_survives_a_file", "expected a ValueError that says 'no_such_setting'"),
    (Seeded, "weights_come_from_the_generator", "expected another initial state"),
    (Counting, "updates_repeat", r"came \.actor\.net\.flat differs in \d+ of \d+ entries"),
    (Writing, "updates_change_the_state_alone", r"came \.reward differs in \d+ of 360 entries"),
    (Idle, "updates_change_the_state_alone", "expected a state that learns; came the same state"),
    (Attached, "updates_change_the_state_alone", "the metric loss as a scalar without a gradient"),
    (Forgetful, "states_survive_their_state_dict", "after saving, loading and one more update"),
    (Reading, "updates_read_no_number_back", "came aten._local_scalar_dense"),
    (Escaping, "policy_is_a_policy", r"expected actions between \(-1.0, -2.0\) and \(1.0, 0.5\)"),
    (Columns, "values_are_finite_and_one_for_each_row", r"action_value of the shape \[360\]; came the shape"),
    (HostBound, "runs_on_a_card", "metrics on the device of the state; came policy/weight"),
    (Deaf, "forbidden_choices_are_never_read", "a probability of 0 of forbidden choices"),
    (Remembering, "trainings_resume_to_the_same_bits", "killed in update 5 and continued"),
    (Unstorable, "policy_survives_its_file", "a policy that can be saved and loaded; came A Bare"),
    (Global, "updates_repeat", "came draws from torch's global generator"),
]


@pytest.fixture(autouse=True)
def _restore_global_generator() -> Any:
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)


@pytest.mark.parametrize(("learner", "check", "message"), MUTANTS, ids=[m[0].__name__ for m in MUTANTS])
def test_a_defect_is_found_and_named(learner: Any, check: str, message: str) -> None:
    with pytest.raises(CheckError, match=f"(?s)learner '{learner.__name__}', {check}: .*{message}"):
        check_learner(learner, checks=[check])
    with pytest.raises(CheckError):
        check_learner(learner)


def test_every_check_has_a_defect_that_it_finds() -> None:
    assert {check for _, check, _ in MUTANTS} == set(LEARNER_CHECKS)


def test_a_sound_learner_passes_with_settings_of_its_own() -> None:
    check_learner(BC, {"form": "mixture", "components": 2})


def test_names_that_do_not_exist_are_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Unknown check 'updates_repeats' .*Did you mean 'updates_repeat'"):
        check_learner(BC, checks=["updates_repeats"])
    with pytest.raises(ConfigError, match=r"Unknown learner 'bcc'\. Did you mean 'bc'"):
        check_learner("bcc")


class Raising(BC):
    def update(self, state: Any, batch: Any, generator: Any) -> Any:
        raise ZeroDivisionError("by nothing")


def test_an_error_of_the_learner_is_its_own_with_a_note() -> None:
    with pytest.raises(ZeroDivisionError, match="by nothing") as caught:
        check_learner(Raising, checks=["updates_repeat"])
    assert caught.value.__notes__ == ["In the check updates_repeat of the learner 'Raising'."]
