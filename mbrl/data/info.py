"""What is known of a dataset besides its arrays."""

import dataclasses
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from mbrl.core.errors import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Description of a dataset; never part of its content hash.

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

    def to_json(self) -> str:
        """One JSON object."""
        return TypeAdapter(DatasetInfo).dump_json(self).decode()

    @staticmethod
    def from_json(text: str, *, file: object) -> "DatasetInfo":
        """Inverse of `to_json`.

        Raises:
            DataError: `text` does not describe a dataset.
        """
        try:
            return TypeAdapter(DatasetInfo).validate_json(text)
        except ValidationError as error:
            raise DataError(
                f"not a description of a dataset ({error})", file=file, field="info", remedy="Write it anew."
            ) from error
