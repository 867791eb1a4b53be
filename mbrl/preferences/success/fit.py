"""Fits a success classifier: logistic networks side by side, each on a resample of episodes.

Sources: rewards of classifiers of final states, Fu et al. 2018 (arXiv:1805.11686) and Singh et al. 2019
(arXiv:1904.07854); recalibration, Platt 1999, with the targets of his section 2.2.

Departures: labels are fixed (nothing is asked along a training), and members are recalibrated on the episodes
that their own resample left out, so that the held-out episodes judge a model that they did not shape.
"""

from typing import Annotated, Any, Final, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field
from scipy import optimize
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.preferences import logistic_loss
from mbrl.preferences.ensemble_fit import (
    EnsembleConfig,
    EnsembleFit,
    RewardFitState,
    left_out_means,
    resample,
)
from mbrl.preferences.reward_model import RewardEnsemble, RewardReads, RewardSpec
from mbrl.preferences.success.steps import Earlier, LabelledSteps, LastSteps

LEAST_EPISODES: Final = 2
"""Episodes with successful steps, and with failed ones, that a fit needs: to learn from, and to judge by."""

_WATCHED: Final = 4096
"""Most steps behind a look at the episodes that members left out."""

_SLOPES: Final = (1e-2, 1e2)
"""Range of the factor of recalibrated logits: a member that tells nothing keeps a positive one."""


class SuccessConfig(EnsembleConfig):
    """How a success classifier is fitted.

    Attributes:
        batch_size: steps of each member in an update.
        last_steps: of an episode that a label of the whole of it is about.
        earlier: what the steps before those are: `unknown` leaves them out, `failure` learns from them.
        reads: `states`, or `steps` for states and actions; a policy chooses its actions, and may choose those
            that look like success.
        unit: of the reward: the `probability` of success, 0 to 1, or its `log_odds`.
    """

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256
    last_steps: LastSteps = 1
    earlier: Earlier = "unknown"
    reads: RewardReads = "states"
    unit: Literal["probability", "log_odds"] = "probability"

    def spec(self, space: SpaceSpec) -> RewardSpec:
        """Of the network."""
        return RewardSpec(
            space, self.members, self.hidden, self.activation, self.layer_norm, self.reads, self.unit
        )


class SuccessFit(EnsembleFit):
    """The fit to labelled steps.

    Args:
        steps: that are labelled, those of held-out episodes included.
        config: of the fit.
        space: sizes and bounds of the log.
        normaliser: of its observations.
        rng: streams of the fit.

    Raises:
        DataError: labels are of one class, or of too few episodes of one.
    """

    def __init__(
        self,
        steps: LabelledSteps,
        config: SuccessConfig,
        space: SpaceSpec,
        normaliser: Normaliser,
        rng: RngStreams,
    ) -> None:
        super().__init__(config, space, normaliser, rng)
        self.config = config
        require_both(steps)
        train, holdout = split_episodes(steps, config.holdout, rng.at("holdout"))
        self.train, self.holdout = steps.take(train), steps.take(holdout)
        _require_judges(self.holdout)
        self._place = torch.from_numpy(np.unique(self.train.episode.numpy(), return_inverse=True)[1])
        count = int(self._place.max()) + 1
        draws, left_out = _resample_by_class(self.train, self._place, count, config.members, rng)
        self._left_out = left_out[:, self._place]
        by_episode = [(self._place == k).nonzero()[:, 0] for k in range(count)]
        drawn = cast("list[list[int]]", draws.tolist())
        self._draws = [torch.cat([by_episode[k] for k in row]) for row in drawn]
        order = torch.randperm(len(self.train), generator=rng.at("watched"))
        self._watched = order[:_WATCHED].sort().values

    def losses(self, model: RewardEnsemble, generator: torch.Generator) -> Float[Tensor, "e"]:
        """The logistic loss on steps of each member's resample of episodes."""
        size = (self.config.batch_size,)
        drawn = [rows[torch.randint(len(rows), size, generator=generator)] for rows in self._draws]
        index = torch.stack(drawn)
        rows = self.train.rows[index]
        logit = model.member_raw(self.train.observation[rows], self.train.action[rows])
        return logistic_loss(logit, self.train.target[index]).mean(1)

    @torch.no_grad()
    def left_out_losses(self, model: RewardEnsemble) -> Float[Tensor, "e"]:
        """The same on steps of episodes that each member never saw, of some thousand."""
        watched = self.train.take(self._watched)
        logit = model.raw(*watched.inputs())
        losses = logistic_loss(logit, watched.target.expand_as(logit))
        return left_out_means(losses, self._left_out[:, self._watched])

    def finish(self, state: RewardFitState) -> RewardEnsemble:
        """The model of each member's best look, recalibrated on what that member left out."""
        model = self.best(state)
        raw = model.log_odds(*self.train.inputs()).double().numpy()
        target, episode = self.train.target.double().numpy(), self._place.numpy()
        for member, left_out in enumerate(self._left_out.numpy()):
            # A member that left nothing out, of very few episodes, is recalibrated on all of them.
            chosen = left_out if left_out.any() else np.ones_like(left_out)
            slope, shift = recalibrate(raw[member][chosen], target[chosen], groups=episode[chosen])
            model.scale[member], model.offset[member] = 1.0 / slope, -shift / slope
        return model


def recalibrate(
    logit: NDArray[np.float64], target: NDArray[np.float64], *, groups: NDArray[np.int64]
) -> tuple[float, float]:
    """A > 0 and b that make `sigmoid(a x + b)` the likeliest (Platt 1999).

    Targets are drawn in as in his section 2.2, `(n+ + 1) / (n+ + 2)` for success and `1 / (n- + 2)` for
    failure: a few labels that x tells perfectly are no certainty. n counts groups, since the steps of an
    episode are no independent cases.

    Args:
        logit: `[n]`, x.
        target: `[n]`, probability of success.
        groups: `[n]`, of steps that depend on each other.
    """
    successes, failures = (len(np.unique(groups[side])) for side in (target > 0.5, target < 0.5))
    low, high = 1 / (failures + 2), (successes + 1) / (successes + 2)
    drawn_in = low + (high - low) * target

    score, wanted = torch.from_numpy(logit), torch.from_numpy(drawn_in)

    @torch.enable_grad()
    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope_and_shift = torch.tensor(parameters, requires_grad=True)
        slope, shift = slope_and_shift
        value = logistic_loss(slope * score + shift, wanted).mean()
        (gradient,) = torch.autograd.grad(value, slope_and_shift)
        return float(value.detach()), gradient.numpy()

    found = cast("Any", optimize.minimize)(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=(_SLOPES, (-50, 50))
    )
    slope, shift = cast("NDArray[np.float64]", found.x)
    return float(slope), float(shift)


def require_both(steps: LabelledSteps) -> None:
    """Refuses labels that a classifier cannot learn from.

    Raises:
        DataError: all steps are of one class, or one class is in a single episode.
    """
    sides = {"success": steps.target > 0.5, "failure": steps.target < 0.5}
    counts = {name: len(_distinct(steps.episode[side])) for name, side in sides.items()}
    for name, other in (("success", "failure"), ("failure", "success")):
        if counts[name] == 0:
            what = (
                "Label failures too, or take the steps before the last ones for failures: --set "
                "earlier=failure"
                if name == "failure"
                else "Label successes too"
            )
            raise DataError(
                f"all {len(steps)} labelled steps are {other}: there is nothing to tell apart",
                field="label",
                remedy=f"{what}.",
            )
        if counts[name] < LEAST_EPISODES:
            raise DataError(
                f"{name} was labelled in 1 episode alone; one to learn from and one to judge by are needed",
                field="label",
                remedy=f"Label {name} in more episodes.",
            )


def _require_judges(holdout: LabelledSteps) -> None:
    if not bool((holdout.target > 0.5).any() and (holdout.target < 0.5).any()):
        raise DataError(
            "there are too few labelled episodes to hold out some with successes and some with failures",
            field="label",
            remedy="Label two episodes or more that are all success, and two that are all failure.",
        )


def split_episodes(
    steps: LabelledSteps, share: float, generator: torch.Generator
) -> tuple[Int[Tensor, "n"], Int[Tensor, "m"]]:
    """Labelled steps to learn from and to judge by; an episode stays on one side.

    Of the episodes with a success the same share is held out as of those without, so that both sides have
    both classes.
    """
    held: list[Tensor] = []
    for part in _by_class(steps.target, steps.episode):
        # A lone episode is learned from: the others of its class hold steps of both.
        count = min(max(1, round(share * len(part))), len(part) - 1)
        held.append(part[torch.randperm(len(part), generator=generator)[:count]])
    is_held = torch.isin(steps.episode, torch.cat(held))
    return (~is_held).nonzero()[:, 0], is_held.nonzero()[:, 0]


def _by_class(target: Float[Tensor, "n"], episode: Int[Tensor, "n"]) -> list[Int[Tensor, "k"]]:
    """Episodes by the classes that they hold: a success alone, a failure alone, both; none is empty."""
    success, failure = _distinct(episode[target > 0.5]), _distinct(episode[target < 0.5])
    both = success[torch.isin(success, failure)]
    parts = [success[~torch.isin(success, both)], failure[~torch.isin(failure, both)], both]
    undecided = _distinct(episode[~torch.isin(episode, torch.cat(parts))])
    return [part for part in [*parts, undecided] if len(part)]


def _distinct(values: Int[Tensor, "n"]) -> Int[Tensor, "k"]:
    return torch.from_numpy(np.unique(values.numpy()))


def _resample_by_class(
    train: LabelledSteps, place: Int[Tensor, "n"], count: int, members: int, rng: RngStreams
) -> tuple[Int[Tensor, "e k"], Tensor]:
    """Episodes that each member draws from, and which it never sees; every member sees every class."""
    draws: list[Tensor] = []
    left_out = torch.zeros(members, count, dtype=torch.bool)
    for index, part in enumerate(_by_class(train.target, place)):
        chosen, is_out = resample(len(part), members, rng.at("bootstrap", index))
        draws.append(part[chosen])
        left_out[:, part] = is_out
    return torch.cat(draws, 1), left_out
