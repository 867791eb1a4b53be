"""Importer of a QUBE-Servo rotary pendulum log (Dahdah and Forbes): 500 Hz rows to 50 Hz steps.

The state is `[theta, alpha, dtheta, dalpha]` (rad, rad/s), all of it causal: velocities are the mean over
the last 20 ms, since one encoder tick of 2 pi / 2048 rad within 2 ms would quantise them at 1.5 rad/s. The
action that drives step i is the plant input within `[i, i + 20 ms)`, divided by 10 V. Its mean is the
physical input. The command held at the instant i predicts better with a linear model, but only because the
500 Hz controller has seen a fresher velocity than the filtered one; that is information about the state,
not an effect of the action.

The logged reference of the arm moves within an episode. It is an observation by default, because the reward
`-(theta - target)^2 - 5 alpha^2 - 0.01 action^2` must be a function of state and action.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.formats.archive import load_archive
from mbrl.data.formats.base import only_file
from mbrl.data.formats.limits import reading
from mbrl.data.info import DatasetInfo

STEP_ROWS: Final = 10
"""Rows of 2 ms in one step of 20 ms."""

ROW_SECONDS: Final = 0.002
VOLTS: Final = 10.0
_KEYS: Final = ("obs", "act", "lengths", "obs_columns", "act_columns")


def load_quanser_qube(
    path: Path,
    *,
    target: Literal["observation", "origin"] = "observation",
    action: Literal["mean", "hold"] = "mean",
) -> Dataset:
    """Reads `quanser_qube.npz` as a 50 Hz dataset of truncated episodes.

    Args:
        path: the archive, or the folder that holds it.
        target: `observation` adds the logged reference of the arm as a fifth dimension; `origin` keeps the
            four dimensions of the machine and rewards regulation to `theta = 0` instead.
        action: the plant input of a step is its `mean` over the 20 ms, or the value at its start (`hold`).

    Raises:
        DataError: the archive is damaged or lacks a key or a column.
    """
    path = only_file(path, (".npz",)) or path
    with reading(path):
        return _read(path, target, action)


def _read(path: Path, target: Literal["observation", "origin"], action: Literal["mean", "hold"]) -> Dataset:
    arrays = load_archive(path)
    for key in _KEYS:
        if key not in arrays:
            raise DataError("the key is missing", file=path, field=key, remedy="Check the archive.")
    columns = {
        name: arrays[key][:, index].astype(np.float64)
        for key in ("obs", "act")
        for index, name in enumerate(str(column) for column in arrays[f"{key}_columns"])
    }
    for name in ("theta", "alpha", "target_theta", "plant_input"):
        if name not in columns:
            raise DataError(
                f"no such column; present: {sorted(columns)}", file=path, field=name, remedy="Check it."
            )
    stops = np.cumsum(arrays["lengths"])
    episodes = tuple(
        _episode({name: values[stop - length : stop] for name, values in columns.items()}, target, action)
        for length, stop in zip(arrays["lengths"], stops, strict=True)
    )
    names = ("theta", "alpha", "theta_velocity", "alpha_velocity")
    names += ("target_theta",) if target == "observation" else ()
    info = DatasetInfo(
        name="quanser_qube",
        time_step=STEP_ROWS * ROW_SECONDS,
        obs_names=names,
        act_names=("plant_input_per_10V",),
        provenance={
            "description": "Quanser QUBE-Servo rotary pendulum in closed loop, real machine",
            "source": "decargroup/closed_loop_koopman, MIT",
            "target": target,
            "action": action,
        },
    )
    spec = SpaceSpec(obs_dim=len(names), act_dim=1, act_low=(-1.0,), act_high=(1.0,))
    return Dataset(episodes=episodes, spec=spec, info=info)


def _episode(
    columns: Mapping[str, NDArray[np.float64]],
    target: Literal["observation", "origin"],
    action: Literal["mean", "hold"],
) -> Episode:
    """One run; its first 20 ms only serve the first velocities."""
    angles = np.stack([columns["theta"], columns["alpha"]], axis=1)
    rows = np.arange(STEP_ROWS, len(angles), STEP_ROWS)
    velocities = (angles[rows] - angles[rows - STEP_ROWS]) / (STEP_ROWS * ROW_SECONDS)
    voltage = columns["plant_input"]
    if action == "mean":
        sums = np.concatenate([[0.0], np.cumsum(voltage)])
        held = (sums[rows[1:]] - sums[rows[:-1]]) / STEP_ROWS
    else:
        held = voltage[rows[:-1]]
    actions = np.clip(held / VOLTS, -1.0, 1.0)[:, None]
    reference = columns["target_theta"][rows] if target == "observation" else np.zeros(len(rows))
    observations = np.concatenate([angles[rows], velocities, reference[:, None]], axis=1)
    error, alpha = (angles[rows, 0] - reference)[:-1], angles[rows[:-1], 1]
    rewards = -np.square(error) - 5.0 * np.square(alpha) - 0.01 * np.square(actions[:, 0])
    width = 5 if target == "observation" else 4
    return Episode(
        observations=np.ascontiguousarray(observations[:, :width], dtype=np.float32),
        actions=actions.astype(np.float32),
        rewards=rewards.astype(np.float32),
        terminated=False,
        truncated=True,
        timestamps=rows.astype(np.float64) * ROW_SECONDS,
    )
