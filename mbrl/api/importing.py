"""Raw robot files to datasets, other rewards for a log, several logs as one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.data import load, require_free, save
from mbrl.api.result import Result, jsonable
from mbrl.core.assets import configs_dir
from mbrl.core.errors import ConfigError
from mbrl.core.names import listed, suggest
from mbrl.data.dataset import Dataset
from mbrl.data.importing.guess.write import Guess, guess_files
from mbrl.data.importing.importer import import_files
from mbrl.data.importing.report import ImportReport
from mbrl.data.importing.schema import ImportSchema
from mbrl.data.merging.merge import merge_datasets
from mbrl.data.relabel import load_reward_function, relabel_dataset
from mbrl.run.documents import Override, Tree, read_overrides, read_yaml, set_at
from mbrl.run.files import write_text
from mbrl.run.validation import validate

if TYPE_CHECKING:
    from mbrl.api.preferences.fitted import FittedReward
    from mbrl.report.kit.table import Table

_YAML = (".yaml", ".yml")


class ImportResult(Result):
    """A dataset that was made of raw files.

    Attributes:
        log: it.
        report: what was read, left out and made.
        path: where it was written; None if it was not.
    """

    def __init__(self, log: Dataset, report: ImportReport, path: Path | None) -> None:
        self.log, self.report, self.path = log, report, path

    def to_dict(self) -> dict[str, Any]:
        """Sizes, hash, clocks, and what was left out."""
        report = self.report
        return jsonable(
            {
                "name": self.log.info.name,
                "files": report.files,
                "rows": report.rows,
                "episodes": report.episodes,
                "terminated": report.terminated,
                "transitions": report.transitions,
                "has_rewards": self.log.has_rewards,
                "rate": report.rate,
                "logged_interval": list(report.interval),
                "longest_interval": max(clock.longest for clock in report.clocks),
                "dropped": dict(report.dropped),
                "content_hash": self.log.content_hash,
                "schema": report.schema.model_dump(mode="json"),
                "path": None if self.path is None else str(self.path),
            }
        )

    def tables(self) -> "Sequence[Table]":
        """What was made, what was left out, and the channels."""
        from mbrl.report.run.data_tables import import_tables

        return import_tables(self.report, self.log)

    def _headline(self) -> str:
        where = "in memory" if self.path is None else repr(str(self.path))
        return f"{self.log.info.name!r}, {self.report.rows:,} rows to {len(self.log)} episodes, {where}"


def import_log(
    schema: str | Path | Mapping[str, Any] | ImportSchema,
    files: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    to: str = "minari",
    overrides: Sequence[Override] = (),
) -> ImportResult:
    r"""Makes a dataset of raw csv or Parquet files.

    Args:
        schema: what the columns are: path of a yaml, name of a shipped one, a mapping, or an object.
        files: files, or folders whose files match the schema.
        out: where the dataset is written; must not exist. None keeps it in memory alone.
        to: a format of `mbrl list formats`.
        overrides: changes of the schema, `key=value` or path and value.

    Raises:
        ConfigError: the schema has an unknown key, a value out of range, or an unreadable expression.
        DataError: a column is missing, or a file or value cannot be used.

    Example:
        >>> import mbrl, pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
        >>> _ = file.write_text("t,x,u\n" + "".join(f"{k / 10},{k % 7},{k % 3}\n" for k in range(100)))
        >>> schema = {"name": "demo", "time": {"column": "t"}, "observations": ["x"], "actions": ["u"]}
        >>> mbrl.import_log(schema, file).log.num_transitions
        99
    """
    read = read_schema(schema, overrides)
    require_free(out)
    paths = [files] if isinstance(files, (str, Path)) else files
    log, report = import_files(read, [Path(path) for path in paths])
    if out is None:
        return ImportResult(log, report, None)
    written = save(log, out, to=to)
    return ImportResult(load(written), report, written)


def read_schema(
    schema: str | Path | Mapping[str, Any] | ImportSchema, overrides: Sequence[Override] = ()
) -> ImportSchema:
    """A schema in any of its forms.

    Raises:
        ConfigError: there is none of that name, or it cannot be used.
    """
    where = "Import schema"
    if isinstance(schema, ImportSchema):
        tree: Tree = schema.model_dump(mode="json", exclude_unset=True)
    elif isinstance(schema, Mapping):
        tree = dict(schema)
    else:
        path = _schema_path(str(schema))
        where = f"Import schema {path}"
        tree = read_yaml(path)
    for key, value in read_overrides(overrides):
        set_at(tree, key, value)
    return validate(ImportSchema, tree, where=where)


def shipped_schemas() -> tuple[str, ...]:
    """Names of the schemas that travel with the package."""
    return tuple(sorted(path.stem for path in (configs_dir() / "imports").glob("*.yaml")))


def is_schema(text: str) -> bool:
    """Whether a word of the command line means a schema rather than a log."""
    return Path(text).suffix in _YAML or text in shipped_schemas()


def _schema_path(text: str) -> Path:
    if Path(text).suffix in _YAML:
        return Path(text)
    names = shipped_schemas()
    if text not in names:
        raise ConfigError(
            f"Unknown import schema {text!r}. {suggest(text, names)}Shipped schemas: {listed(names)}; or the "
            "path of a .yaml file."
        )
    return configs_dir() / "imports" / f"{text}.yaml"


class GuessResult(Result):
    """A first schema of unknown files.

    Attributes:
        guess: the schema, and why.
        path: where its yaml was written; None if it was not.
    """

    def __init__(self, guess: Guess, path: Path | None) -> None:
        self.guess, self.path = guess, path

    @property
    def text(self) -> str:
        """The yaml, with a comment on every guess."""
        return self.guess.text

    def to_dict(self) -> dict[str, Any]:
        """The schema and its yaml."""
        schema = self.guess.schema.model_dump(mode="json", exclude_defaults=True)
        return jsonable(
            {"schema": schema, "yaml": self.text, "path": None if self.path is None else str(self.path)}
        )

    def tables(self) -> "Sequence[Table]":
        """What was found of each column."""
        from mbrl.report.kit.table import Table

        return [Table("columns", ("column", "what it looks like"), self.guess.findings)]

    def messages(self) -> list[str]:
        """The yaml, unless it was written."""
        return (
            [self.text]
            if self.path is None
            else ["Edit the schema, then: mbrl import SCHEMA FILES --out DATASET"]
        )

    def _headline(self) -> str:
        return f"{self.guess.schema.name!r}, {len(self.guess.schema.observations)} observations"


def guess_schema(files: str | Path | Sequence[str | Path], *, out: str | Path | None = None) -> GuessResult:
    r"""Writes a first schema of files that nobody has described, with a comment on every guess.

    Args:
        files: csv or Parquet files, or folders of them.
        out: yaml to write; must not exist. None only returns it.

    Raises:
        DataError: the files are no tables, or have no time.
        ConfigError: `out` exists.

    Example:
        >>> from pathlib import Path
        >>> rows = [f"{k / 50},{k % 7},{k % 5}" for k in range(200)]
        >>> _ = Path("run.csv").write_text("\n".join(["time,angle,torque", *rows]))
        >>> "angle" in mbrl.guess_schema("run.csv").text
        True
    """
    require_free(out)
    paths = [files] if isinstance(files, (str, Path)) else files
    guess = guess_files([Path(path) for path in paths])
    if out is not None:
        write_text(Path(out), guess.text)
    return GuessResult(guess, None if out is None else Path(out))


def relabel(
    log: Dataset | str | Path,
    *,
    reward: str | None = None,
    termination: str | None = None,
    module: str | Callable[..., Any] | None = None,
    reward_model: "str | Path | FittedReward[Any] | None" = None,
    pessimism: float = 0.0,
    offset: float = 0.0,
    out: str | Path | None = None,
    to: str = "minari",
) -> Dataset:
    """The same log with another reward or termination, linked to the first by its hash.

    Args:
        log: an open log, or what `load` takes.
        reward: expression over the names of observations and actions, and `next_<name>`.
        termination: condition likewise; what follows it in an episode is left out.
        module: `file.py:function`, or a function, of observations, actions and next observations that
            returns a reward for each step.
        reward_model: or a reward model of answers, of success or of an imitation: itself, or the path of
            its run or file.
        pessimism: of a reward model, k of `mean_i r_i - k std_i r_i` over its members.
        offset: of a reward model, what every step earns besides; comparisons do not tell it.
        out: where it is written; must not exist. None keeps it in memory alone.
        to: a format of `mbrl list formats`.

    Raises:
        ConfigError: an expression cannot be read or reads an unknown name, or the function fails.
        DataError: a reward is not finite.

    Example:
        >>> import mbrl
        >>> log = mbrl.relabel("pendulum-mixed", reward="-abs(obs_2) - 0.1 * act_0**2")
        >>> log.info.derived_from == mbrl.load("pendulum-mixed").content_hash
        True
    """
    require_free(out)
    before = log if isinstance(log, Dataset) else load(log)
    if reward_model is not None:
        if reward is not None or module is not None:
            raise ConfigError("Give one reward: an expression, a function, or a reward model.")
        made = _by_model(before, reward_model, pessimism, offset, termination)
    else:
        made = _by_rule(before, reward, termination, module)
    return made if out is None else load(save(made, out, to=to))


def _by_model(
    log: Dataset,
    reward_model: "str | Path | FittedReward[Any]",
    pessimism: float,
    offset: float,
    termination: str | None,
) -> Dataset:
    from mbrl.run.preferences.relabelling import relabel_by_model
    from mbrl.run.preferences.reward import open_reward

    path = Path(reward_model) if isinstance(reward_model, (str, Path)) else reward_model.path
    stored = open_reward(path)
    return relabel_by_model(log, stored, pessimism=pessimism, offset=offset, termination=termination)


def _by_rule(
    log: Dataset, reward: str | None, termination: str | None, module: str | Callable[..., Any] | None
) -> Dataset:
    function, name = None, ""
    if isinstance(module, str):
        function, name = load_reward_function(module)
    elif module is not None:
        function, name = module, f"function {getattr(module, '__name__', 'of the caller')}"
    return relabel_dataset(log, reward=reward, termination=termination, function=function, function_name=name)


def merge(
    logs: Sequence[Dataset | str | Path],
    *,
    out: str | Path | None = None,
    name: str | None = None,
    to: str = "minari",
    overrides: Sequence[Override] = (),
    **options: Any,
) -> Dataset:
    """Several logs of the same channels as one; every row says which it came from.

    Args:
        logs: two at least, open ones or what `load` takes.
        out: where it is written; must not exist. None keeps it in memory alone.
        name: of the result; None joins theirs by `+`.
        to: a format of `mbrl list formats`.
        overrides: changes of the options, as for `load`.
        options: of `load`, for logs that are not open yet.

    Raises:
        DataError: they differ in channels, units, spaces, bounds, rate, task, rules or history; the field is
            named. Or one is given twice.
        ConfigError: `out` exists, or an option is unknown.

    Example:
        >>> import mbrl
        >>> from mbrl.api.importing import merge
        >>> log = mbrl.load("pendulum-mixed")
        >>> len(merge([log.select(range(10)), log.select(range(10, 30))]))
        30
    """
    require_free(out)
    opened = [log if isinstance(log, Dataset) else load(log, overrides=overrides, **options) for log in logs]
    merged = merge_datasets(opened, name=name)
    return merged if out is None else load(save(merged, out, to=to))
