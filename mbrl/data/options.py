"""What a load may repair or drop, on request; everything else that is wrong is an error."""

import dataclasses
import functools
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mbrl.core.choices import MAX_CHOICES, MAX_INTEGERS, StatedChoices, stated_names
from mbrl.core.errors import DataError

Bound = Annotated[float, Field(allow_inf_nan=False)]
_Choices: TypeAlias = (
    Annotated[int, Field(ge=1, le=MAX_CHOICES, strict=True)]
    | Annotated[
        tuple[Annotated[int, Field(ge=1, strict=True)], ...], Field(min_length=1, max_length=MAX_INTEGERS)
    ]
    | Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_CHOICES)]
)


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
        choices: actions are choices, told by ids or labels: how many (the ids 0 to n - 1), the sizes of
            several integers that make a choice together, or names; 1,024 at most. None takes them from the
            file; else labels, and integers without bounds, of 64 values at most are choices.
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
    choices: _Choices | None = None

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

    @model_validator(mode="after")
    def _actions_are_of_one_kind(self) -> "LoadOptions":
        if self.choices is not None:
            if self.action_low is not None:
                raise ValueError(
                    "actions have bounds or are choices: give action_low and action_high, or choices"
                )
            stated_names(self.choices)  # raises where they are too many, or named twice
        return self


def with_choices(options: LoadOptions | None, choices: StatedChoices | None) -> LoadOptions | None:
    """Options that state choices besides.

    Raises:
        DataError: they are none, or the options have bounds or other choices.
    """
    if choices is None:
        return options
    stated = choices if isinstance(choices, int) else tuple(choices)
    report = functools.partial(DataError, field="choices", remedy="Give a count, sizes, or 1 to 1,024 names.")
    if options is not None and options.choices not in (None, stated):
        raise report(f"the options state {options.choices}, the argument {stated}")
    given: dict[str, Any] = {} if options is None else options.model_dump()
    try:
        return LoadOptions.model_validate({**given, "choices": stated})
    except ValidationError as error:
        raise report(str(error.errors()[0]["msg"])) from error


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What opens a dataset again.

    Attributes:
        source: path, `minari:<id>` or name of a bundled dataset; several of them for a merged one.
        options: of the load, the same for all.
    """

    source: str | tuple[str, ...]
    options: LoadOptions
