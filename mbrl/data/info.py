"""What is known of a dataset besides its arrays."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import TypeAdapter, ValidationError

from mbrl.core.errors import DataError
from mbrl.core.history import History
from mbrl.core.types import SpaceSpec

MAX_NAME: Final = 255
"""Longest name of a dataset, a task or a dimension; longer ones fit neither a file name nor a page."""

MAX_TEXT: Final = 1_000_000
"""Longest JSON of an `info`."""


MAKING: Final = ("schema", "reward_rule", "termination_rule", "derived_from", "history")
"""Fields of `DatasetInfo` that its content hash covers."""


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Description of a dataset; of all this, its content hash covers what says how it was made (`making`).

    Attributes:
        name: dataset id, such as `hopper/medium-v0`, or the file's stem.
        task: id of a known task, such as `hopper`, where the file names one; None without a simulator.
        env_id: Gymnasium id of the simulator that made it, or None.
        max_episode_steps: time limit of the task, steps, or None.
        ref_min_score: episode return that is normalised to 0, or None.
        ref_max_score: episode return that is normalised to 100, or None.
        time_step: seconds between observations, or None.
        obs_names: names of the observation dimensions, or None.
        act_names: names of the action dimensions, or None.
        provenance: package versions, algorithm, description, and notes on what had to be assumed.
        schema: JSON of the import schema that made it, defaults written out; None for others.
        reward_rule: expression of the reward over `obs_names`, `act_names` and the observations after the
            step, `next_<name>`, in the language of `mbrl.data.expressions`; None where the reward is no
            function of these, or nobody said which.
        termination_rule: condition under which a step ends the task, likewise.
        derived_from: content hash of the dataset that this one was relabelled or stacked from, or None.
        history: past frames and actions that an observation holds; None where it is a single frame.
    """

    name: str
    task: str | None = None
    env_id: str | None = None
    max_episode_steps: int | None = None
    ref_min_score: float | None = None
    ref_max_score: float | None = None
    time_step: float | None = None
    obs_names: tuple[str, ...] | None = None
    act_names: tuple[str, ...] | None = None
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    schema: str | None = None
    reward_rule: str | None = None
    termination_rule: str | None = None
    derived_from: str | None = None
    history: History | None = None

    @property
    def making(self) -> dict[str, str]:
        """What says how the arrays came about, by name; empty for a log that says nothing of it."""
        values = {name: getattr(self, name) for name in MAKING}
        if self.history is not None:
            values["history"] = json.dumps(dataclasses.asdict(self.history))
        return {name: value for name, value in values.items() if value is not None}

    def to_json(self) -> str:
        """One JSON object."""
        return TypeAdapter(DatasetInfo).dump_json(self).decode()

    @staticmethod
    def from_json(text: str, *, file: object) -> "DatasetInfo":
        """Inverse of `to_json`.

        Raises:
            DataError: `text` does not describe a dataset.
        """
        report = functools.partial(
            DataError,
            file=file,
            field="info",
            remedy="Write what DatasetInfo.to_json gives, or leave it out.",
        )
        if len(text) > MAX_TEXT:
            raise report(f"{len(text):,} characters, where {MAX_TEXT:,} are the most")
        try:
            return TypeAdapter(DatasetInfo).validate_json(text)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, entry['loc'])) or 'text'}: {entry['msg']}"[:200]
                for entry in error.errors(include_url=False, include_context=False, include_input=False)
            ]
            raise report(f"not a description of a dataset ({'; '.join(problems[:5])})") from error


def info_problems(info: DatasetInfo, spec: SpaceSpec, *, file: object | None = None) -> Iterator[DataError]:
    """Yields what is wrong with a description, or contradicts the sizes of the dataset."""
    report = functools.partial(DataError, file=file)
    for field in ("name", "task", "env_id"):
        name: str | None = getattr(info, field)
        if name is not None and not is_name(name):
            yield report(
                _name_problem(name), field=field, remedy=f"Give a name of 1 to {MAX_NAME} characters."
            )
    for field, size in (("obs_names", spec.obs_dim), ("act_names", spec.act_dim)):
        names: tuple[str, ...] | None = getattr(info, field)
        if names is not None and len(names) != size:
            yield report(
                f"{len(names)} names for {size} dimensions",
                field=field,
                remedy="Give one name per dimension.",
            )
        elif names is not None and not all(map(is_name, names)):
            bad = next(name for name in names if not is_name(name))
            yield report(_name_problem(bad), field=field, remedy=f"Give names of 1 to {MAX_NAME} characters.")
    if info.time_step is not None and not (math.isfinite(info.time_step) and info.time_step > 0):
        yield report(
            f"{info.time_step} s between observations",
            field="time_step",
            remedy="Give the seconds between two observations, or leave it out.",
        )
    if info.max_episode_steps is not None and not 1 <= info.max_episode_steps <= 10**9:
        yield report(
            f"a time limit of {info.max_episode_steps} steps",
            field="max_episode_steps",
            remedy="Give the steps after which an episode is cut, or leave it out.",
        )
    yield from _history_problems(info, spec, report)
    yield from _score_problems(info, report)


def _history_problems(
    info: DatasetInfo, spec: SpaceSpec, report: functools.partial[DataError]
) -> Iterator[DataError]:
    if info.history is not None:
        try:
            info.history.frame_dim(spec.obs_dim, spec.act_dim)
        except ValueError as error:
            remedy = "Give the frames and past actions that an observation holds, or leave it out."
            yield report(str(error), field="history", remedy=remedy)


def _score_problems(info: DatasetInfo, report: functools.partial[DataError]) -> Iterator[DataError]:
    low, high = info.ref_min_score, info.ref_max_score
    is_finite = all(score is None or math.isfinite(score) for score in (low, high))
    if not is_finite or (low is not None and high is not None and low >= high):
        yield report(
            f"ref_min_score {low} and ref_max_score {high}",
            field="ref_min_score",
            remedy="Give the return that counts as 0 below the one that counts as 100, or leave both out.",
        )


def is_name(text: str) -> bool:
    """Whether `text` is short and printable enough to be shown and to name a folder."""
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def _name_problem(text: str) -> str:
    if len(text) > MAX_NAME:
        return f"a name of {len(text):,} characters ({text[:20]!r}...)"
    return f"the name {text!r} is empty or cannot be printed"
