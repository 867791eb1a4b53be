"""Hyper-parameters of fitted Q evaluation."""

import math
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.estimates import Estimand

POLYAK_LIMITS: Final = (0.005, 0.1)
"""Least and largest share of the networks that enters the target networks where none is given."""

_CROSSING_UPDATES: Final = 50_000
"""Updates in which a value crosses a long horizon: half of the default."""


class FQEConfig(BaseModel):
    """Fitted Q evaluation.

    Attributes:
        members: K, regressions; their spread needs at least 5.
        hidden: widths of the hidden layers; none is a linear function.
        layer_norm: LayerNorm in the hidden layers.
        learning_rate: AdamW step size.
        weight_decay: of AdamW.
        batch_size: rows of each member in an update.
        updates: gradient steps (DOPE runs a million).
        polyak_tau: share of the networks that enters the target networks in an update; None takes what
            the horizon asks for (`polyak_share`).
        action_samples: draws of a stochastic policy at each state; a deterministic one needs one.
        loss: `mse`; `huber` regresses to something other than the mean and makes the result invalid.
        clip_targets: clip targets to what the logged rewards permit.
        bootstrap: each member sees its own resample of the episodes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    members: Annotated[int, Field(ge=5, le=100)] = 5
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=12)] = (256, 256)
    layer_norm: bool = True
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-5
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256
    updates: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    polyak_tau: Annotated[float, Field(gt=0, le=1)] | None = None
    action_samples: Annotated[int, Field(ge=10, le=1000)] = 10
    loss: Literal["mse", "huber"] = "mse"
    clip_targets: bool = True
    bootstrap: bool = True

    def least_updates(self, estimand: Estimand) -> int:
        """Updates below which standing still proves nothing: the discounted steps of the horizon over tau.

        Target networks need `1 / polyak_tau` updates to follow, and carry a value one step further each time.
        """
        return round(_steps(estimand) / self.polyak_share(estimand))

    def polyak_share(self, estimand: Estimand) -> float:
        """`polyak_tau`, or what is taken in its place: `sum_t discount^t / 50,000`, within `POLYAK_LIMITS`.

        A long horizon needs target networks that follow sooner: at 0.005 a value takes 200,000 updates to
        cross 1,000 steps. What is taken lets it cross twice in the default number of updates. It does not
        depend on how many are made: a short fit would else seem to have settled.
        """
        if self.polyak_tau is not None:
            return self.polyak_tau
        low, high = POLYAK_LIMITS
        return min(max(_steps(estimand) / _CROSSING_UPDATES, low), high)


def _steps(estimand: Estimand) -> float:
    """Discounted steps; 1 where they are endless because every episode surely ends: no horizon is known."""
    return estimand.weight_sum if math.isfinite(estimand.weight_sum) else 1.0
