"""How imagination runs, as settings."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

MemberChoice: TypeAlias = Literal["per_step", "per_row"]
FlaggedRows: TypeAlias = Literal["keep", "drop", "halt"]
StartStates: TypeAlias = Literal["any", "initial"]
TerminationMode: TypeAlias = Literal["sample", "threshold"]


class RolloutConfig(BaseModel):
    """How imagination runs.

    Attributes:
        horizon: h, steps of a rollout.
        starts: B, rollouts of one refresh, each from a uniformly drawn state of the training data.
        start_states: `any` starts from every logged observation, `initial` from the first ones of episodes.
        respect_trusted_horizon: shorten `horizon` to the model's trusted horizon.
        member_choice: `per_step` draws a new elite for each row and step (TS1), `per_row` keeps one (TS-inf).
        truncation_quantile: stop a rollout where the uncertainty exceeds this quantile of it on the data;
            None never stops.
        truncation_divisor: c, that threshold is divided by it: above 1 stops earlier, below 1 later.
        flagged: what becomes of the row that exceeds it: `keep` stores it and stops, `drop` stops before it,
            `halt` stores it as terminated with `halt_reward` (MOReL).
        halt_reward: reward of halted rows, return units, since nothing follows; None is the least value that
            the logged rewards permit, `min(r_min, 0) / (1 - discount)`, so that halting never pays; r_min is
            the least logged reward that is no outlier.
        termination: `sample` draws from the predicted probability, `threshold` terminates from 0.5 on.
        clip_to_data: clip imagined observations and rewards to the range of the data; the clip rate is
            logged, and a rate above 1 % in any dimension is warned of.
        chunk: rows that go through the model together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    horizon: Annotated[int, Field(ge=1, le=1000)] = 5
    starts: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    start_states: StartStates = "any"
    respect_trusted_horizon: bool = True
    member_choice: MemberChoice = "per_step"
    truncation_quantile: Annotated[float | None, Field(gt=0, le=1)] = 0.99
    truncation_divisor: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    flagged: FlaggedRows = "keep"
    halt_reward: Annotated[float | None, Field(ge=-1e9, le=1e9)] = None
    termination: TerminationMode = "sample"
    clip_to_data: bool = False
    chunk: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
