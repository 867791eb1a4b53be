"""Raw files through the command line and the face: the same findings, a page with a viewer."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import mbrl
from mbrl.cli.app import app
from tests.data.inspection.test_raw_files import SCHEMA, write
from tests.report.browser import open_page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(3):
        write(tmp_path / "logs" / f"run{seed}.csv", seed=seed)
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    return tmp_path


def call(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, result.output + result.stderr
    return result.stdout + result.stderr


def test_the_command_line_says_what_the_face_says(folder: Path):
    schema, logs = folder / "schema.yaml", folder / "logs"
    shown = json.loads(call("inspect", "--schema", schema, logs, "--json"))
    assert shown == mbrl.inspect(logs, schema=schema).to_dict()
    assert shown["raw"]["files"] == 3
    assert shown["may_train"]
    text = call("inspect", logs)
    assert "Files of" in text
    assert "guessed" in text


def test_a_schema_before_the_files_is_an_error_with_the_command(folder: Path):
    text = call("inspect", folder / "schema.yaml", folder / "logs", status=1)
    assert "mbrl inspect --schema" in text


@pytest.mark.parametrize(("width", "is_dark"), [(1280, False), (390, True)])
def test_the_page(folder: Path, width: int, is_dark: bool):
    page = mbrl.inspect(folder / "logs").to_html(folder / "page.html")
    assert "Raw log" in page.read_text()
    facts = open_page(page, folder, width=width, is_dark=is_dark)
    assert facts["problems"] == []
    assert facts["wide"] == []
    assert facts["outside"] == []


def test_a_dataset_has_the_viewer_too(tmp_path: Path):
    found = mbrl.inspect("pendulum-mixed")
    assert found.record is not None
    assert len(found.record.traces) == 70
    text = found.to_html(tmp_path / "page.html").read_text()
    assert 'class="viewer-data"' in text
    assert "60 of 70 episodes" in text
