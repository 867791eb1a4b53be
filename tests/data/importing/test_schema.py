"""Bad schemas: every typo names what was meant."""

from pathlib import Path
from typing import Any

import pytest

import mbrl
from mbrl.core.errors import ConfigError, DataError, MbrlError
from mbrl.data.importing.schema import ImportSchema
from tests.data.importing.machines import swing, write_csv

SOUND: dict[str, Any] = {
    "name": "demo",
    "time": {"column": "t"},
    "rate": 20,
    "observations": ["angle", {"name": "speed", "derivative": "angle", "window": 0.1}],
    "actions": [{"column": "command", "low": -1, "high": 1}],
    "reward": "-angle**2 - 0.1 * command**2",
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "run.csv", swing(200, 0.01, 0))


def test_the_sound_one_is_sound(log: Path):
    assert mbrl.import_log(SOUND, log).log.info.obs_names == ("angle", "speed")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"obsevations": []}, r"Unknown key obsevations\. Did you mean 'observations'\?"),
        ({"time": {"colum": "t"}}, r"Unknown key time\.colum\. Did you mean 'column'\?"),
        ({"time": {"column": "t", "unit": "sec"}}, r"time\.unit = 'sec' is not legal.*Legal values: s, ms"),
        ({"time": {}}, "give either column"),
        ({"observations": [{"column": "angle", "warp": "cossin"}]}, r"warp\. Did you mean 'wrap'\?"),
        ({"observations": [{"column": "angle", "derivative": "angle", "window": 1}]}, "exactly one of"),
        ({"observations": [{"name": "v", "derivative": "angle"}]}, "derivative and window"),
        ({"observations": ["angle", "angle"]}, "two channels are called 'angle'"),
        ({"observations": []}, "observations"),
        ({"observations": [{"column": "angle", "scale": 0}]}, "scale of 0"),
        ({"observations": [{"expression": "angle * 2"}]}, "needs a name"),
        ({"observations": [{"column": "angle", "name": "next_x"}]}, "stand for what follows"),
        ({"actions": [{"column": "command", "low": 1, "high": -1}]}, "must lie below"),
        ({"actions": [{"column": "command", "low": 1}]}, "low and high go together"),
        ({"actions": [{"column": "command", "clip": True}]}, "clip needs low and high"),
        ({"reward": "-angel**2"}, r"at character 2: unknown name 'angel'\. Did you mean 'angle'\?"),
        ({"reward": "-angle**"}, "reward = '-angle\\*\\*'.*no expression"),
        ({"termination": "sni(angle) > 1"}, r"Did you mean 'sin'\?"),
        ({"failures": {"limit": "abs(spede) > 1"}}, r"unknown name 'spede'\. Did you mean 'speed'\?"),
        ({"episodes": {"by": "column"}}, "column goes with by: column"),
        ({"episodes": {"by": "gap"}}, "needs max_gap"),
        ({"csv": {"delimiter": ",", "decimal": ","}}, "are both ','"),
        ({"history": 0}, "history"),
        ({"rate": -1}, "rate"),
        ({"rate": None, "sources": [{"files": "*"}]}, "needs a rate"),
    ],
)
def test_keys_and_values(change: dict[str, Any], words: str, log: Path):
    with pytest.raises(ConfigError, match=words):
        mbrl.import_log({**SOUND, **change}, log)


@pytest.mark.parametrize(
    ("change", "place", "meant"),
    [
        ({"time": {"column": "T"}}, "time.column", "t"),
        ({"observations": ["agnle"], "reward": None}, "observations.0", "angle"),
        (
            {"observations": [{"name": "v", "derivative": "anlge", "window": 0.1}], "reward": None},
            "observations.0",
            "angle",
        ),
        ({"actions": ["comand"], "reward": None}, "actions.0", "command"),
        ({"columns": {"double": "2 * angel"}}, "columns.double", "angle"),
        ({"episodes": {"by": "column", "column": "velocitty"}}, "episodes.column", "velocity"),
    ],
)
def test_typos_of_columns_name_the_one_that_was_meant(
    change: dict[str, Any], place: str, meant: str, log: Path
):
    with pytest.raises(DataError, match="there is no column") as caught:
        mbrl.import_log({**SOUND, **change}, log)
    assert caught.value.field == place
    assert meant in str(caught.value)
    assert "Columns: t, angle, velocity, command" in str(caught.value)
    if len(meant) > 1:
        assert f"Did you mean {meant!r}?" in str(caught.value)


def test_shipped_schemas_are_sound_and_found_by_name():
    from mbrl.api.importing import read_schema, shipped_schemas

    assert set(shipped_schemas()) == {"dfki_pendubot", "dfki_simple_pendulum", "g1_lerobot", "quanser_qube"}
    for name in shipped_schemas():
        schema = read_schema(name)
        assert schema.name == name
        assert schema.source.startswith("github.com/")
    with pytest.raises(ConfigError, match=r"Did you mean 'quanser_qube'\?"):
        read_schema("quanser_cube")


def test_overrides_and_objects(log: Path):
    schema = ImportSchema.model_validate(SOUND)
    halved = mbrl.import_log(schema, log, overrides=["rate=10"])
    assert halved.log.info.time_step == 0.1
    with pytest.raises(MbrlError, match="Unknown key raet"):
        mbrl.import_log(schema, log, overrides=["raet=10"])
