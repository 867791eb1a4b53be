"""What everything that acts must keep to."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from mbrl.core.protocols import DiscretePolicy, Policy, StochasticPolicy
from mbrl.core.types import SpaceSpec
from mbrl.testing.checks import Checks, Subject, expect, expect_all, expect_refusal, run_checks

_ROWS = 64
_DRAWS = 3
_MANY = 4000


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyCase:
    """A policy and the task that it acts in.

    Attributes:
        policy: whatever acts.
        space: sizes and bounds of its actions.
    """

    policy: Policy
    space: SpaceSpec

    def states(self) -> Tensor:
        """`[64, obs_dim]`, half of them a hundred times farther out than the other half."""
        draws = torch.randn(_ROWS, self.space.obs_dim, generator=torch.Generator().manual_seed(0))
        draws[_ROWS // 2 :] *= 100.0
        return draws

    def noise(self, *counts: int) -> Tensor:
        """`[*counts, act_dim]` standard normal draws."""
        return torch.randn(*counts, self.space.act_dim, generator=torch.Generator().manual_seed(1))


def check_policy(policy: Policy, space: SpaceSpec, *, checks: Sequence[str] | None = None) -> None:
    """Checks what acts: sizes, the box, determinism, rows on their own; densities where it has them.

    Args:
        policy: whatever acts.
        space: sizes and bounds of the task.
        checks: names from `POLICY_CHECKS`; None for all.

    Raises:
        CheckError: a check failed.
    """
    run_checks(POLICY_CHECKS, PolicyCase(policy, space), Subject("policy", type(policy).__name__), checks)


def actions_fit_the_task(case: PolicyCase) -> None:
    """`[b, act_dim]`, finite, inside the bounds, also far outside of the data, with noise and without."""
    shape = [_ROWS, case.space.act_dim]
    low, high = torch.tensor(case.space.act_low), torch.tensor(case.space.act_high)
    expect(case.policy.act_dim == shape[1], f"act_dim to be {shape[1]}", came=case.policy.act_dim)
    for noise in (None, case.noise(_ROWS)):
        action = case.policy.act(case.states(), noise)
        expect(list(action.shape) == shape, f"actions of the shape {shape}", came=list(action.shape))
        outside = ~((action >= low) & (action <= high)).all(1)  # true of NaN as well
        rows = [int(row) for row in outside.nonzero()]
        box = f"actions between {case.space.act_low} and {case.space.act_high}"
        expect(not rows, box, came=f"others, or NaN, in the rows {rows}")


def actions_repeat(case: PolicyCase) -> None:
    """The same states and noise give the same actions: a policy keeps nothing and draws nothing."""
    for what, noise in (("without noise", None), ("with the same noise", case.noise(_ROWS))):
        first, second = (case.policy.act(case.states(), noise) for _ in range(2))
        expect(torch.equal(first, second), f"the same actions at the same states {what}", came="others")


def rows_do_not_influence_each_other(case: PolicyCase) -> None:
    """A state alone gets the action that it gets among others."""
    states = case.states()
    together = case.policy.act(states)
    for row in (0, _ROWS // 2):
        alone = case.policy.act(states[row : row + 1])[0]
        expect(
            torch.allclose(alone, together[row], rtol=1e-4, atol=1e-5),
            f"the action {together[row].tolist()} of row {row} among others also when it is alone",
            came=f"{alone.tolist()}",
        )


def acting_leaves_its_inputs_alone(case: PolicyCase) -> None:
    """States and noise are as before, and actions carry no gradient."""
    states, noise = case.states(), case.noise(_ROWS)
    before = copy.deepcopy((states, noise))
    action = case.policy.act(states, noise)
    expect(torch.equal(states, before[0]), "states as they were before acting", came="other values")
    expect(torch.equal(noise, before[1]), "noise as it was before acting", came="other values")
    expect(not action.requires_grad, "actions without a gradient", came="requires_grad=True")


def densities_fit_the_samples(case: PolicyCase) -> None:
    """A stochastic policy's samples fit the task, and its log-density knows them; others are passed over."""
    policy = case.policy
    if not isinstance(policy, StochasticPolicy):
        return
    states = case.states()[: _ROWS // 2]
    samples = policy.sample(states, _DRAWS, case.noise(_DRAWS, len(states)))
    shape = [_DRAWS, len(states), case.space.act_dim]
    expect(list(samples.shape) == shape, f"samples of the shape {shape}", came=list(samples.shape))
    for draw in samples:
        density = policy.log_prob(states, draw).detach()
        expect(
            list(density.shape) == [len(states)],
            f"a log-density of the shape {[len(states)]}",
            came=list(density.shape),
        )
        expect(
            not bool(density.isnan().any()) and bool((density > -torch.inf).all()),
            "a log-density above -inf at the policy's own samples",
            came=float(density.min()),
        )


def choices_are_one_hot(case: PolicyCase) -> None:
    """A discrete policy takes one choice in each state; other policies are passed over."""
    if not isinstance(case.policy, DiscretePolicy):
        return
    for noise in (None, case.noise(_ROWS)):
        action = case.policy.act(case.states(), noise)
        is_one = ((action == 0) | (action == 1)).all(1) & (action.sum(1) == 1)
        expect_all(is_one, "one-hot actions")


def draws_follow_the_probabilities(case: PolicyCase) -> None:
    """A discrete policy draws with noise what its probabilities say; other policies are passed over."""
    policy = case.policy
    if not isinstance(policy, DiscretePolicy):
        return
    state = case.states()[:1]
    expected = policy.probs(state)[0].double()
    drawn = policy.act(state.expand(_MANY, -1), case.noise(_MANY)).double().mean(0)
    # Five deviations of a share: one in two million sound policies fails.
    slack = 5 * (expected * (1 - expected) / _MANY).sqrt() + 1e-6
    expect_all((drawn - expected).abs() <= slack, f"draws with the shares {expected.tolist()}")


def masks_forbid(case: PolicyCase) -> None:
    """What a mask forbids has probability 0, the rest sums to 1; a mask that allows nothing is refused."""
    policy = case.policy
    if not isinstance(policy, DiscretePolicy):
        return
    states, count = case.states(), case.space.act_dim
    mask = torch.arange(count)[None].expand(_ROWS, -1) != torch.arange(_ROWS)[:, None] % count
    probs = policy.probs(states, mask)
    expect_all((probs[~mask] == 0), "a probability of 0 of forbidden choices")
    expect_all((probs.sum(1) - 1).abs() < 1e-5, "probabilities of the allowed choices that sum to 1")
    nothing = mask.clone()
    nothing[3] = False
    expect_refusal(lambda: policy.probs(states, nothing), "row 3")


def probabilities_sum_to_one(case: PolicyCase) -> None:
    """A discrete policy's probabilities are a distribution; other policies are passed over."""
    policy = case.policy
    if not isinstance(policy, DiscretePolicy):
        return
    probs = policy.probs(case.states())
    shape = [_ROWS, case.space.act_dim]
    expect(list(probs.shape) == shape, f"probabilities of the shape {shape}", came=list(probs.shape))
    expect(bool((probs >= 0).all()), "probabilities of 0 at least", came=float(probs.min()))
    error = float((probs.sum(1) - 1).abs().max())
    expect(error < 1e-5, "probabilities that sum to 1", came=f"a sum that misses it by {error:g}")


POLICY_CHECKS: Final[Checks[PolicyCase]] = {
    check.__name__: check
    for check in (
        actions_fit_the_task,
        actions_repeat,
        rows_do_not_influence_each_other,
        acting_leaves_its_inputs_alone,
        densities_fit_the_samples,
        probabilities_sum_to_one,
        choices_are_one_hot,
        draws_follow_the_probabilities,
        masks_forbid,
    )
}
"""Checks of `check_policy` by name."""
