"""Success classifiers: fitted to labels of episodes or steps, and used as rewards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.data import load, require_free
from mbrl.api.preferences.fitted import FittedReward, with_interval
from mbrl.api.progress import Listener
from mbrl.api.session import open_workspace, torch_settings
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.preferences.success.fit import SuccessConfig
from mbrl.preferences.success.judge import ClassReport
from mbrl.preferences.success.labels import SuccessLabel, SuccessLabels, read_labels, write_labels
from mbrl.run.documents import Override, read_overrides
from mbrl.run.preferences.success import (
    LabelSource,
    SuccessReport,
    fit_success_stage,
    read_success_report,
)
from mbrl.run.store import RunFolder
from mbrl.run.validation import validate

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table


class SuccessModel(FittedReward[SuccessReport]):
    """A classifier of success: an ensemble, and how it tells episodes that it did not see.

    Attributes:
        path: folder of the fit.
        stored: the ensemble and its identity.
        report: what the fit found.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.report = read_success_report(folder)

    def tables(self) -> "Sequence[Table]":
        """The fit, and the reliability of its probabilities."""
        from mbrl.report.kit.table import Table

        report, held = self.report, self.report.held_out
        rows = [
            ("labelled steps", report.labelled_steps),
            ("of these success", report.successful_steps),
            ("steps that it learned from", report.fitted_steps),
            ("held-out steps", held.steps),
            ("held-out episodes", held.episodes),
            ("successes that it tells", _recall(held.successes)),
            ("failures that it tells", _recall(held.failures)),
            ("probability that a success ranks above a failure", held.area),
            ("log-loss, nats", held.log_loss),
            ("which the share of successes alone has", held.log_loss_of_share),
            ("calibration error", held.calibration_error),
            ("which a perfect model's stays below", held.calibration_chance),
            ("disagreement of members, in probability", held.disagreement),
            ("correlation with the logged reward", report.correlation),
            ("updates", report.updates),
        ]
        bins = [
            (one.pairs, one.confidence, with_interval(one.correct, one.low, one.high)) for one in held.bins
        ]
        return [
            Table("success classifier", ("", "value"), rows),
            Table("reliability on held-out episodes", ("steps", "how sure", "how often right"), bins),
        ]

    def messages(self) -> Sequence[str]:
        """What speaks against it."""
        return self.report.warnings

    def _headline(self) -> str:
        held = self.report.held_out
        return (
            f"{self.report.fitted_steps} steps, area {held.area:.3g} on {held.episodes} held-out episodes, "
            f"{str(self.path)!r}"
        )


def _recall(found: ClassReport) -> str | None:
    return with_interval(found.recall, found.low, found.high)


def fit_success(
    log: Dataset | str | Path,
    labels: "SuccessLabels | str | Path | Sequence[str | Path] | None" = None,
    *,
    column: str | None = None,
    seed: int = 0,
    threads: int = 1,
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> SuccessModel:
    """Fits a success classifier, or finds the fit that was made before; it is a reward model like others.

    Rewards of the log, where it has any, are not read but for one number of the report.

    Args:
        log: an open log, or what `mbrl.load` takes.
        labels: of its episodes or stretches, or one file of labels or several.
        column: or a column of flags of the log, such as `next.success` of LeRobot.
        seed: of every random stream.
        threads: of torch meanwhile.
        store: root of the run folders; None for a temporary one of this process.
        progress: see `mbrl.fit`.
        overrides: changes of `SuccessConfig`, `key=value` or path and value.
        changes: the same by name: `last_steps=5`, `earlier="failure"`.

    Raises:
        ConfigError: neither labels nor a column are given, or both; a setting is unknown or out of range.
        DataError: the labels are about another log, of one class, or of too few episodes.

    Example:
        >>> import mbrl
        >>> from mbrl.api.preferences import fit_success, success_labels
        >>> log = mbrl.load("pendulum-mixed")
        >>> upright = {k: bool(e.observations[-2, 0] > 0.9) for k, e in enumerate(log.episodes)}
        >>> model = fit_success(log, success_labels(log, upright), max_updates=20, progress=False)
        >>> new = mbrl.relabel(log, reward_model=model, pessimism=1.0)
        >>> new.info.derived_from == log.content_hash
        True
    """
    if (labels is None) == (column is None):
        raise ConfigError("Name where labels are: in files (--labels), or in a column of the log (--column).")
    given = {".".join(path): value for path, value in read_overrides(overrides)}
    config = validate(SuccessConfig, {**given, **changes}, where="The success classifier")
    workspace = open_workspace(store, progress)
    dataset = log if isinstance(log, Dataset) else load(log)
    source = LabelSource(None if labels is None else _as_labels(labels), column)
    with torch_settings(threads):
        return SuccessModel(fit_success_stage(dataset, source, config, workspace, seed=seed))


def success_labels(
    log: Dataset | str | Path,
    outcomes: Mapping[int, bool],
    *,
    annotator: str = "",
    out: str | Path | None = None,
) -> SuccessLabels:
    """Labels of whole episodes of a log.

    Args:
        log: an open log, or what `mbrl.load` takes.
        outcomes: whether an episode succeeded, by its number from 0; others stay without a label.
        annotator: who says so.
        out: `.jsonl` or `.parquet` file to write; must be free. None keeps them in memory alone.

    Raises:
        DataError: the log has no such episode.
    """
    require_free(out)
    dataset = log if isinstance(log, Dataset) else load(log)
    told = [
        SuccessLabel(int(episode), "success" if is_success else "failure", annotator=annotator)
        for episode, is_success in outcomes.items()
    ]
    labels = SuccessLabels(dataset.content_hash, tuple(told))
    labels.require_log(dataset)
    if out is not None:
        write_labels(labels, out)
    return labels


def _as_labels(given: "SuccessLabels | str | Path | Sequence[str | Path]") -> SuccessLabels:
    if isinstance(given, SuccessLabels):
        return given
    return read_labels(given) if isinstance(given, (str, Path)) else read_labels(*given)
