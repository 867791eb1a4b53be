"""What commands print and how they end."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mbrl.api.progress import LineProgress
from mbrl.api.result import PlainResult, jsonable
from mbrl.cli.app import app
from mbrl.cli.output import emit
from mbrl.data.formats.base import FORMATS
from mbrl.report.kit.table import Table
from tests.run.toy import TINY_DYNAMICS, make_dataset, write_dataset

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "list",
    "inspect",
    "import",
    "merge",
    "relabel",
    "collect",
    "label",
    "preferences",
    "synthetic-preferences",
    "fit-reward",
    "next-pairs",
    "best-of",
    "topics",
    "fit",
    "auto",
    "train",
    "finetune",
    "select",
    "evaluate",
    "export",
    "deploy-check",
    "compare",
    "report",
    "status",
    "demo",
    "ope",
    "ope-bench",
    "plan",
    "plan-audit",
    "bench",
)


def call(*args: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == status, (result.output, result.stderr, result.exception)
    return result


def call_json(*args: object, status: int = 0) -> dict[str, Any]:
    """Stdout must be one JSON object and nothing else, without NaN."""
    lines = call(*args, "--json", status=status).stdout.splitlines()
    assert len(lines) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    value = json.loads(lines[0], parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def overrides() -> list[str]:
    values = [f"dynamics.{key}={json.dumps(value)}" for key, value in TINY_DYNAMICS.items()]
    values += ["algorithm.updates=10", "algorithm.learner.hidden=[8]", "algorithm.learner.batch_size=16"]
    return [text for value in values for text in ("--set", value)]


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def online_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    small = ["--set", "algorithm.warmup_steps=20", "--set", "algorithm.refresh_steps=20"]
    summary = call_json(
        "train",
        "--online",
        "pendulum",
        "--algorithm",
        "sac_online",
        "--runs",
        runs,
        *small,
        *overrides()[-6:],
    )
    assert summary["online"] is True
    return Path(summary["path"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: str) -> None:
    text = call(command, "--help").stdout
    assert "--json" in text
    assert "--debug" in text


def test_no_other_commands_are_offered() -> None:
    assert {info.name for info in app.registered_commands} == set(COMMANDS)


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    """In one process for all: a command that imports something heavy is the first after which it is there."""
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom mbrl.cli.app import app\n"
        f"for command in {['', *COMMANDS]!r}:\n"
        "    result = CliRunner().invoke(app, [*command.split(), '--help'])\n"
        "    heavy = {'torch', 'numpy', 'matplotlib', 'gymnasium', 'scipy'} & set(sys.modules)\n"
        "    assert result.exit_code == 0 and not heavy, (command, heavy)\n"
        "print('all')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stdout == "all\n", done.stderr


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("algorithms", {"mopo", "mopo-published", "bc_top10"}),
        ("learners", {"bc", "sac"}),
        ("recipes", {"mopo", "mbpo"}),
        ("formats", {"minari", "d4rl", "npz"}),
        ("measures", {"ens_std", "max_aleatoric", "max_dev", "max_pair", "total_std", "ll_var", "knn"}),
        ("tasks", {"pendulum", "hopper", "halfcheetah", "walker2d", "ant"}),
    ],
)
def test_list_prints_ids_with_one_line_each(kind: str, known: set[str]) -> None:
    entries = call_json("list", kind)["entries"]
    assert known <= entries.keys()
    assert all(line and "\n" not in line for line in entries.values())
    text = call("list", kind).stdout
    assert all(name in text for name in known)
    assert max(len(line) for line in text.splitlines()) <= 100


def test_inspect_says_whether_training_may_start(dataset_path: Path, tmp_path: Path) -> None:
    value = call_json("inspect", dataset_path)
    assert value["may_train"] is True
    assert value["stats"]["num_transitions"] == 360
    page = tmp_path / "page.html"
    text = call("inspect", dataset_path, "--html", page).stdout
    assert text.splitlines()[-1] == f"Wrote {page}"
    assert max(len(line) for line in text.splitlines()[:-1]) <= 100
    assert "<html" in page.read_text()


def test_inspect_fails_where_training_must_not_start(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    FORMATS.get("npz").write(make_dataset(), path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    key = next(name for name in arrays if name.startswith("rew"))
    arrays[key] = np.where(np.arange(len(arrays[key])) == 5, np.nan, arrays[key])
    np.savez(path, **arrays)
    value = call_json("inspect", path, status=1)
    assert value["may_train"] is False
    assert any("row 5" in finding["text"] for finding in value["findings"])
    result = call("train", path, "--algorithm", "bc", "--runs", tmp_path / "runs", status=1)
    assert "row 5" in result.stderr
    assert "Remedy" in result.stderr


def test_a_bundle_is_exported_and_checked(dataset_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    runs, small = tmp_path / "runs", ("--set", "guard.prototypes=100", "--set", "guard.features=8")
    trained = call_json("train", dataset_path, "--algorithm", "bc", "--runs", runs, *overrides())
    target = tmp_path / "bundle"
    made = call_json("export", trained["path"], "--out", target, "--fallback", trained["path"], *small)
    assert made["format"] == "bundle"
    assert made["contract"]["parity"]["policy"] <= 1e-5
    assert made["contract"]["runtime"]["fallback"] == "policy"
    assert made["contract"]["verdict"] is None
    assert (target / "fallback.onnx").is_file()
    text = call("deploy-check", target, dataset_path).stdout
    assert "who would have acted" in text
    checked = call_json("deploy-check", target, dataset_path, "--rows", "60")
    assert checked["steps"] == 60
    graph = call_json("export", trained["path"], "--out", tmp_path / "policy.onnx")
    assert (graph["format"], Path(graph["path"]).is_file()) == ("onnx", True)
    for words, said in (
        (("--out", target), "exists already"),
        (("--out", tmp_path / "x", "--format", "pickle"), "bundle, onnx, policy"),
        (("--out", tmp_path / "x", "--set", "guard.prototype=3"), "guard.prototype"),
        (("--out", tmp_path / "x", "--stochastic"), "deterministic"),
        (("--out", tmp_path / "x", "--verdict", tmp_path), "no report"),
    ):
        assert said in call("export", trained["path"], *words, status=1).stderr
    assert "is no bundle" in call("deploy-check", runs, dataset_path, status=1).stderr


def test_fit_train_export_report_status(dataset_path: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    fit = call_json("fit", dataset_path, "--runs", runs, *overrides())
    assert fit["report"]["training"]["train_rows"] > 0
    trained = call_json("train", dataset_path, "--algorithm", "bc", "--runs", runs, *overrides())
    assert (trained["updates"], trained["online"], trained["seed"]) == (10, False, 0)
    text = call("train", dataset_path, "--algorithm", "bc", "--runs", runs, *overrides()).stdout
    assert text.splitlines()[-1] == f"Wrote {trained['path']}"
    for run in (fit, trained):
        page = Path(call_json("report", run["path"])["path"])
        assert "<html" in page.read_text()
    target = tmp_path / "p.safetensors"
    facts = call_json("export", trained["path"], "--out", target)["facts"]
    assert facts["algorithm"] == "bc"
    assert target.is_file()
    rows = call_json("status", "--runs", runs)["runs"]
    assert [(row["stage"], row["is_done"]) for row in rows] == [
        ("fit_dynamics", True),
        ("train_policy", True),
    ]
    result = call("evaluate", trained["path"], "--runs", runs, status=1)
    assert "without a simulator" in result.stderr
    assert result.stdout == ""


def test_evaluate_and_collect_use_the_trained_policy(online_run: Path, tmp_path: Path) -> None:
    value = call_json("evaluate", online_run, "--episodes", 2, "--runs", tmp_path)
    assert len(value["episode_returns"]) == 2
    out = tmp_path / "set"
    made = call_json("collect", "pendulum", "--policy", online_run, "--steps", 250, "--out", out)
    assert (made["transitions"], made["episodes"], made["path"]) == (250, 2, str(out))
    again = call("collect", "pendulum", "--policy", "random", "--steps", 10, "--out", out, status=1)
    assert "exists already" in again.stderr


def test_import_converts_between_formats(dataset_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy.npz"
    value = call_json("import", dataset_path, "--to", "npz", "--out", out)
    assert value["content_hash"] == make_dataset().content_hash
    back = call_json("import", out, "--layout", "npz", "--out", tmp_path / "back")
    assert back["content_hash"] == make_dataset().content_hash
    result = call("import", out, "--layout", "nope", "--out", tmp_path / "x", status=1)
    assert "Unknown layout 'nope'. Legal names: auto, d3rlpy, d4rl, " in result.stderr


def test_errors_are_one_paragraph_on_stderr(dataset_path: Path, tmp_path: Path) -> None:
    wrong = ["train", dataset_path, "--algorithm", "mopp", "--runs", tmp_path]
    result = call(*wrong, status=1)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ")
    assert "Did you mean 'mopo'?" in result.stderr
    assert "Traceback" in call(*wrong, "--debug", status=1).stderr
    assert not list(tmp_path.iterdir())


def test_usage_errors_end_with_status_2() -> None:
    assert "No such option" in call("train", "--nonsense", status=2).stderr
    assert "No such command" in call("nonsense", status=2).stderr
    call("list", "nonsense", status=2)
    assert "one of them" in call("fit-reward", "log", status=2).stderr
    assert (
        "disagreement or random" in call("next-pairs", "log", "--out", "x", "--query", "y", status=2).stderr
    )


def test_an_online_recipe_must_be_asked_for_online(dataset_path: Path, tmp_path: Path) -> None:
    result = call("train", dataset_path, "--algorithm", "sac_online", "--runs", tmp_path, status=1)
    assert "say --online TASK" in result.stderr
    result = call("train", "--online", "pendulum", "--algorithm", "bc", "--runs", tmp_path, status=1)
    assert "learns from logs" in result.stderr


def test_json_output_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"x": float("nan"), "y": [1.5, float("inf")], "p": Path("a"), "path": Path("q")}
    emit(PlainResult(values), is_json=True, path=Path("q"))
    assert json.loads(capsys.readouterr().out) == {"x": None, "y": [1.5, None], "p": "a", "path": "q"}
    assert jsonable({1: (True, None)}) == {"1": [True, None]}


def test_tables_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    emit(PlainResult({}, [Table("t", ("a", "b"), [("x" * 150, 1.0)])], ["[low, high]"]), is_json=False)
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 100
    assert "[low, high]" in out


def test_plain_progress_writes_lines_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress(seconds=0.0)
    progress.start("train", 100)
    progress.advance(0)
    progress.advance(50, **{"critic/loss": 0.5, "hidden/figure": 1.0})
    progress.message("look")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "train 50/100" in captured.err
    assert "critic/loss 0.5" in captured.err
    assert "hidden" not in captured.err
    assert captured.err.endswith("look\n")


FORWARDING = [path for path in sorted((ROOT / "scripts").glob("*.py")) if "mbrl.cli" in path.read_text()]


@pytest.mark.parametrize("script", FORWARDING, ids=lambda path: path.stem)
def test_every_script_forwards_to_its_command(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(script), run_name="__main__")
    assert not ending.value.code
    assert "--json" in capsys.readouterr().out
    assert len(script.read_text().splitlines()) <= 10


@pytest.mark.slow
def test_seeds_are_trained_and_evaluated_one_line_each(tmp_path: Path) -> None:
    quick = ["--set", "algorithm.updates=20", "--set", "diagnostics=false"]
    arguments = ["demo-bc", "0 1", *quick, "--runs", str(tmp_path / "runs")]
    result = subprocess.run(
        ["bash", str(ROOT / "scripts" / "run_seeds.sh"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(line["episode_returns"]) for line in lines] == [20, 20]
    assert lines[0]["episode_returns"] != lines[1]["episode_returns"]
    assert len(list(tmp_path.glob("runs/pendulum-mixed/train_policy-*"))) == 2


def test_updates_are_an_option_of_their_own(dataset_path: Path, tmp_path: Path) -> None:
    asked = ["--algorithm", "bc", "--updates", 7, "--select", "last", "--set", "diagnostics=false"]
    asked += ["--set", "algorithm.learner.hidden=[8]", "--runs", tmp_path]
    assert call_json("train", dataset_path, *asked)["updates"] == 7
    # What is set by its key is set last, as in the commands that a user goes on from.
    assert call_json("train", dataset_path, *asked, "--set", "algorithm.updates=5")["updates"] == 5
    assert "'--updates'" in call("train", dataset_path, "--updates", 0, status=2).stderr


def test_several_datasets_are_merged_and_trained_on_by_weights(dataset_path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    FORMATS.get("minari").write(make_dataset(seed=9), other)
    merged = call_json("merge", dataset_path, other, "--out", tmp_path / "both", "--name", "both")
    assert [source["episodes"] for source in merged["sources"]] == [12, 12]
    assert "source 1" in call("inspect", tmp_path / "both").stdout
    places = ["--runs", tmp_path / "runs", "--algorithm", "bc", *overrides()]
    found = [
        call_json("train", *where, *weights, *places)["path"]
        for where in ((dataset_path, other), (tmp_path / "both",))
        for weights in (("--weights", 1, 3), ("--weights", "0.25,0.75"))
    ]
    assert len({Path(path).name for path in found}) == 1
    assert "no numbers" in call("train", dataset_path, other, "--weights", "many", status=1).stderr
    assert "have the same content" in call("merge", other, other, "--out", tmp_path / "x", status=1).stderr
