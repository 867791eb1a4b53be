"""The tutorial of csv files runs as it stands; pages of schemas name their repositories and every key."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mbrl
from mbrl.api.importing import read_schema, shipped_schemas
from mbrl.cli.app import app
from mbrl.data.expressions.functions import SIGNATURES
from mbrl.data.importing.schema import ImportSchema
from mbrl.envs.documents import parse_yaml

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "tutorials" / "csv-to-a-model.md").read_text(encoding="utf-8")
    for kind, body in BLOCK.findall(text):
        if kind == "python":
            exec(compile(body, "csv-to-a-model.md", "exec"), {})
            continue
        for line in body.strip().splitlines():
            result = CliRunner().invoke(app, shlex.split(line)[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}{result.stderr}"
    assert "the velocity of Winkel" in Path("schema.yaml").read_text(encoding="utf-8")
    data = mbrl.load("datasets/pendulum-abs")
    assert data.info.derived_from == mbrl.load("datasets/pendulum").content_hash
    assert (len(data), data.info.reward_rule) == (3, "(-abs(Winkel))")


def test_the_schema_of_the_page_is_sound_and_names_every_key() -> None:
    text = (DOCS / "import" / "README.md").read_text(encoding="utf-8")
    example = next(body for kind, body in BLOCK.findall(text) if kind == "yaml")
    ImportSchema.model_validate(parse_yaml(example, where="docs/import/README.md"))
    explained = set(re.findall(r"`(\w+)`", text)) | set(parse_yaml(example, where=""))
    assert set(ImportSchema.model_fields) - {"version"} <= explained
    assert all(name in text for name in SIGNATURES)


@pytest.mark.parametrize("name", shipped_schemas())
def test_every_shipped_schema_has_a_page_that_names_its_repository(name: str) -> None:
    page = (DOCS / "import" / f"{name}.md").read_text(encoding="utf-8")
    repository = read_schema(name).source.partition(",")[0]
    assert f"https://{repository}" in page
    assert f"mbrl import {name} " in page
    assert f"({name}.md)" in (DOCS / "import" / "README.md").read_text(encoding="utf-8")
