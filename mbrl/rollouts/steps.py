"""Imagined steps `[h, b]`: what they hold, what they sum up to, and when they cannot be used."""

import dataclasses
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.core.errors import NonFiniteError
from mbrl.core.types import TransitionBatch

_MAX_NON_FINITE_SHARE = 1e-3
"""Of the imagined rows; a sound model loses none, one that blows up loses many within a few steps."""

_CLIP_RATE_TO_WARN_OF = 1e-2
"""In one dimension; the range of the data is left now and then by rollouts that are near its edge."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """`[h, b]` imagined steps; entries where `valid` is False mean nothing.

    Attributes:
        observation: `[h, b, obs_dim]`.
        action: `[h, b, act_dim]`.
        reward: `[h, b]`, the model's reward, unpenalised.
        uncertainty: `[h, b]`, in the measure's units; 0 without a measure.
        next_observation: `[h, b, obs_dim]`.
        next_action: `[h, b, act_dim]`, the policy's action at `next_observation`; the next step takes it.
        terminated: `[h, b]`.
        truncated: `[h, b]`, the rollout was cut here: at the last step, or by the uncertainty.
        valid: `[h, b]`; no valid step starts from a terminal state or follows a cut.
        flagged: `[h, b]`, steps whose uncertainty exceeded the threshold, stored or not.
        clipped: `[h, b, obs_dim + 1]`, what the box changed: coordinates of s', then the reward; constants of
            the data are not counted.
        non_finite: `[h, b]`, steps that were discarded because the model returned a NaN or an infinity.
    """

    observation: Float[Tensor, "h b obs_dim"]
    action: Float[Tensor, "h b act_dim"]
    reward: Float[Tensor, "h b"]
    uncertainty: Float[Tensor, "h b"]
    next_observation: Float[Tensor, "h b obs_dim"]
    next_action: Float[Tensor, "h b act_dim"]
    terminated: Bool[Tensor, "h b"]
    truncated: Bool[Tensor, "h b"]
    valid: Bool[Tensor, "h b"]
    flagged: Bool[Tensor, "h b"]
    clipped: Bool[Tensor, "h b k"]
    non_finite: Bool[Tensor, "h b"]

    @classmethod
    def join(cls, parts: "Sequence[Rollouts]") -> "Rollouts":
        """Rollouts of other rows side by side."""
        if len(parts) == 1:
            return parts[0]
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts], 1) for name in names})

    def transitions(self, reward: Float[Tensor, "h b"] | None = None) -> TransitionBatch:
        """The valid steps as one batch, step by step; with other rewards if given (penalised ones)."""
        # A mask over `[h, b]` puts all rows of a step before those of the next.
        keep = self.valid
        terminated = self.terminated[keep]
        return TransitionBatch(
            observation=self.observation[keep],
            action=self.action[keep],
            reward=(self.reward if reward is None else reward)[keep],
            next_observation=self.next_observation[keep],
            terminated=terminated,
            # Learners that treat logged and imagined rows differently
            # (CQL, MOBILE, distillation) go by this flag.
            from_model=torch.ones_like(terminated),
            next_action=self.next_action[keep],
            has_next_action=torch.ones_like(terminated),
        )


def rollout_metrics(rollouts: Rollouts) -> dict[str, Tensor]:
    """Means over the valid steps, how long rollouts lasted, and the share of steps that were flagged.

    The edge rate is the share of valid steps whose successor is met as a bootstrap target only: it neither
    ended the task nor became the start of a stored step (edge-of-reach states, Sims et al. 2024). The clip
    rate is that of the dimension, or of the reward, which the box changed most often.
    """
    valid, flagged = rollouts.valid, rollouts.flagged
    # Zeros instead of NaN where everything was dropped.
    count = valid.sum().clamp_min(1)

    def mean(values: Tensor) -> Tensor:
        # float64: a sum over hundreds of thousands of steps in float32 loses its last digits.
        return values[valid].double().sum() / count

    return {
        "rollout/length": valid.sum(0).double().mean(),
        "rollout/reward": mean(rollouts.reward),
        "rollout/uncertainty": mean(rollouts.uncertainty),
        "rollout/terminated_rate": mean(rollouts.terminated),
        "rollout/edge_rate": mean(_is_edge(rollouts)),
        # Dropped steps were flagged and are not valid: they belong to the whole as well.
        "rollout/flagged_rate": flagged.sum().double() / (valid | flagged).sum().clamp_min(1),
        "rollout/clip_rate": _clip_rates(rollouts).amax(),
        "rollout/non_finite": rollouts.non_finite.sum(),
    }


def _is_edge(rollouts: Rollouts) -> Bool[Tensor, "h b"]:
    """Steps whose successor bootstraps without ever being updated."""
    valid = rollouts.valid
    # A step is followed if the next one of its column is stored, and so starts from where this one leads.
    followed = torch.cat([valid[1:], torch.zeros_like(valid[:1])])
    return valid & ~rollouts.terminated & ~followed


def _clip_rates(rollouts: Rollouts) -> Float[Tensor, "k"]:
    """Share of the valid steps that the box changed, for each coordinate of s' and for the reward."""
    # Per dimension: one that always leaves its range would hardly show in a rate over all of them.
    counts = (rollouts.clipped & rollouts.valid[..., None]).sum((0, 1))
    return counts.double() / rollouts.valid.sum().clamp_min(1)


def warn_of_clipping(rollouts: Rollouts) -> None:
    """Warns where more than a hundredth of the steps left the range of the data in one dimension."""
    rate, index = _clip_rates(rollouts).max(-1)
    if float(rate) <= _CLIP_RATE_TO_WARN_OF:
        return
    obs_dim = rollouts.observation.shape[-1]
    what = "the reward" if int(index) == obs_dim else f"observation dimension {int(index)}"
    warnings.warn(
        f"{float(rate):.1%} of the imagined steps left the range of the data in {what} and were clipped: the "
        "rollouts leave what the model knows. Remedy: shorten rollout.horizon or raise penalty.coef.",
        RuntimeWarning,
        stacklevel=3,
    )


def refuse_non_finite(rollouts: Rollouts) -> None:
    """Refuses rollouts of a model that blows up; a few bad rows are marked invalid and let pass.

    Raises:
        NonFiniteError: more than 0.1 % of the imagined rows are NaN or infinite.
    """
    # The share counts, not the number: rare ones are left out, while a model that blows up would leave only
    # the short beginnings of rollouts, and with them another distribution of states.
    lost = int(rollouts.non_finite.sum())
    total = int(rollouts.valid.sum()) + lost
    if lost > _MAX_NON_FINITE_SHARE * total:
        raise NonFiniteError(
            f"{lost} of {total} imagined rows are NaN or infinite: the dynamics model blows up under this "
            "policy. Remedy: shorten rollout.horizon, set rollout.clip_to_data=true, or fit the model again."
        )
