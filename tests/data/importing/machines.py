"""A driven pendulum, and the ways in which strangers write its log."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def swing(rows: int, step: float, seed: int) -> dict[str, NDArray[np.float64]]:
    """Angle, velocity and command of a driven pendulum, `[rows]` each."""
    rng = np.random.default_rng(seed)
    angle, velocity, command = (np.zeros(rows) for _ in range(3))
    x, v, u = 0.3, 0.0, 0.0
    for k in range(rows):
        if k % 5 == 0:
            u = float(np.clip(np.sin(2.1 * k * step) + 0.5 * rng.standard_normal(), -1, 1))
        angle[k], velocity[k], command[k] = x, v, u
        v += step * (-4 * np.sin(x) - 0.3 * v + 6 * u)
        x += step * v
    return {"t": step * np.arange(rows), "angle": angle, "velocity": velocity, "command": command}


def write_csv(
    path: Path, columns: Mapping[str, NDArray[np.float64]], *, delimiter: str = ",", decimal: str = "."
) -> Path:
    """Columns as text of six digits; whole numbers as such."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def text(value: float) -> str:
        return (str(int(value)) if value == int(value) else f"{value:.6f}").replace(".", decimal)

    rows = zip(*columns.values(), strict=True)
    lines = [delimiter.join(columns), *(delimiter.join(map(text, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="latin-1")
    return path


def german(folder: Path) -> Path:
    """Semicolons, decimal commas, names in German."""
    names = {"t": "Zeit", "angle": "Winkel", "velocity": "Geschwindigkeit", "command": "Spannung"}
    for run in range(3):
        log = {names[name]: values for name, values in swing(1500, 0.01, run).items()}
        write_csv(folder / f"messung{run}.csv", log, delimiter=";", decimal=",")
    return folder


def epochal(folder: Path) -> Path:
    """Milliseconds since 1970, set back once; a wrapped angle; no velocity."""
    first, second = swing(800, 0.02, 0), swing(800, 0.02, 1)
    stamps = np.concatenate(
        [1_700_000_000_000 + 20.0 * np.arange(800), 1_699_000_000_000 + 20.0 * np.arange(800)]
    )
    angle = np.concatenate([first["angle"], second["angle"]])
    log = {
        "timestamp": stamps,
        "angle": (angle + np.pi) % (2 * np.pi) - np.pi,
        "cmd": np.concatenate([first["command"], second["command"]]),
    }
    write_csv(folder / "log.csv", log)
    return folder


def scattered(folder: Path) -> Path:
    """One file for each signal, at 200, 100 and 50 Hz."""
    log = swing(3000, 0.005, 2)
    for name, column, every in (("pos", "angle", 1), ("speed", "velocity", 2), ("cmd", "command", 4)):
        parts = {"time": log["t"][::every], "value": log[column][::every]}
        write_csv(folder / f"run1_{name}.csv", parts)
    return folder
