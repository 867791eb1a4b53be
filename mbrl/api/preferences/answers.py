"""Preference files: read, made up, examined."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.data import load, require_free
from mbrl.api.result import Result, jsonable
from mbrl.core.errors import ConfigError, DataError
from mbrl.data.dataset import Dataset
from mbrl.data.relabel import relabel_dataset
from mbrl.preferences.agreement import Agreement, measure_agreement
from mbrl.preferences.files import read_preferences, write_preferences
from mbrl.preferences.pairs import PreferenceSet
from mbrl.preferences.synthetic import TeacherConfig, answer_pairs, draw_pairs
from mbrl.run.validation import validate

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table


class PreferenceResult(Result):
    """Answers, and how far those who gave them agree.

    Attributes:
        preferences: the answers.
        agreement: of annotators, on pairs that several saw.
        path: of a file that was written, or None.
    """

    def __init__(self, preferences: PreferenceSet, path: Path | None = None) -> None:
        self.preferences, self.path = preferences, path
        self.agreement: Agreement = measure_agreement(preferences)

    def to_dict(self) -> dict[str, Any]:
        """Counts by label, annotators, and their agreement."""
        answers = self.preferences
        return jsonable(
            {
                "dataset": answers.dataset,
                "answers": len(answers),
                "labels": dict(answers.counts()),
                "annotators": list(answers.annotators()),
                "agreement": dataclasses.asdict(self.agreement),
                "path": None if self.path is None else str(self.path),
            }
        )

    def tables(self) -> "Sequence[Table]":
        """Labels by annotator; agreement of every two who share pairs."""
        from mbrl.report.kit.table import Table

        labels = list(self.preferences.counts())
        rows = [
            (name or "(nobody noted)", *(self._count(name, label) for label in labels))
            for name in self.preferences.annotators()
        ]
        tables = [Table("answers", ("annotator", *labels), rows)]
        by_two = self.agreement.by_two
        if by_two:
            shared = [(two.first, two.second, two.pairs, two.share, two.kappa) for two in by_two]
            heads = ("annotator", "and", "shared pairs", "same answer", "Cohen's kappa")
            tables.append(Table("agreement", heads, shared))
        return tables

    def messages(self) -> Sequence[str]:
        """Agreement of all."""
        found = self.agreement
        if not len(self.preferences):
            return ["There are no answers yet."]
        if not found.pairs:
            return ["No pair was answered by two annotators: their agreement is not known."]
        return [f"Fleiss' kappa over {found.pairs} pairs that several saw: {found.kappa:.2f}."]

    def _count(self, annotator: str, label: str) -> int:
        answers = self.preferences.answers
        return sum(answer.annotator == annotator and answer.label == label for answer in answers)

    def _headline(self) -> str:
        return repr(self.preferences)


def load_preferences(*paths: str | Path) -> PreferenceSet:
    """The answers of one or several files about one log, one file after the other.

    Args:
        paths: `.jsonl` or `.parquet`.

    Raises:
        DataError: a row is wrong (file, row and field are named), or the files are about several logs.
    """
    sets = [read_preferences(path) for path in paths]
    if not sets:
        raise ConfigError("No preference file is named. Remedy: give one, or several of one log.")
    for path, one in zip(paths, sets, strict=True):
        if one.dataset != sets[0].dataset:
            raise DataError(
                f"it is about another log than {paths[0]}",
                file=path,
                field="dataset",
                remedy="Give files of one log.",
            )
    return PreferenceSet(sets[0].dataset, tuple(answer for one in sets for answer in one.answers))


def as_preferences(given: "PreferenceSet | str | Path | Sequence[str | Path]") -> PreferenceSet:
    """The answers that are given, or those of the named files."""
    if isinstance(given, PreferenceSet):
        return given
    return load_preferences(given) if isinstance(given, (str, Path)) else load_preferences(*given)


def inspect_preferences(
    log: Dataset | str | Path | None, preferences: "PreferenceSet | str | Path | Sequence[str | Path]"
) -> PreferenceResult:
    """Checks answers against their log, and measures the agreement of annotators.

    Args:
        log: an open log, or what `mbrl.load` takes; None checks the files alone.
        preferences: the answers, or one file or several.

    Raises:
        DataError: a row is wrong, or is about another log.
    """
    found = as_preferences(preferences)
    if log is not None:
        found.require_log(log if isinstance(log, Dataset) else load(log))
    return PreferenceResult(found)


def synthetic_preferences(
    log: Dataset | str | Path,
    *,
    pairs: int = 200,
    length: int = 25,
    reward: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    **teacher: Any,
) -> PreferenceResult:
    """Answers of a made-up annotator who knows a reward: for tests, and to learn how many pairs a task takes.

    Args:
        log: an open log, or what `mbrl.load` takes.
        pairs: how many, drawn uniformly.
        length: steps of a segment.
        reward: expression as for `mbrl.relabel`; None takes the log's own reward.
        seed: of pairs and answers.
        out: `.jsonl` or `.parquet` file to write; must be free. None keeps them in memory alone.
        teacher: `noise`, `myopia`, `rationality`, `equal_margin`, see `TeacherConfig`.

    Raises:
        ConfigError: a value is out of range.
        DataError: the log has no rewards, or no segments of that length.

    Example:
        >>> from mbrl.api.preferences import synthetic_preferences
        >>> len(synthetic_preferences("pendulum-mixed", pairs=20, noise=0.1).preferences)
        20
    """
    require_free(out)
    config = validate(TeacherConfig, teacher, where="The made-up annotator")
    if pairs < 1 or length < 1:
        raise ConfigError(f"pairs={pairs} and length={length} must be 1 or more.")
    dataset = log if isinstance(log, Dataset) else load(log)
    known = None if reward is None else relabel_dataset(dataset, reward=reward)
    if known is not None and (known.episode_lengths != dataset.episode_lengths).any():
        raise ConfigError(
            "The reward reads successors that were not logged. Remedy: read states and actions."
        )
    asked = draw_pairs(dataset, count=pairs, length=length, seed=seed)
    rewards = None if known is None else [episode.rewards for episode in known.episodes]
    answers = answer_pairs(dataset, asked, config, rewards=rewards, seed=seed)
    written = None if out is None else write_preferences(answers, out)
    return PreferenceResult(answers, written)
