"""What is exported by whom: formats, logs, verdicts, and what a missing extra says."""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mbrl
from mbrl.api.judging import ope
from mbrl.core.errors import ConfigError, MissingExtraError
from mbrl.deploy import graph
from tests.deploy.bundles import SMALL_GUARD
from tests.run.toy import TINY_DYNAMICS, make_dataset

pytest.importorskip("onnxruntime")

JUDGED: dict[str, Any] = {"updates": 20, "backtest": False, "judges": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> mbrl.Run:
    store = tmp_path_factory.mktemp("runs")
    return mbrl.train(
        make_dataset(), "bc", updates=10, learner={"hidden": [8]}, dynamics=TINY_DYNAMICS, diagnostics=False,
        select="last", store=store, progress=False,
    )  # fmt: skip


def test_the_suffix_says_the_format(run: mbrl.Run, tmp_path: Path) -> None:
    file = run.export(tmp_path / "p.safetensors")
    assert (file.format, os.fspath(file), file.contract) == ("policy", str(tmp_path / "p.safetensors"), None)
    assert mbrl.Policy.load(file.path).act([0.1, 0.2, 0.3]) == pytest.approx(run.policy.act([0.1, 0.2, 0.3]))
    assert run.export(tmp_path / "p.onnx").format == "onnx"
    bundle = run.export(tmp_path / "bundle", guard=SMALL_GUARD)
    assert bundle.format == "bundle"
    action = bundle.controller(guard=False).act([0.1, 0.2, 0.3])
    assert action == pytest.approx(run.policy.act([0.1, 0.2, 0.3]), abs=1e-5)
    assert mbrl.Export.load(bundle).contract == bundle.contract
    assert "parity" in str(bundle)
    assert mbrl.deploy_check(bundle, make_dataset(), progress=False).to_dict()["steps"] == 360


def test_a_policy_alone_needs_its_log(run: mbrl.Run, tmp_path: Path) -> None:
    file = run.export(tmp_path / "p.safetensors")
    with pytest.raises(ConfigError, match="Remedy: name it"):
        mbrl.export(file.path, tmp_path / "bundle")
    made = mbrl.export(file.path, tmp_path / "bundle", log=make_dataset(), guard=None)
    assert made.contract is not None
    assert made.contract.log.content_hash == make_dataset().content_hash


def test_a_function_has_no_graph(tmp_path: Path) -> None:
    policy = mbrl.Policy.from_callable(lambda obs: obs[:, :2])
    with pytest.raises(ConfigError, match="no policy network"):
        mbrl.export(policy, tmp_path / "bundle", log=make_dataset())


def test_the_verdict_is_found_beside_the_run(run: mbrl.Run, tmp_path: Path) -> None:
    log = make_dataset()
    without = mbrl.export(run, tmp_path / "a", guard=None)
    assert without.contract is not None
    assert without.contract.verdict is None
    assert any("Nobody has asked" in message for message in without.messages())
    result = ope(run, log, store=run.path.parents[1], progress=False, **JUDGED)
    found = mbrl.export(run, tmp_path / "b", guard=None)
    named = mbrl.export(run, tmp_path / "c", guard=None, verdict=result)
    for made in (found, named):
        assert made.contract is not None
        assert made.contract.verdict is not None
        assert made.contract.verdict.verdict == result.verdict
        assert made.contract.verdict.reasons == result.report.reports[0].verdict.final.reasons
        assert made.contract.verdict.baseline == "behaviour"
        assert result.report.reports[0].verdict.final.reasons[0] in (made.path / "MODEL_CARD.md").read_text()


def test_what_is_not_installed_names_the_extra(
    run: mbrl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(graph, "importlib", type("", (), {"import_module": staticmethod(missing)}))
    with pytest.raises(MissingExtraError, match=r"mbrl-offline\[deploy\]"):
        mbrl.export(run, tmp_path / "bundle")
    assert importlib.import_module("json") is not None


def test_the_guard_knows_the_log_of_the_run(run: mbrl.Run, tmp_path: Path) -> None:
    bundle = run.export(tmp_path / "bundle", guard={**SMALL_GUARD, "false_alarms": 0.05}, patience=1)
    assert bundle.contract is not None
    assert bundle.contract.guard is not None
    assert bundle.contract.guard.rate.asked == 0.05
    controller = bundle.controller()
    controller.act(np.array([80.0, -90.0, 70.0]))
    assert controller.last.reasons == ("novelty",)
