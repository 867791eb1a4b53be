"""What a user may choose about judges: how many are fitted, and how they are asked."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

BoundRule: TypeAlias = Literal["lower_bound", "mean", "least_member"]
Draws: TypeAlias = Literal["auto", "mean", "sample"]


class JudgesConfig(BaseModel):
    """Dynamics ensembles that never train a policy, and the question that they are asked.

    They have the networks of the run's `dynamics` section, seeds of their own and other episodes held out.
    All policies of a log share them.

    Attributes:
        count: ensembles; 0 for none.
        max_updates: most gradient steps of each fit; None lets them follow the data
            (`mbrl.dynamics.config.default_updates`), whatever `dynamics.max_updates` says: a judge that was
            stopped early ranks policies, but does not measure them.
        starts: most logged first states that every member starts from.
        horizon: steps of an episode; None takes that of the log's task.
        discount: of the return; 1 for what people report.
        draws: `mean` follows each member's mean prediction, `sample` draws from its Gaussian; `auto` takes
            what comes nearer to the log's own returns when a clone of its behaviour is judged.
        termination: who ends an imagined episode: `task`, its known rule, `learned`, the fit's head, or
            `never`; `auto` takes the rule where there is one.
        box_margin: by which an imagined state may leave the range of the data, in widths of that range; null
            for no limit.
        rule: what selects: `lower_bound`, `mean` over members and starts, or `least_member`.
        pessimism: kappa of the lower bound, see `mbrl.off_policy.value.judged`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=0, le=20)] = 2
    max_updates: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    starts: Annotated[int, Field(ge=2, le=100_000)] = 100
    horizon: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    draws: Draws = "auto"
    termination: Literal["auto", "learned", "task", "never"] = "auto"
    box_margin: Annotated[float, Field(ge=0, le=1000)] | None = 1.0
    rule: BoundRule = "lower_bound"
    pessimism: Annotated[float, Field(ge=0, le=100)] = 1.0
