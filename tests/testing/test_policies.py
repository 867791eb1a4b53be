"""Each check of a policy finds the defect that it is there for."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mbrl.core.types import SpaceSpec
from mbrl.testing import POLICY_CHECKS, CheckError, check_policy
from mbrl.testing.samples import SPACE


class Sound:
    """Acts in the middle of the box, moved by its state and the noise."""

    act_dim = 2

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        moved = torch.tanh(obs[:, :2] + (0.0 if noise is None else noise))
        return torch.tensor([0.0, -0.75]) + torch.tensor([0.9, 1.2]) * moved


class Wide(Sound):
    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().act(obs, noise) * 2


class Flat(Sound):
    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().act(obs, noise)[0]


class NaN(Sound):
    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        return torch.where(obs[:, :2].abs() > 50, torch.nan, super().act(obs, noise))


class Counting(Sound):
    calls = 0.0

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        Counting.calls += 1e-3
        return super().act(obs, noise) + self.calls * 1e-3


class Batchwise(Sound):
    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().act((obs - obs.mean(0)) / (1 + obs.std(0, correction=0)), noise)


class InPlace(Sound):
    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().act(obs.clamp_(-1, 1), noise)


class Uncertain(Sound):
    """A density that does not know its own samples."""

    def sample(self, obs: Tensor, count: int, noise: Tensor) -> Tensor:
        return torch.stack([self.act(obs, draw) for draw in noise])

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.where(action[:, 0] > 0, 0.0, -torch.inf)


class Discrete(Sound):
    def probs(self, obs: Tensor, mask: Tensor | None = None) -> Tensor:
        del mask
        return torch.full((len(obs), 2), 0.4)


class Blurred(Sound):
    """Half of one choice and half of the other; draws what its probabilities do not say, deaf to masks."""

    def act(self, obs: Tensor, noise: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        del noise, mask
        return torch.full((len(obs), 2), 0.5)

    def probs(self, obs: Tensor, mask: Tensor | None = None) -> Tensor:
        del mask
        return torch.tensor([0.1, 0.9]).expand(len(obs), -1)


MUTANTS: list[tuple[Any, str, str]] = [
    (Wide, "actions_fit_the_task", "expected actions between"),
    (Flat, "actions_fit_the_task", r"actions of the shape \[64, 2\]; came \[2\]"),
    (NaN, "actions_fit_the_task", "came others, or NaN, in the rows"),
    (Counting, "actions_repeat", "the same actions at the same states"),
    (Batchwise, "rows_do_not_influence_each_other", "of row 0 among others also when it is alone"),
    (InPlace, "acting_leaves_its_inputs_alone", "states as they were before acting"),
    (Uncertain, "densities_fit_the_samples", "a log-density above -inf at the policy's own samples"),
    (Discrete, "probabilities_sum_to_one", "a sum that misses it by 0.2"),
    (Blurred, "choices_are_one_hot", "one-hot actions; came others"),
    (Blurred, "draws_follow_the_probabilities", "draws with the shares"),
    (Blurred, "masks_forbid", "a probability of 0 of forbidden choices"),
]


@pytest.mark.parametrize(
    ("policy", "check", "message"), MUTANTS, ids=[f"{m[0].__name__}-{m[1]}" for m in MUTANTS]
)
def test_a_defect_is_found_and_named(policy: Any, check: str, message: str) -> None:
    with pytest.raises(CheckError, match=f"(?s)policy '{policy.__name__}', {check}: .*{message}"):
        check_policy(policy(), SPACE, checks=[check])


def test_every_check_has_a_defect_that_it_finds() -> None:
    assert {check for _, check, _ in MUTANTS} == set(POLICY_CHECKS)


def test_a_sound_policy_passes_in_its_task_and_in_no_other() -> None:
    check_policy(Sound(), SPACE)
    with pytest.raises(CheckError, match="act_dim to be 1; came 2"):
        check_policy(Sound(), SpaceSpec(3, 1, (-1.0,), (1.0,)))
