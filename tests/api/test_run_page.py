import json
import re

import pytest

import mbrl
from mbrl.core.rng import RngStreams
from mbrl.dynamics.fit import split_for

SMALL = {
    "max_updates": 30,
    "members": 2,
    "elites": 2,
    "hidden": (16,),
    "assessment": {"segments": 20, "particles": 20, "max_rows": 500, "bootstrap_draws": 10},
}


def test_the_page_of_a_fit_shows_forecasts_of_the_episodes_that_it_held_out(tmp_path):
    log = mbrl.load("pendulum-mixed")
    model = mbrl.fit(log, seed=3, store=tmp_path / "runs", progress=False, **SMALL)
    page = model.to_html(tmp_path / "page.html", log=log).read_text()
    data = json.loads(re.search(r'class="viewer-data">(.*?)</script>', page).group(1))
    held_out = split_for(model.config, log, RngStreams(3)).holdout
    names = {episode["name"].partition(",")[0] for episode in data["episodes"]}
    expected = {f"episode {k}" for k, e in enumerate(log.episodes) if any(e is h for h in held_out.episodes)}
    assert names
    assert names <= expected
    first = data["episodes"][0]
    assert first["rows"] == 60
    assert [overlay["name"] for overlay in first["overlays"]] == ["90 % interval", "forecast", "ridge-linear"]
    other = mbrl.Dataset.from_arrays([[0.0], [1.0]], [[0.0], [1.0]], [0.0, 0.0], [0, 1], [0, 0])
    with pytest.raises(mbrl.DataError, match="other than those of the model"):
        model.to_html(tmp_path / "page.html", log=other)
    assert "viewer-data" not in model.to_html(tmp_path / "page.html").read_text()
