"""Reward models: fitted to preferences, asked, and made to ask."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.data import load, require_free
from mbrl.api.preferences.answers import as_preferences
from mbrl.api.preferences.fitted import FittedReward, with_interval
from mbrl.api.progress import Listener
from mbrl.api.result import Result
from mbrl.api.session import open_workspace, torch_settings
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.preferences.fit import RewardConfig
from mbrl.preferences.pairs import Preference, PreferenceSet, Segment
from mbrl.preferences.queries import QUERIES, Query, choose_pairs
from mbrl.run.documents import Override, read_overrides
from mbrl.run.preferences.queue import write_queue
from mbrl.run.preferences.reward import RewardReport, fit_reward_stage, open_reward, read_report
from mbrl.run.store import RunFolder
from mbrl.run.validation import validate

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table


class RewardModel(FittedReward[RewardReport]):
    """A reward that was learned from preferences: an ensemble, and how it tells pairs that it did not see.

    Attributes:
        path: folder of the fit.
        stored: the ensemble and its identity.
        report: what the fit found.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.report = read_report(folder)

    def tables(self) -> "Sequence[Table]":
        """The fit, and the reliability of its probabilities."""
        from mbrl.report.kit.table import Table

        report, held = self.report, self.report.held_out
        rows = [
            ("pairs that it learned from", report.fitted_pairs),
            ("held-out pairs", held.pairs),
            ("accuracy on these", with_interval(held.accuracy, held.accuracy_low, held.accuracy_high)),
            ("log-loss, nats (a coin: 0.693)", held.log_loss),
            ("calibration error", held.calibration_error),
            ("which a perfect model's stays below", held.calibration_chance),
            ("disagreement of members, in probability", held.disagreement),
            ("correlation with the logged reward", report.correlation),
            ("agreement of annotators, Fleiss' kappa", report.kappa),
            ("updates", report.updates),
        ]
        bins = [
            (one.pairs, one.confidence, with_interval(one.correct, one.low, one.high)) for one in held.bins
        ]
        return [
            Table("reward model", ("", "value"), rows),
            Table("reliability on held-out pairs", ("pairs", "how sure", "how often right"), bins),
        ]

    def messages(self) -> Sequence[str]:
        """What speaks against it."""
        return self.report.warnings

    def _headline(self) -> str:
        held = self.report.held_out
        told = "no accuracy" if held.accuracy is None else f"accuracy {held.accuracy:.3g}"
        return f"{self.report.fitted_pairs} pairs, {told} on {held.pairs} held-out, {str(self.path)!r}"


def fit_reward(
    log: Dataset | str | Path,
    preferences: "PreferenceSet | str | Path | Sequence[str | Path]",
    *,
    seed: int = 0,
    threads: int = 1,
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> RewardModel:
    """Fits a reward model to preferences, or finds the fit that was made before.

    Rewards of the log, where it has any, are not read but for one number of the report.

    Args:
        log: an open log, or what `mbrl.load` takes.
        preferences: answers about it, or one preference file or several.
        seed: of every random stream.
        threads: of torch meanwhile.
        store: root of the run folders; None for a temporary one of this process.
        progress: see `mbrl.fit`.
        overrides: changes of `RewardConfig`, `key=value` or path and value.
        changes: the same by name: `members=3`, `lapse=0.1`.

    Raises:
        ConfigError: a setting is unknown or out of range.
        DataError: the answers are about another log, or too few.

    Example:
        >>> import mbrl
        >>> from mbrl.api.preferences import fit_reward, synthetic_preferences
        >>> log = mbrl.load("pendulum-mixed")
        >>> answers = synthetic_preferences(log, pairs=40).preferences
        >>> model = fit_reward(log, answers, max_updates=20, hidden=[16], progress=False)
        >>> new = mbrl.relabel(log, reward_model=model, pessimism=1.0)
        >>> new.info.derived_from == log.content_hash
        True
    """
    given = {".".join(path): value for path, value in read_overrides(overrides)}
    config = validate(RewardConfig, {**given, **changes}, where="The reward model")
    workspace = open_workspace(store, progress)
    dataset = log if isinstance(log, Dataset) else load(log)
    with torch_settings(threads):
        folder = fit_reward_stage(dataset, as_preferences(preferences), config, workspace, seed=seed)
    return RewardModel(folder)


class PairQueue(Result):
    """Pairs that are to be asked next.

    Attributes:
        pairs: the most informative first.
        path: of the file that `mbrl label --pairs` reads, or None.
    """

    def __init__(self, pairs: Sequence[tuple[Segment, Segment]], path: Path | None) -> None:
        self.pairs, self.path = tuple(pairs), path

    def to_dict(self) -> dict[str, Any]:
        """The pairs: episode, start and length of both sides."""
        pairs = [[[s.episode, s.start, s.length] for s in pair] for pair in self.pairs]
        return {"pairs": pairs, "path": None if self.path is None else str(self.path)}

    def tables(self) -> "Sequence[Table]":
        """The first ten."""
        from mbrl.report.kit.table import Table

        rows = [(a.episode, a.start, b.episode, b.start, a.length) for a, b in self.pairs[:10]]
        heads = ("left episode", "from step", "right episode", "from step", "steps")
        return [Table(f"the first {len(rows)} of {len(self.pairs)} pairs", heads, rows)]

    def _headline(self) -> str:
        return f"{len(self.pairs)} pairs"


def next_pairs(
    log: Dataset | str | Path,
    model: "RewardModel | str | Path | None" = None,
    *,
    count: int = 50,
    length: int = 25,
    query: Query = "disagreement",
    known: "PreferenceSet | str | Path | Sequence[str | Path] | None" = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> PairQueue:
    """Which pairs to ask next: those that the members of a reward model dispute, or random ones.

    Args:
        log: an open log, or what `mbrl.load` takes.
        model: a fitted reward model, or the path of its fit or file.
        count: how many.
        length: steps of a segment.
        query: `disagreement` or `random`.
        known: answers that are there; their pairs are not asked again.
        seed: of the draws.
        out: `.jsonl` file to write; must be free.

    Raises:
        ConfigError: no model is given, or the query is unknown.
        DataError: the log has no two segments of that length.
    """
    require_free(out)
    if query not in QUERIES:
        raise ConfigError(f"Unknown query {query!r}. Legal names: {', '.join(QUERIES)}.")
    if query == "disagreement" and model is None:
        raise ConfigError(
            "Disagreement is that of a reward model. Remedy: --reward-model FIT, or --query random."
        )
    if count < 1 or length < 1:
        raise ConfigError(f"count={count} and length={length} must be 1 or more.")
    dataset = log if isinstance(log, Dataset) else load(log)
    answers: tuple[Preference, ...] = () if known is None else as_preferences(known).answers
    ensemble = None
    if model is not None:
        ensemble = (model.stored if isinstance(model, RewardModel) else open_reward(Path(model))).model
        if ensemble.spec.unit != "deviations":
            raise ConfigError(
                "The reward model is a success classifier, which answers no pairs. Remedy: name a model of "
                "mbrl fit-reward --preferences, or --query random."
            )
    chosen = choose_pairs(
        dataset, count=count, length=length, model=ensemble, query=query, known=answers, seed=seed
    )
    written = None if out is None else write_queue(Path(out), dataset.content_hash, chosen)
    return PairQueue(chosen, written)
