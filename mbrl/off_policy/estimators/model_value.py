"""Roll-outs of a dynamics ensemble as an estimator; `mbrl.off_policy.value.model_value` makes them."""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from mbrl.core.estimates import Estimate, Flag
from mbrl.off_policy.estimators.base import refused, register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.value.evaluation_model import EvaluationModel, TailValue
from mbrl.off_policy.value.exact_value import exact_model_value, tables_of
from mbrl.off_policy.value.fqe_result import FQEResult
from mbrl.off_policy.value.model_value import model_value
from mbrl.rollouts.generate import Box

_NO_MODEL: Final = (
    "No dynamics model was given. Remedy: let judges be fitted (mbrl ope --judges 2), or pass a fit "
    "(--dynamics RUN)."
)


@register_estimator("model_value", family="model", is_primary=True, is_tested=True)
def estimate_model_value(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Roll-outs of a dynamics ensemble; the primary estimate of the model family.

    Tables of discrete states are solved exactly in the place of roll-outs (`exact_model_value`).
    Without a model it refuses; one in which the policy was trained is flagged. Fitted values stand for what
    the roll-outs leave out. The noise of the roll-outs comes from the generator as it is handed in: policies
    that are given equal ones meet the same draws.
    """
    settings, data = context.settings, context.dataset
    model, estimand = settings.model, settings.estimand
    if model is None:
        return refused("model_value", "model", estimand, _NO_MODEL)
    # The seed comes first: it must not depend on whether the values were fitted before.
    seed = int(torch.randint(2**62, (), generator=generator))
    critics = context.fit_values(generator)
    reference = critics.estimate()
    starts = torch.from_numpy(np.stack([episode.observations[0] for episode in data.episodes]))
    tables = tables_of(model.dynamics)
    if tables is not None:
        steps = settings.rollouts.steps(estimand)
        found = exact_model_value(model, tables, context.policy, starts, estimand=estimand, steps=steps)
        return _judged(found.estimate(reference if reference.valid else None), model, data.content_hash)
    found = model_value(
        model,
        context.policy,
        starts,
        estimand=estimand,
        box=model.box or Box.around(data.transitions().to_batch(), margin=settings.rollouts.box_margin),
        config=settings.rollouts,
        seed=seed,
        tail=_fitted_tail(critics) if np.isfinite(reference.point) else None,
    )
    # A valid fitted value is a witness against the model; an invalid one may still stand for its tails.
    estimate = found.estimate(reference if reference.valid else None)
    if found.tail_share > 0 and not reference.valid:
        estimate = estimate.flagged(Flag.UNRELIABLE_TAIL)
    return _judged(estimate, model, data.content_hash)


def _judged(estimate: Estimate, model: EvaluationModel, content: str) -> Estimate:
    """With what is known of where the model comes from; `content` is the hash of the log."""
    if model.is_own:
        estimate = estimate.flagged(Flag.OWN_MODEL)
    if model.dataset_hash not in {"", content}:
        estimate = estimate.flagged(Flag.MODEL_OF_OTHER_DATA)
    return estimate


def _fitted_tail(critics: FQEResult) -> TailValue:
    def tail(obs: Tensor, action: Tensor, to_go: int | None) -> Tensor:
        clock = None if to_go is None else torch.full((len(obs),), to_go)
        return critics.values.action_value(obs, action, clock).mean(0)

    return tail
