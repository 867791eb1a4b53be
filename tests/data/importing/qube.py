"""All 48 runs of the QUBE pendulum, shared as one archive, through the schema that reads its csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mbrl
from mbrl.data.dataset import Dataset


def import_qube(shared_data: Path, folder: Path, overrides: Sequence[Any] = ()) -> Dataset:
    """Writes each run as a Parquet file of the columns of the csv files, and imports them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    archive = np.load(shared_data / "real" / "quanser_qube" / "quanser_qube.npz")
    columns = {"t": archive["t"]} | {
        str(name): archive[key][:, k].astype(np.float64)
        for key in ("obs", "act")
        for k, name in enumerate(archive[f"{key}_columns"])
    }
    stops = np.cumsum(archive["lengths"])
    files: list[Path] = []
    for run, (stop, length) in enumerate(zip(stops, archive["lengths"], strict=True)):
        rows = {name: values[stop - length : stop] for name, values in columns.items()}
        files.append(folder / f"run{run:02d}.parquet")
        pq.write_table(pa.table(rows), files[-1])
    return mbrl.import_log("quanser_qube", files, overrides=overrides).log
