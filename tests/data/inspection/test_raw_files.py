"""Raw files as they lie there: what an import would refuse is read and found."""

from pathlib import Path

import numpy as np
import pytest

import mbrl
from mbrl.core.errors import ConfigError, DataError
from mbrl.data.importing.schema import ImportSchema
from mbrl.data.inspection.raw_files import read_record
from tests.data.inspection.records import STEP, oscillator

SCHEMA = {
    "name": "toy",
    "time": {"column": "t"},
    "observations": [{"column": "pos", "name": "x", "scale": 2.0}, "vel"],
    "actions": ["cmd"],
}


def write(
    path: Path, *, seed: int = 0, rows: int = 300, time: np.ndarray | None = None, header: str = ""
) -> Path:
    values = oscillator(rows, seed)
    stamps = STEP * np.arange(rows) if time is None else time
    lines = [header or "t,pos,vel,cmd"]
    lines += [
        f"{t:.6g},{x:.9g},{v:.9g},{'' if np.isnan(u) else format(u, '.9g')}"
        for t, (x, v, u) in zip(stamps, values, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_names_roles_and_scales_are_those_of_the_schema(tmp_path: Path):
    write(tmp_path / "a.csv")
    record, schema = read_record([tmp_path], ImportSchema.model_validate(SCHEMA))
    assert [(c.name, c.role, c.column) for c in record.channels] == [
        ("x", "observation", "pos"),
        ("vel", "observation", "vel"),
        ("cmd", "action", "cmd"),
    ]
    assert record.traces[0].values[:, 0] == pytest.approx(2.0 * oscillator(300, 0)[:, 0], abs=1e-8)
    assert record.traces[0].has_final
    assert schema.observations[0].label == "x"
    assert record.step == pytest.approx(STEP)


def test_a_clean_folder_has_no_finding_and_may_be_imported(tmp_path: Path):
    for seed in range(6):
        write(tmp_path / f"run{seed}.csv", seed=seed, rows=500)
    found = mbrl.inspect(tmp_path, schema=SCHEMA)
    assert [finding.text for finding in found.findings] == []
    assert found.may_train
    assert found.report.raw is not None
    assert (found.report.raw.files, found.report.raw.rows) == (6, 3000)
    assert not found.report.raw.is_guessed


def test_resets_and_repeated_stamps_are_found_and_cut(tmp_path: Path):
    time = STEP * np.arange(300)
    time[200:] -= time[200]
    time[50] = time[49]
    write(tmp_path / "a.csv", time=time)
    found = mbrl.inspect(tmp_path / "a.csv", schema=SCHEMA)
    reset = next(f for f in found.findings if f.kind == "resets")
    assert "goes back 1 times" in reset.text
    assert "at row 202 of" in reset.text  # the line of the file: a header, and rows from 0
    repeat = next(f for f in found.findings if f.kind == "repeats")
    assert "at row 52 of" in repeat.text
    assert found.record is not None
    assert [len(trace.time) for trace in found.record.traces] == [199, 100]
    settled = mbrl.inspect(
        tmp_path / "a.csv", schema=SCHEMA, overrides=["time.restarts=new_episode", "time.repeated=drop"]
    )
    said = {f.kind: (f.severity, f.remedy) for f in settled.findings}
    assert said["resets"] == ("note", "None needed: the schema sees to it (time.restarts: new_episode).")
    assert said["repeats"][0] == "note"


def test_without_a_schema_it_is_guessed(tmp_path: Path):
    for seed in range(3):
        write(tmp_path / f"run{seed}.csv", seed=seed)
    for log in (tmp_path, [tmp_path / "run0.csv", tmp_path / "run1.csv"], tmp_path / "run0.csv"):
        found = mbrl.inspect(log)
        assert found.report.raw is not None
        assert found.report.raw.is_guessed
        assert {row[0] for row in found.report.raw.channels} == {"pos", "vel", "cmd"}


def test_parquet(tmp_path: Path):
    table = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    values = oscillator(300, 0)
    columns = {"t": STEP * np.arange(300), "pos": values[:, 0], "vel": values[:, 1], "cmd": values[:, 2]}
    parquet.write_table(table.table(columns), tmp_path / "a.parquet")
    found = mbrl.inspect(tmp_path / "a.parquet", schema=SCHEMA)
    assert found.report.raw is not None
    assert found.report.raw.rows == 300


def test_files_of_other_columns_and_texts_are_named(tmp_path: Path):
    for seed in range(3):
        write(tmp_path / f"run{seed}.csv", seed=seed)
    write(tmp_path / "old.csv", seed=9, header="t,position,vel,cmd")
    (tmp_path / "z.csv").write_text("t,pos,vel,cmd\n0,(1+2j),(0+0j),1\n0.02,(1+2j),(0+0j),1\n")
    found = mbrl.inspect(tmp_path, schema=SCHEMA)
    texts = " | ".join(finding.text for finding in found.findings)
    assert "old.csv has position and lacks pos" in texts
    assert "z.csv: pos, vel hold complex numbers" in texts
    assert "old.csv is not examined: it lacks the columns pos" in texts
    assert found.record is not None
    assert {Path(trace.file).name for trace in found.record.traces} >= {"run0.csv", "run1.csv", "run2.csv"}


def test_errors_name_what_was_meant(tmp_path: Path):
    write(tmp_path / "a.csv")
    with pytest.raises(DataError, match="there is no column 'posi'"):
        mbrl.inspect(tmp_path / "a.csv", schema={**SCHEMA, "observations": ["posi"]})
    with pytest.raises(ConfigError, match="Changes of a schema need one"):
        mbrl.inspect(tmp_path / "a.csv", overrides=["rate=50"])
    with pytest.raises(ConfigError, match="do not hold for raw files"):
        mbrl.inspect(tmp_path / "a.csv", schema=SCHEMA, actions="clip")
    with pytest.raises(DataError, match="no dataset"):
        mbrl.inspect(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_text("t,pos,vel,cmd\n0,1,2,3\n")
    with pytest.raises(DataError, match="no file can be examined"):
        mbrl.inspect(tmp_path / "b.csv", schema=SCHEMA)


def test_episodes_by_a_column(tmp_path: Path):
    values = oscillator(90, 0)
    rows = [
        f"{k % 30 * STEP},{k // 30},{x},{v},{0 if np.isnan(u) else u}" for k, (x, v, u) in enumerate(values)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["t,run,pos,vel,cmd", *rows]))
    schema = {
        **SCHEMA,
        "episodes": {"by": "column", "column": "run"},
        "time": {"column": "t", "restarts": "new_episode"},
    }
    found = mbrl.inspect(tmp_path / "a.csv", schema=schema)
    assert found.record is not None
    assert [len(trace.time) for trace in found.record.traces] == [30, 30, 30]


def test_texts_in_a_column_of_the_schema_forbid_an_import(tmp_path: Path):
    (tmp_path / "a.csv").write_text("t,pos,vel,cmd\n0,1,n/a,1\n1,2,n/a,2\n")
    found = mbrl.inspect(tmp_path / "a.csv", schema=SCHEMA)
    (finding,) = (f for f in found.findings if f.kind == "texts")
    assert finding.severity == "error"
    assert "vel hold texts" in finding.text
    assert not found.may_train
    assert "An import would fail: 1 error." in found.to_html(tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "rows", ["0,1e300,0,1\n1,-1e300,1,2\n", "0,,,\n1,,,\n2,,,1\n", "0,inf,1,1\n1,-inf,2,3\n"]
)
def test_odd_values_are_no_internal_error(rows: str, tmp_path: Path):
    (tmp_path / "a.csv").write_text("t,pos,vel,cmd\n" + rows)
    found = mbrl.inspect(tmp_path / "a.csv", schema=SCHEMA)
    found.to_html(tmp_path / "page.html")
    assert any(finding.kind == "no_final" for finding in found.findings)
