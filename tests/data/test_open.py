from pathlib import Path

import pytest

from mbrl.core.errors import ConfigError, DataError
from mbrl.data.formats.base import FORMATS
from mbrl.data.open import locate, open_dataset, parse_log
from tests.data.logs import make_dataset


def test_minari_id_under_a_root(tmp_path: Path):
    data = make_dataset()
    (tmp_path / "toy").mkdir()
    FORMATS.get("minari").write(data, tmp_path / "toy" / "random-v0")
    assert open_dataset("minari:toy/random-v0", minari_root=tmp_path).content_hash == data.content_hash
    assert locate("minari:toy/random-v0", minari_root=tmp_path) == tmp_path / "toy" / "random-v0"


def test_missing_source_says_where_it_looked(tmp_path: Path):
    with pytest.raises(DataError, match="minari:<id>") as caught:
        open_dataset("minari:nothing/here-v0", minari_root=tmp_path)
    assert str(tmp_path / "nothing/here-v0") in str(caught.value)
    with pytest.raises(DataError, match="no dataset 'no-such-name'"):
        open_dataset("no-such-name")
    with pytest.raises(DataError, match="no dataset 'bundled:no-such-name'"):
        open_dataset("bundled:no-such-name")


@pytest.mark.parametrize("content", [b"", b"hello", b"t,x,u\n0,1,2\n"])
def test_unknown_file_says_what_was_tried(tmp_path: Path, content: bytes):
    path = tmp_path / "log.dat"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no format reads it") as caught:
        open_dataset(path)
    assert all(f"{name}: " in str(caught.value) for name in FORMATS.names())
    assert caught.value.file == path


def test_empty_folder_says_what_was_tried(tmp_path: Path):
    with pytest.raises(DataError, match=r"minari: no main_data.hdf5 in it"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(("name", "file"), [("npz", "log.npz"), ("d4rl", "log.hdf5")])
def test_folder_with_one_file(tmp_path: Path, name: str, file: str):
    data = make_dataset()
    FORMATS.get(name).write(data, tmp_path / file)
    assert open_dataset(tmp_path).content_hash == data.content_hash
    FORMATS.get(name).write(data, tmp_path / f"second-{file}")
    with pytest.raises(DataError, match="no format reads it"):
        open_dataset(tmp_path)


def test_parse_does_not_check(tmp_path: Path):
    FORMATS.get("npz").write(make_dataset((2, 3)), tmp_path / "x.npz")
    assert [len(raw.rewards) for raw in parse_log(tmp_path / "x.npz").episodes] == [2, 3]


def test_unknown_format_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"Legal names: d3rlpy, d4rl, .* minari, .* npz, "):
        FORMATS.get("hdf")
