"""The arrays beside an evaluation's JSON: what a comparison with other policies on the same log needs."""

import dataclasses
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.data.dataset import Dataset
from mbrl.data.formats.limits import ReadBudget, reading
from mbrl.off_policy.judgement.paired import Evidence, evidence_of, rollouts_of
from mbrl.off_policy.log.layout import Array, OPEArrays, pad_log
from mbrl.run.files import write_bytes

EVIDENCE_FILE: Final = "ope.npz"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StoredEvidence:
    """Of one policy.

    Attributes:
        by_estimator: influence values and members.
        log_ratio: `[n, T]`, padded; None without ratios.
        rollouts: `[2, m, n]`, returns of model roll-outs and whether they terminated; None without them.
        actions: `[k, d]`, what the policy does in some logged states (`comparable_actions`); None if unknown.
        tail: `[n]`, fitted value of the state in which each episode was cut; None where none was.
    """

    by_estimator: Mapping[str, Evidence]
    log_ratio: Array | None = None
    rollouts: Array | None = None
    actions: Array | None = None
    tail: Array | None = None

    @classmethod
    def of(
        cls, estimates: Mapping[str, Estimate], arrays: OPEArrays | str, actions: Array
    ) -> "StoredEvidence":
        """What the estimates rest on."""
        model = estimates.get("model_value")
        has_ratios = not isinstance(arrays, str)
        return cls(
            evidence_of(estimates),
            arrays.log_ratio if has_ratios else None,
            None if model is None else rollouts_of(model),
            actions,
            arrays.tail if has_ratios and arrays.truncated.any() else None,
        )

    def save(self, path: Path) -> None:
        """One compressed file, whole or absent."""
        entries: dict[str, Array] = {}
        for name, evidence in self.by_estimator.items():
            entries[f"per_episode/{name}"] = evidence.per_episode
            if evidence.members is not None:
                entries[f"members/{name}"] = evidence.members
        for name in ("log_ratio", "tail", "rollouts", "actions"):
            array = getattr(self, name)
            if array is not None:
                entries[name] = array
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **entries)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "StoredEvidence":
        """Inverse of `save`.

        Raises:
            DataError: the file is damaged, or its arrays do not belong to the same episodes.
        """
        arrays = _read_arrays(path)
        prefix = "per_episode/"
        names = [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]
        return cls(
            {n: Evidence(arrays[prefix + n], arrays.get(f"members/{n}")) for n in names},
            arrays.get("log_ratio"),
            arrays.get("rollouts"),
            arrays.get("actions"),
            arrays.get("tail"),
        )

    def arrays(self, dataset: Dataset, estimand: Estimand) -> OPEArrays | None:
        """The log with these ratios; None without them."""
        if self.log_ratio is None:
            return None
        plain = pad_log(dataset.episodes, None, estimand=estimand)
        value = plain.value.copy()
        if self.tail is not None:
            value[np.arange(len(plain)), plain.length] = self.tail
        return dataclasses.replace(plain, log_ratio=self.log_ratio, value=value)


_DIMS: Final = {"per_episode": 1, "members": 1, "log_ratio": 2, "tail": 1, "rollouts": 3, "actions": 2}
"""Dimensions of the arrays, by the first part of their names."""


_BY_START: Final = "per_episode/model_value"
"""Roll-outs may start from a part of the first states (`ModelValueConfig.max_starts`)."""


def _read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file, held against its size before they are read, and against one another."""
    remedy = "Delete its folder, and run mbrl ope again."
    with reading(path):
        budget = ReadBudget(path)
        with zipfile.ZipFile(path) as archive:
            budget.take(sum(entry.file_size for entry in archive.infolist()), field="arrays")
        with np.load(path, allow_pickle=False) as entries:
            arrays: dict[str, Array] = {name: entries[name] for name in entries.files}
    for name, array in arrays.items():
        if _DIMS.get(name.partition("/")[0]) != array.ndim or array.dtype.kind != "f":
            problem = f"an array of {array.dtype} {list(array.shape)}"
            raise DataError(problem, file=path, field=name[:60], remedy=remedy)
    by_episode = {
        name: array
        for name, array in arrays.items()
        if name.startswith(("per_episode/", "log_ratio", "tail")) and name != _BY_START
    }
    lengths = set(map(len, by_episode.values()))
    if len(lengths) > 1:
        problem = f"its arrays have {', '.join(map(str, sorted(lengths)))} episodes"
        raise DataError(problem, file=path, remedy=remedy)
    return arrays
