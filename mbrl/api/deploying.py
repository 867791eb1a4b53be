"""Policies for robots: bundles without torch, and what they would have done on a log."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from mbrl.api.data import load
from mbrl.api.policy import Policy, as_policy
from mbrl.api.progress import Listener, choose_progress
from mbrl.api.result import Result, jsonable
from mbrl.api.session import named_overrides, open_workspace
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.deploy.contract import Contract
from mbrl.run.bundle.open import CheckedBundle, check_bundle, open_bundle
from mbrl.run.bundle.verdict import find_verdict, read_verdict
from mbrl.run.bundle.write import BundleConfig, BundleParts, write_bundle, write_onnx
from mbrl.run.config import resolve
from mbrl.run.documents import Override, Tree, read_overrides, set_at
from mbrl.run.inputs import load_run_dataset
from mbrl.run.policies import StoredPolicy
from mbrl.run.store import RunStore
from mbrl.run.validation import validate

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table

ExportFormat: TypeAlias = Literal["bundle", "onnx", "policy"]
"""A folder for a robot; the graph of the policy alone; a safetensors file for torch."""

_SUFFIXES: dict[str, ExportFormat] = {".onnx": "onnx", ".safetensors": "policy"}


class Export(Result):
    """What was written of a policy; stands for its path wherever one is taken.

    Attributes:
        path: file or folder.
        format: `bundle`, `onnx` or `policy`.
        contract: of a bundle, typed; None for a file.
    """

    def __init__(
        self, path: Path, kind: ExportFormat, facts: Mapping[str, Any], contract: Contract | None = None
    ) -> None:
        self.path, self.format, self.contract, self._facts = path, kind, contract, dict(facts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Export":
        """The bundle in a folder, its files checked against its contract.

        Raises:
            ConfigError: there is none.
            FileError: a file is damaged, missing or another one.
        """
        contract = open_bundle(Path(path))
        return cls(Path(path), "bundle", contract.policy, contract)

    def controller(self, **how: Any) -> Any:
        """The runtime on this bundle, see `mbrl.deploy.runtime.Controller`; needs onnxruntime."""
        if self.contract is None:
            raise ConfigError(f"{self.path} is a file, no bundle. Remedy: export with format='bundle'.")
        from mbrl.deploy.graph import require

        require("onnxruntime", purpose="The runtime of a bundle")
        from mbrl.deploy.runtime import Controller

        return Controller(self.path, **how)

    def to_dict(self) -> dict[str, Any]:
        """What is known of the policy, the contract, and the path."""
        values: dict[str, Any] = {"facts": self._facts, "format": self.format, "path": str(self.path)}
        if self.contract is not None:
            values["contract"] = self.contract.model_dump(mode="json")
        return jsonable(values)

    def tables(self) -> "Sequence[Table]":
        """What is known of the policy, and how the bundle was tested."""
        from mbrl.report.deployment.bundle import bundle_table
        from mbrl.report.kit.table import Table

        facts = Table("policy", ("fact", "value"), list(_one_by_one(self._facts)))
        return [facts] if self.contract is None else [facts, bundle_table(self.contract)]

    def messages(self) -> Sequence[str]:
        """What speaks against it."""
        from mbrl.report.deployment.bundle import bundle_warnings

        return [] if self.contract is None else bundle_warnings(self.contract)

    def __fspath__(self) -> str:
        return str(self.path)

    def _headline(self) -> str:
        return f"{self.format}, {str(self.path)!r}"


def _one_by_one(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Facts in rows of a table; what a fact is made of, as the frames of a history, has rows of its own."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _one_by_one(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value


class DeployCheck(Result):
    """What the runtime of a bundle would have done on a log.

    Attributes:
        path: of the bundle.
        checked: steps, alarms and times, as arrays.
    """

    def __init__(self, path: Path, checked: CheckedBundle) -> None:
        self.path, self.checked = path, checked

    @property
    def alarm_rate(self) -> float:
        """Share of steps with an alarm: the logged state and step, and the action of the policy."""
        return float(self.checked.replay.alarm.mean())

    @property
    def logged_alarm_rate(self) -> float | None:
        """The same with the logged action: how much the log is that of the training. None without a guard."""
        return self.checked.logged_alarm_rate

    @property
    def surprise_ratio(self) -> tuple[float, float, float] | None:
        """Median surprise of the logged steps over that of the training's log, with its 95 % interval."""
        return self.checked.surprise_ratio

    def to_dict(self) -> dict[str, Any]:
        """Rates, times and counts."""
        from mbrl.report.deployment.bundle import check_values

        return jsonable({**check_values(self.checked), "path": str(self.path)})

    def tables(self) -> "Sequence[Table]":
        """The same for people."""
        from mbrl.report.deployment.bundle import check_tables

        return check_tables(self.checked)

    def messages(self) -> Sequence[str]:
        """What the guard would have done."""
        from mbrl.report.deployment.bundle import check_messages

        return check_messages(self.checked)

    def _headline(self) -> str:
        steps = len(self.checked.replay)
        return f"{str(self.path)!r}, {steps:,} steps, alarms on {100 * self.alarm_rate:.2f} %"


def export(
    run: Any,
    out: str | Path,
    *,
    format: str | None = None,
    log: Dataset | str | Path | None = None,
    fallback: Any = None,
    verdict: Any = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> Export:
    """Writes a policy for use elsewhere.

    Args:
        run: a `Run`, a `Policy` of this package, or the path of either's file.
        out: folder of a bundle, or file; must not exist, but for a `policy` file.
        format: `bundle` (graphs, guard, contract, runtime, for a robot), `onnx` (the graph alone) or `policy`
            (safetensors, for torch); by the suffix of `out` when None, else a bundle.
        log: that it learned from, which the guard is fitted to; that of the run when None.
        fallback: a policy like `run` that acts in its place when the guard raises an alarm.
        verdict: a result of `mbrl.ope`, or the path of its report; looked up beside the run when None.
        overrides: changes of `mbrl.run.bundle.write.BundleConfig`, `key=value` or path and value.
        changes: the same by name: `stochastic=True`, `guard={"false_alarms": 0.005}`, `max_change=0.2`.

    Raises:
        ConfigError: a name or value is wrong, the policy has no graph, or the graph does not do what was
            trained.
        DataError: the log cannot be used, or is too short for a guard.
        MissingExtraError: the extra `deploy` is not installed.

    Example:
        >>> import mbrl
        >>> run = mbrl.train("pendulum-mixed", "bc", updates=50, select="last", progress=False)
        >>> bundle = mbrl.export(run, "pendulum-bundle", guard={"prototypes": 200, "features": 20})
        >>> bundle.controller().act([1.0, 0.0, 0.0]).shape
        (1,)
    """
    policy, target = as_policy(run), Path(out)
    kind = _format(format, target)
    if kind == "policy":
        return Export(policy.save(target), kind, policy.stored.facts)
    config = validate(BundleConfig, _tree(overrides, changes), where="Export")
    data = _log(run, policy, log)
    other = None if fallback is None else as_policy(fallback).stored
    parts = BundleParts(policy.stored, data, other)
    if kind == "onnx":
        return Export(write_onnx(parts, target, config), kind, policy.stored.facts)
    said = _verdict(verdict, policy.stored, data)
    parts = BundleParts(policy.stored, data, other, said)
    contract = write_bundle(parts, target, config)
    return Export(target, kind, policy.stored.facts, contract)


def deploy_check(
    bundle: Any, log: Dataset | str | Path, *, rows: int = 20_000, progress: Listener = None
) -> DeployCheck:
    """Replays a log through the runtime of a bundle: alarms, latency, saturation, interventions.

    The runtime is shown what was logged and does not see what its own actions would lead to.

    Args:
        bundle: an `Export`, or the folder.
        log: an open log, or what `load` takes, with the channels of the bundle.
        rows: about how many steps; whole episodes, evenly spread.
        progress: see `fit`.

    Raises:
        ConfigError: there is no bundle.
        DataError: the channels of the log are others.
        MissingExtraError: the extra `deploy` is not installed.

    Example:
        >>> run = mbrl.train("pendulum-mixed", "bc", updates=50, select="last", progress=False)
        >>> bundle = mbrl.export(run, "pendulum-bundle", guard={"prototypes": 200, "features": 20})
        >>> checked = mbrl.deploy_check("pendulum-bundle", "pendulum-mixed", rows=400, progress=False)
        >>> 0 <= checked.alarm_rate < 0.2
        True
    """
    if rows < 1:
        raise ConfigError(f"rows (--rows) must be 1 at least, not {rows}.")
    folder = Path(bundle)
    data = log if isinstance(log, Dataset) else load(log)
    listener = choose_progress(progress)
    listener.start("replay", min(rows, data.num_transitions))
    try:
        checked = check_bundle(folder, data, max_rows=rows, on_step=listener.advance)
        return DeployCheck(folder, checked)
    finally:
        listener.finish()


def _format(name: str | None, target: Path) -> ExportFormat:
    if name is None:
        return _SUFFIXES.get(target.suffix, "bundle")
    for kind in get_args(ExportFormat):
        if name == kind:
            return kind
    raise ConfigError(f"There is no format {name!r}. Legal: {', '.join(get_args(ExportFormat))}.")


def _tree(overrides: Sequence[Override], changes: Mapping[str, Any]) -> Tree:
    tree: Tree = {}
    whole = {name: value for name, value in changes.items() if not isinstance(value, Mapping)}
    nested = {name: value for name, value in changes.items() if name not in whole}
    for key, value in read_overrides([*overrides, *named_overrides(nested, home=None)]):
        set_at(tree, key, value)
    return {**tree, **whole}


def _log(run: Any, policy: Policy, log: Dataset | str | Path | None) -> Dataset:
    """The log that is named, or that of the run."""
    if isinstance(log, Dataset):
        return log
    if log is not None:
        return load(log)
    own = getattr(run, "log", None)
    if isinstance(own, Dataset):
        return own
    training = policy.stored.training
    config = None if training is None else resolve(training / "config.yaml").run
    if config is None or config.dataset is None:
        raise ConfigError(
            f"Nobody says which log {policy.stored.source} learned from, and limits, channels and guard come "
            "from it. Remedy: name it (--dataset, log=)."
        )
    return load_run_dataset(config, open_workspace(progress=False))


def _verdict(verdict: Any, stored: StoredPolicy, log: Dataset) -> Any:
    """What `mbrl ope` said: as it is given, or as it lies beside the run."""
    if verdict is not None:
        path = getattr(verdict, "path", verdict)
        return read_verdict(Path(path).parent if Path(path).suffix == ".html" else Path(path), stored)
    if stored.training is None:
        return None
    return find_verdict(stored, RunStore(stored.training.parents[1]), log.content_hash)
