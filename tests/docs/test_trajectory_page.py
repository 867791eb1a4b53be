"""The page on planning gives the defaults of the code, and sources that exist."""

import re
from pathlib import Path

import pytest
import yaml

from mbrl.planning.shooting.cem import CEMConfig
from mbrl.planning.shooting.icem import ICEMConfig
from mbrl.planning.shooting.mppi import MPPIConfig
from mbrl.planning.shooting.shooting import ShootingConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "planning.md").read_text()


def _table(name: str) -> dict[str, object]:
    match = re.search(rf"^\*\*`{name}`\*\*.*\n\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert match is not None
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", match[1], re.MULTILINE)
    return {key: yaml.safe_load(value) for key, value in rows}


def test_every_setting_of_mppi_is_listed() -> None:
    assert _table("MPPIConfig") == MPPIConfig().model_dump()


@pytest.mark.parametrize("config", [ICEMConfig, CEMConfig])
def test_the_others_list_what_differs(config: type[ShootingConfig]) -> None:
    values = config().model_dump()
    common = MPPIConfig().model_dump()
    differing = {key: value for key, value in values.items() if key not in common or common[key] != value}
    assert _table(config.__name__) == differing


def test_sources_are_in_the_bibliography() -> None:
    cited = set(re.findall(r"@(\w+)", PAGE))
    known = set(re.findall(r"^@\w+\{(\w+),", (DOCS / "references.bib").read_text(), re.MULTILINE))
    assert cited <= known
