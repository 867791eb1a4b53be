import pytest

from mbrl.core.errors import ConfigError
from mbrl.run.config import part_names
from mbrl.study.auto.config import load_auto


@pytest.mark.parametrize("name", part_names("auto"))
def test_shipped_portfolios_resolve(name: str):
    source = load_auto(name)
    study = source.study("log", fit_updates=123, judge_updates=456, updates={"bc": 7, "mopo_bold": 9}, kept=3)
    assert list(study.config.algorithms) == ["bc", "mopo_bold"]
    run = study.resolve("mopo_bold", seed=0, dataset="log").run
    assert run.algorithm.updates == 9
    assert (run.dynamics.max_updates, run.judges.max_updates) == (123, 456)
    assert (run.select.rule, run.select.kept) == ("judge", 3)
    assert study.resolve("bc", seed=0, dataset="log").run.select.rule == "judge"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("weights.bcc=1", "weights.bcc is no candidate"),
        ("judges.count=1", "2 or more"),
        ("fit_share=0.95", "no time for trainings"),
        ("algorithms.bc.learner.hiden=[3]", "hiden"),
        ("algoritms.bc=bc", "algoritms"),
        ("seed=-1", "seed"),
    ],
)
def test_what_is_wrong_is_named(change: str, match: str):
    with pytest.raises(ConfigError, match=match):
        load_auto(overrides=[change])


def test_an_unknown_portfolio_is_refused_with_the_legal_names():
    with pytest.raises(ConfigError, match="default"):
        load_auto("defalt")
