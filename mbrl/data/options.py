"""What a load may repair or drop, on request; everything else that is wrong is an error."""

import dataclasses
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Bound = Annotated[float, Field(allow_inf_nan=False)]


class LoadOptions(BaseModel):
    """How to read a log.

    The defaults repair nothing; whatever an option changes is counted in `Dataset.dropped`.

    Attributes:
        overlap: a step with both flags set is an `error`, or counts as `terminated` (the task ended: no
            bootstrap) or as `truncated` (a time limit cut it, and the log marked it as done too).
        dones: rows marked by a flag named `done`, which says that something ended but not what, are an
            `error`; or the task ended there (`terminated`: no bootstrap), or recordings were only cut there
            (`truncated`), or those of `max_episode_steps` steps were cut and in the others the task ended
            (`limit`).
        actions: actions beyond the bounds are an `error`, or are moved to the bound (`clip`).
        final_observation: T observations for T actions are an `error`, or (`repair`) the last step of a
            truncated episode is dropped and that of a terminated one keeps an unknown successor.
        bad_episodes: an episode that fails a check is an `error`, or is left out (`drop`).
        order: `check` refuses rows that do not follow from each other (shuffled, or of several machines in
            turn); `trust` takes them as they stand.
        behaviour: `read` the logged behaviour log-probabilities, or `ignore` them.
        rewards: `read` the logged rewards, or `ignore` them: the log has none, or others are to be given.
        infos: keep `all` further arrays, or `none`.
        obs_keys: parts of an observation to be kept, in this order, where a format stores several by name;
            None keeps all vectors of numbers.
        history: frames that an observation is to hold, with the actions between them (`with_history`); `auto`
            lets held-out episodes choose. None leaves observations as they are.
        max_episode_steps: time limit, for flat logs without a time-out flag; None where the log has its own.
        action_low: lower bounds of the actions, one per dimension; None takes them from the file.
        action_high: upper bounds of the actions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap: Literal["error", "terminated", "truncated"] = "error"
    dones: Literal["error", "terminated", "truncated", "limit"] = "error"
    actions: Literal["error", "clip"] = "error"
    final_observation: Literal["error", "repair"] = "error"
    bad_episodes: Literal["error", "drop"] = "error"
    order: Literal["check", "trust"] = "check"
    behaviour: Literal["read", "ignore"] = "read"
    rewards: Literal["read", "ignore"] = "read"
    infos: Literal["all", "none"] = "all"
    obs_keys: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    history: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] | None = None
    max_episode_steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    action_low: tuple[Bound, ...] | None = None
    action_high: tuple[Bound, ...] | None = None

    @model_validator(mode="after")
    def _limit_is_known(self) -> "LoadOptions":
        if self.dones == "limit" and self.max_episode_steps is None:
            raise ValueError("dones=limit needs max_episode_steps, the steps after which episodes are cut")
        return self

    @model_validator(mode="after")
    def _bounds_agree(self) -> "LoadOptions":
        low, high = self.action_low, self.action_high
        if (low is None) != (high is None):
            raise ValueError("action_low and action_high must be given together")
        if low is not None and high is not None:
            if len(low) != len(high):
                raise ValueError(f"action_low has {len(low)} entries, action_high {len(high)}")
            if not all(a < b for a, b in zip(low, high, strict=True)):
                raise ValueError(f"every action_low must lie below its action_high: {low}, {high}")
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What opens a dataset again.

    Attributes:
        source: path, `minari:<id>` or name of a bundled dataset.
        options: of the load.
    """

    source: str
    options: LoadOptions
