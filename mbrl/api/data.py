"""Logs: opened, examined, made in a simulator."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from mbrl.api.progress import Listener, choose_progress
from mbrl.api.result import Result, jsonable
from mbrl.api.session import minari_root, torch_settings
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.inspection.finding import DataFinding
from mbrl.data.inspection.raw_files import holds_tables, is_table, read_record
from mbrl.data.inspection.record import Record, record_of
from mbrl.data.inspection.report import Inspection, inspect_dataset, inspect_episodes, inspect_record
from mbrl.data.merging.merge import sources_of
from mbrl.data.open import locate, open_dataset, parse_log
from mbrl.data.options import LoadOptions
from mbrl.data.stacking.choose import apply_history
from mbrl.envs.make import task_of_env
from mbrl.envs.specs import TaskSpec, own_task_hash
from mbrl.run.collect import CollectionConfig, PartConfig, collect_dataset, load_collection
from mbrl.run.documents import Override, Tree, read_overrides, set_at
from mbrl.run.files import write_text
from mbrl.run.validation import validate

if TYPE_CHECKING:
    from mbrl.data.importing.schema import ImportSchema
    from mbrl.report.kit.html import Section
    from mbrl.report.kit.table import Table


def load(
    source: str | Path, *, layout: str = "auto", overrides: Sequence[Override] = (), **options: Any
) -> Dataset:
    """Opens a log.

    Args:
        source: path of a dataset in any format of `mbrl list formats`, `minari:<id>` of a local Minari
            dataset, or the name of a bundled one.
        layout: a format of `mbrl list formats`; `auto` finds it by looking into the file.
        overrides: changes of the options, `key=value` or path and value.
        options: what a load may repair, see `mbrl.data.options.LoadOptions`; nothing by default.

    Returns:
        The episodes, read-only. `Dataset.from_arrays`, `from_episodes` and `from_gymnasium_buffer` make one
        of data in memory.

    Raises:
        DataError: nothing is there, no format reads it, or its content would make training wrong.
        ConfigError: an option is unknown or out of range.

    Example:
        >>> import mbrl
        >>> log = mbrl.load("pendulum-mixed")
        >>> len(log), log.num_transitions
        (70, 14000)
    """
    checked = _options(options, overrides)
    if layout == "auto":
        return open_dataset(source, checked, minari_root=minari_root())
    path = locate(source, minari_root=minari_root())
    if layout not in FORMATS.names():
        legal = ", ".join(["auto", *FORMATS.names()])
        raise ConfigError(f"Unknown layout {layout!r}. Legal names: {legal}.")
    return apply_history(FORMATS.get(layout).read(path, checked), checked.history)


class InspectionResult(Result):
    """What is in a log, and whether training may start.

    Attributes:
        report: findings and figures, typed.
        record: channels against time, for the episode viewer of the page; None where nothing could be read.
    """

    def __init__(self, report: Inspection, record: Record | None = None) -> None:
        self.report, self.record = report, record

    @property
    def may_train(self) -> bool:
        """True if nothing was found that makes training wrong."""
        return self.report.may_train

    @property
    def findings(self) -> tuple[DataFinding, ...]:
        """Errors first, then warnings, then notes."""
        return self.report.findings

    def to_dict(self) -> dict[str, Any]:
        """Findings, figures and `may_train`."""
        return jsonable({**self.report.model_dump(mode="json"), "may_train": self.may_train})

    def tables(self) -> "Sequence[Table]":
        """Findings, sizes, channels."""
        from mbrl.report.run.data_tables import inspection_tables

        return inspection_tables(self.report)

    def sections(self) -> "Sequence[Section]":
        """The parts of the page, figures included."""
        from mbrl.report.run.data_sections import data_sections

        return data_sections(self.report)

    def to_html(self, path: str | Path, *, command: str = "mbrl.inspect") -> Path:
        """Writes one self-contained page with figures and a viewer of episodes."""
        from mbrl.report.run.pages import doctor_page

        target = Path(path)
        write_text(target, doctor_page(self.report, self.record, provenance={"command": command}))
        return target

    def _headline(self) -> str:
        counts = [f"{sum(f.severity == kind for f in self.findings)} {kind}s" for kind in _SEVERITIES]
        return f"{self.report.name!r}: {', '.join(counts)}, may_train={self.may_train}"


_SEVERITIES = ("error", "warning", "note")


def with_history(log: Dataset, length: int | Literal["auto"] = "auto") -> Dataset:
    """The same steps with observations of several frames and the actions between them.

    For machines that one frame does not tell: velocities that nobody logged, commands that act later. Models,
    policies, planners and estimates read such a log like any other; a model predicts the newest frame only,
    and a policy remembers what it needs where it acts (`evaluate`, `Policy.live`).

        [frame_t, frame_{t-1}, ..., frame_{t-length+1}, action_{t-1}, ..., action_{t-length+1}]

    Before an episode its first frame and the action 0 (or the bound next to it) stand for what nobody logged.

    Args:
        log: of single frames.
        length: frames, 1 or more; `auto` takes the shortest with which the held-out error of a linear model
            is within 3 % of the least. A delay of d steps takes d + 1.

    Raises:
        DataError: observations hold a history already, or `length` is below 1.

    Example:
        >>> import mbrl
        >>> log = mbrl.load("pendulum-mixed")
        >>> mbrl.with_history(log, 3).spec.obs_dim  # 3 frames of 3, 2 actions of 1
        11
    """
    return apply_history(log, length)


def inspect(
    log: Dataset | str | Path | Sequence[str | Path],
    *,
    schema: "str | Path | Mapping[str, Any] | ImportSchema | None" = None,
    overrides: Sequence[Override] = (),
    **options: Any,
) -> InspectionResult:
    """Examines a log: every problem, what is in it, and whether training may start.

    Args:
        log: an open log, or what `load` takes; a file that `load` refuses is examined as far as it can be
            read, and every problem is listed. Raw csv or Parquet files, and folders of them, are examined as
            they lie there, before an import.
        schema: what the columns of raw files are, as for `import_log`; what it sees to is said. Without one
            it is guessed.
        overrides: as for `load`, for a log that is not open yet; changes of the schema for raw files.
        options: as for `load`.

    Raises:
        DataError: nothing is there, no format reads it, or the file is damaged.
        ConfigError: options of a load are given for an open log or for raw files.

    Example:
        >>> import mbrl
        >>> mbrl.inspect("pendulum-mixed").may_train
        True
    """
    if isinstance(log, Dataset):
        if options or overrides or schema is not None:
            raise ConfigError(
                "Options of a load belong to a source; this log is open. Remedy: give its path."
            )
        return InspectionResult(inspect_dataset(log), record_of(log))
    paths = [log] if isinstance(log, (str, Path)) else list(log)
    if schema is not None or _are_raw(paths):
        if options:
            raise ConfigError("Options of a load do not hold for raw files. Remedy: give a schema.")
        return _inspect_raw([Path(path) for path in paths], schema, overrides)
    checked = _options(options, overrides)
    parsed = parse_log(paths[0], checked, minari_root=minari_root())
    report, dataset = inspect_episodes(parsed, checked)
    return InspectionResult(report, None if dataset is None else record_of(dataset))


def _are_raw(paths: Sequence[str | Path]) -> bool:
    """Whether paths are raw files: several, or one that no format reads and that holds tables."""
    if len(paths) != 1:
        return True
    path = Path(paths[0]).expanduser()
    if not (is_table(path) or holds_tables(path)):
        return False
    return all(FORMATS.get(name).refuse(path) is not None for name in FORMATS.names())


def _inspect_raw(
    paths: Sequence[Path],
    schema: "str | Path | Mapping[str, Any] | ImportSchema | None",
    overrides: Sequence[Override],
) -> InspectionResult:
    from mbrl.api.importing import read_schema

    wanted = None if schema is None else read_schema(schema, overrides)
    if wanted is None and overrides:
        raise ConfigError("Changes of a schema need one. Remedy: give schema (--schema).")
    record, used = read_record(paths, wanted)
    return InspectionResult(inspect_record(record, used, is_guessed=wanted is None), record)


def require_free(out: str | Path | None) -> None:
    """Refuses a place that holds something, before any work is done for it; None is none.

    Raises:
        ConfigError: `out` exists.
    """
    if out is not None and Path(out).exists():
        raise ConfigError(f"{out} exists already. Remedy: give another out (--out), or remove it.")


def collect(
    what: str | CollectionConfig | None = None,
    *,
    policy: str | None = None,
    env: str | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Listener = None,
) -> Dataset:
    """Makes a log in a simulator, with the log-densities of who acted.

    Args:
        what: a recipe such as `hopper/medium-replay`, the path of its yaml, a config, or a task if `policy`
            is given; None with `env`.
        policy: who acts in the task: `random`, the name of a shipped policy, a policy file, the yaml of a
            rule (`mbrl.envs.behaviour`), or the folder of a training.
        env: any Gymnasium id, in place of `what`; without a shipped task of it, one is made of its spaces and
            written into the folder `out` as `task.yaml`.
        steps: in all; None for those of the recipe.
        out: folder that it is written to, as a Minari dataset; None keeps it in memory alone.
        name: id of the dataset; None makes one of `what`.
        seed: of everything.
        threads: of torch meanwhile.
        progress: see `fit`.

    Raises:
        ConfigError: `out` exists, or the recipe, the task, the environment or the policy is unknown.

    Example:
        >>> import mbrl
        >>> log = mbrl.collect("pendulum", policy="random", steps=400, progress=False)
        >>> log.num_transitions
        400
    """
    require_free(out)
    config, task = _collection(what, policy=policy, env=env)
    label = name or config.task
    if not isinstance(what, CollectionConfig):
        label = label_of_collection(what or config.task, policy=policy, name=name)
    if steps is not None:
        config = config.model_copy(update={"steps": steps})
    with torch_settings(threads):
        dataset = collect_dataset(
            config, name=label, seed=seed, progress=choose_progress(progress), task=task
        )
    if out is None:
        return dataset
    written = save(dataset, out)
    if task is not None and own_task_hash(task) is not None:
        fields = task.model_dump(mode="json", exclude_defaults=True)
        write_text(written / "task.yaml", yaml.safe_dump(fields, sort_keys=False))
    return load(written)


def _collection(
    what: str | CollectionConfig | None, *, policy: str | None, env: str | None
) -> tuple[CollectionConfig, TaskSpec | None]:
    """What to collect, and the task of a simulator that is named by itself."""
    if (what is None) == (env is None):
        raise ConfigError("Give a recipe or a task, or the id of an environment: one of the two (--env).")
    if isinstance(what, CollectionConfig):
        return what, None
    parts = None if policy is None else (PartConfig(policy=policy),)
    if env is not None:
        if parts is None:
            raise ConfigError("An environment needs someone who acts. Remedy: policy (--policy random).")
        task = task_of_env(env)
        return CollectionConfig(task=task.name, parts=parts), task
    named = what or ""
    return (load_collection(named) if parts is None else CollectionConfig(task=named, parts=parts)), None


def save(log: Dataset, out: str | Path, *, to: str = "minari") -> Path:
    """Writes a log as a dataset.

    Args:
        log: what to write.
        out: path; must not exist.
        to: a format of `mbrl list formats`.

    Example:
        >>> log = mbrl.load("pendulum-mixed").select(range(2))
        >>> mbrl.save(log, "two.npz", to="npz").name
        'two.npz'
    """
    target = Path(out)
    return FORMATS.get(to).write(log, target)


class LogSummary(Result):
    """The size of a log that was written.

    Attributes:
        log: it.
        path: where it lies.
    """

    def __init__(self, log: Dataset, path: Path) -> None:
        self.log, self.path = log, path

    def to_dict(self) -> dict[str, Any]:
        """Sizes, hash, and what was dropped."""
        log = self.log
        values = {
            "name": log.info.name,
            "episodes": len(log),
            "transitions": log.num_transitions,
            "mean_episode_return": float(log.episode_returns.mean()) if log.has_rewards else None,
            "terminated": sum(episode.terminated for episode in log.episodes),
            "content_hash": log.content_hash,
            "sources": [source.model_dump(mode="json") for source in sources_of(log)],
            "dropped": dict(log.dropped),
            "path": str(self.path),
        }
        return jsonable(values)

    def tables(self) -> "Sequence[Table]":
        """The same, for people."""
        from mbrl.report.kit.table import Table

        apart = {"dropped", "path", "sources"}
        rows = [(key, value) for key, value in self.to_dict().items() if key not in apart]
        tables = [Table("dataset", ("", "value"), [*rows, *self.log.dropped.items()])]
        parts = [(s.name, s.episodes, s.transitions, s.content_hash) for s in sources_of(self.log)]
        if parts:
            tables.append(Table("Merged from", ("source", "episodes", "transitions", "hash"), parts))
        return tables

    def _headline(self) -> str:
        return f"{self.log.info.name!r}, {len(self.log)} episodes, {str(self.path)!r}"


def label_of_collection(what: str, *, policy: str | None = None, name: str | None = None) -> str:
    """What a collected log is called: its name, else that of the recipe, else task and policy."""
    if name is not None:
        return name
    stem = what.removesuffix(".yaml").removesuffix(".yml")
    return stem if policy is None else f"{Path(stem).name}/{Path(policy).stem}"


def _options(options: Mapping[str, Any], overrides: Sequence[Override]) -> LoadOptions:
    tree: Tree = dict(options)
    for path, value in read_overrides(overrides):
        set_at(tree, path, value)
    return validate(LoadOptions, tree, where="--set" if overrides else "Options of the log")
