"""Everything that a fit says about itself, as numbers; figures are drawn from it elsewhere."""

from pydantic import BaseModel, ConfigDict


class DynamicsReport(BaseModel):
    """How a model was fitted and how far it can be trusted.

    Attributes:
        train_rows: rows that it was fitted on.
        holdout_rows: rows that it is judged on, from other episodes.
        updates: gradient steps.
        member_holdout_mse: each member's least holdout error of the mean, normalised units.
        elites: the members that were kept, those with the least error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_rows: int
    holdout_rows: int
    updates: int
    member_holdout_mse: tuple[float, ...]
    elites: tuple[int, ...]
