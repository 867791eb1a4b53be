"""Policies judged by a log alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from mbrl.algorithms.imagination import TerminationSource
from mbrl.api.model import Dynamics
from mbrl.api.policy import as_policy
from mbrl.api.progress import Listener
from mbrl.api.result import Result, jsonable
from mbrl.api.session import minari_root, open_workspace, origin_of, torch_settings
from mbrl.core.errors import ConfigError, DataError
from mbrl.core.history import History
from mbrl.data.dataset import Dataset
from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from mbrl.data.stacking.history import with_history
from mbrl.off_policy.estimators.context import EstimatorSettings
from mbrl.off_policy.judgement.families import BEHAVIOUR
from mbrl.off_policy.judgement.report.documents import DeploymentReport
from mbrl.off_policy.judgement.risk import RiskQuestion
from mbrl.off_policy.judgement.verdict import EXIT_CODES, VerdictName
from mbrl.off_policy.log.policies import is_stochastic
from mbrl.off_policy.log.task_horizon import TaskHorizon
from mbrl.off_policy.log.weights import WeightTransform
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.run.judge.deployment import DEPLOYMENT_FILE, PAGE, Trials, deployment_stage, unique_names
from mbrl.run.judge.model import ChosenModel, ModelRequest, choose_model
from mbrl.run.judge.ope import OPESettings, ope_stage
from mbrl.run.judge.question import RETURN_DISCOUNT, asked_horizon, question_words
from mbrl.run.judge.tested import read_tested
from mbrl.run.policies import StoredPolicy
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder
from mbrl.run.validation import validate

if TYPE_CHECKING:
    from mbrl.report.kit.html import Section
    from mbrl.report.kit.table import Table


class OPEResult(Result):
    """What a log says of policies, and what to do.

    Attributes:
        path: the page; the numbers lie beside it.
        report: of all candidates, typed.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.path / PAGE
        self.report = DeploymentReport.load(folder.path / DEPLOYMENT_FILE)

    @property
    def proposed(self) -> str:
        """Name of the candidate that the log speaks for most."""
        return self.report.proposed

    @property
    def verdict(self) -> VerdictName:
        """Of the proposed candidate, at a level that holds for all of them at once."""
        return self.report.proposed_report.verdict.final.verdict

    @property
    def question(self) -> str:
        """What was asked, in words, with who says how long an episode is."""
        from mbrl.report.deployment.sentences import question_sentence

        return question_sentence(self.report.proposed_report)

    @property
    def exit_code(self) -> int:
        """Of the command line: 0 go, 10 go with guard, 20 no-go, 30 cannot tell."""
        return EXIT_CODES[self.report.proposed_report.verdict.final.verdict]

    def to_dict(self) -> dict[str, Any]:
        """The report, and the folder of the page."""
        values = {"question": self.question, **self.report.to_json(), "path": str(self.path.parent)}
        return jsonable(values)

    def opening(self) -> Sequence[str]:
        """What was asked."""
        return [self.question]

    def tables(self) -> "Sequence[Table]":
        """Candidates side by side, then the estimates of each."""
        from mbrl.report.deployment.flags import flag_table
        from mbrl.report.deployment.tables import candidate_table, estimate_table, trial_table

        reports = self.report.reports
        tables = [candidate_table(self.report), trial_table(self.report)] if len(reports) > 1 else []
        for report in reports:
            tables += [estimate_table(report), flag_table(report)]
        return [table for table in tables if table.rows]

    def messages(self) -> Sequence[str]:
        """The verdicts with their reasons."""
        from mbrl.report.deployment.sentences import verdict_lines

        return [line for report in self.report.reports for line in verdict_lines(report)]

    def sections(self) -> "Sequence[Section]":
        """The parts of the page, figures included."""
        from mbrl.report.deployment.page import deployment_messages, deployment_sections
        from mbrl.report.kit.html import Section

        verdict = Section("Verdict", text=self.question, messages=deployment_messages(self.report))
        return [verdict, *deployment_sections(self.report)]

    def to_html(self, path: str | Path) -> Path:
        """Copies the page."""
        target = Path(path)
        target.write_bytes(self.path.read_bytes())
        return target

    def _headline(self) -> str:
        count = len(self.report.reports)
        return f"{self.verdict!r} for {self.proposed!r}, {count} candidates, {str(self.path)!r}"


class OPEOptions(BaseModel):
    """How `ope` asks a log.

    Attributes:
        discount: of the value; 1 for the return, as it is reported, or that of a training.
        horizon: steps that count; None for the whole task.
        stochastic: judge the policy's draws in place of its evaluation action.
        updates: gradient steps of a value fit.
        judges: dynamics ensembles that trained no policy, which value the policies by their roll-outs; they
            are shared by all policies of the log, and fitted where they are missing. 0 for none.
        own_model: roll the model of each candidate's own run out in place of judges, fitted where it is
            missing, which is flagged: a policy exploits what it was trained in.
        termination: end of roll-outs: `learned`, `task` (its known rule) or `never`; `auto` takes the rule
            where there is one.
        crossfit: folds of the values under dr, wdr and magic; 0 for none.
        backtest: first ask for the known value of the policy that acted, by fits on halves of the log;
            without it a model's answer does not count.
        test_episodes: episodes that may be tested next on the machine.
        weights: changes of importance weights, variance for bias, such as `cap=20` or `switch=10`: of
            `clip_log_ratio`, `cap`, `switch` and `shrinkage` (`WeightTransform`); empty for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    discount: Annotated[float, Field(ge=0, le=1)] = RETURN_DISCOUNT
    horizon: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    stochastic: bool = False
    updates: Annotated[int, Field(ge=1)] = 100_000
    judges: Annotated[int, Field(ge=0, le=20)] = 2
    own_model: bool = False
    termination: TerminationSource = "auto"
    crossfit: Annotated[int, Field(ge=0, le=5)] = 0
    backtest: bool = False
    test_episodes: Annotated[int, Field(ge=1, le=10_000)] = 10
    weights: str = ""


def ope(
    policies: Any,
    log: Dataset | str | Path,
    *,
    baseline: Any = BEHAVIOUR,
    risk: str | RiskQuestion | None = None,
    dynamics: "Dynamics | str | Path | None" = None,
    tested: str | Path | Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
    threads: int = 1,
    device: str = "cpu",
    store: str | Path | None = None,
    progress: Listener = None,
    command: str = "mbrl.off_policy",
    **options: Any,
) -> OPEResult:
    """Judges policies by a log alone, and proposes what to do: estimates, intervals, a verdict with reasons.

    Args:
        policies: one or several of what `evaluate` takes.
        log: an open log, or what `load` takes.
        baseline: what they are compared with: `behaviour`, the policy that acted, or another policy.
        risk: largest probability permitted of an early end, `termination:LIMIT`, or of a discounted return
            below a value, `below:RETURN:LIMIT`.
        dynamics: a fitted model, or the folder of a fit; None takes judges, see `OPEOptions`.
        tested: returns seen on the machine, by name, or a CSV file of them; they inform what to test next.
        seed: of all draws.
        threads: of torch meanwhile.
        device: where values and judges are fitted: `cpu`, `cuda` or `cuda:N`.
        store: root of the run folders; None for a temporary one of this process.
        progress: see `fit`.
        command: that makes the page again, for its footer.
        options: see `OPEOptions`.

    Raises:
        ConfigError: a policy, a name or a value is wrong.
        DataError: the log cannot be used.

    Example:
        >>> log = mbrl.load("pendulum-mixed").select(range(0, 70, 6))
        >>> clone = mbrl.train(log, "bc", updates=50, progress=False)
        >>> mbrl.ope(clone, log, judges=0, updates=50, progress=False).verdict
        'cannot_tell'
    """
    asked = validate(OPEOptions, options, where="Options of ope")
    workspace = open_workspace(store, progress, device)
    data = log if isinstance(log, Dataset) else open_dataset(log, LoadOptions(), minari_root=minari_root())
    candidates = _candidates(policies, data := _read_by(policies, data))
    names = unique_names([candidate.title for candidate in candidates])
    trials = _trials(tested, names, asked.test_episodes)
    settings = _settings(asked, risk, dynamics, seed)
    is_behaviour = isinstance(baseline, str) and baseline == BEHAVIOUR
    others = [] if is_behaviour else [as_policy(baseline).for_space(data.spec)]
    horizon = _check(settings, data, candidates)
    workspace.progress.message(question_words(horizon, discount=settings.discount))
    with torch_settings(threads, workspace.device):
        judged = _judge([*candidates, *others], data, settings, workspace)
        folders, other = judged[: len(candidates)], None if is_behaviour else judged[-1]
        folder = deployment_stage(folders, other, data, workspace, trials=trials, command=command)
    return OPEResult(folder)


def _judge(
    policies: Sequence[StoredPolicy], data: Dataset, settings: OPESettings, workspace: Workspace
) -> list[RunFolder]:
    """Estimates of each policy. All have the same judges: those of the first one's config."""
    source = origin_of(data, workspace).source

    def chosen_for(stored: StoredPolicy) -> ChosenModel | None:
        where = stored.training or stored.path
        return choose_model(where, data, settings.model, source=source, workspace=workspace)

    judges = chosen_for(policies[0]) if settings.model.judges > 0 else None
    pairs = [(stored, judges or chosen_for(stored)) for stored in policies]
    return [ope_stage(stored, data, settings, workspace, chosen=model) for stored, model in pairs]


def _check(settings: OPESettings, data: Dataset, policies: Sequence[StoredPolicy]) -> TaskHorizon:
    """Refuses what can be refused before anything is fitted; returns the horizon of the question."""
    data.require_rewards("Off-policy evaluation")
    horizon = asked_horizon(data, settings.horizon)
    EstimatorSettings(horizon.estimand(settings.discount), settings.fqe, crossfit=settings.crossfit)
    if len(data) < 2:
        raise DataError(
            f"an interval takes two episodes or more, dataset {data.info.name!r} has {len(data)}",
            remedy="Log more episodes.",
        )
    for stored in policies:
        if settings.stochastic and not is_stochastic(stored.policy):
            raise ConfigError(
                f"{stored.title} has no draws: it is deterministic, and --stochastic asks for them. Remedy: "
                "judge its evaluation action, which is the default."
            )
    return horizon


def _read_by(policies: Any, data: Dataset) -> Dataset:
    """The log as the policies read it: with their history, where it holds single frames.

    Raises:
        ConfigError: they read other histories than one another, or than the log.
    """
    many = cast("Sequence[Any]", policies) if isinstance(policies, (list, tuple)) else [policies]
    read = {(stored := as_policy(one).stored).source: stored.history for one in many}
    asked = {history for history in read.values() if history is not None}
    if not asked or asked == {data.info.history}:
        return data
    if len(asked) > 1 or data.info.history is not None or None in read.values():
        listed = "; ".join(f"{name}: {_frames(history)}" for name, history in read.items())
        raise ConfigError(
            f"Policies and log hold different histories ({listed}; the log: {_frames(data.info.history)}). "
            "Remedy: judge policies of one history together, on the log that they were trained on."
        )
    (history,) = asked
    stacked = with_history(data, history.frames)
    if stacked.info.history != history:
        raise ConfigError(
            f"The policy reads {_frames(history)}. Remedy: give the log that it was trained on."
        )
    return stacked


def _frames(history: History | None) -> str:
    return "single frames" if history is None else f"{history.frames} frames and {history.actions} actions"


def _candidates(policies: Any, data: Dataset) -> list[StoredPolicy]:
    many = isinstance(policies, (list, tuple))
    given: list[Any] = list(cast("Sequence[Any]", policies)) if many else [policies]
    if not given:
        raise ConfigError("There is no policy to judge. Remedy: name at least one.")
    return [as_policy(one).for_space(data.spec) for one in given]


def _settings(
    asked: OPEOptions, risk: str | RiskQuestion | None, dynamics: "Dynamics | str | Path | None", seed: int
) -> OPESettings:
    return OPESettings(
        asked.discount,
        asked.horizon,
        asked.stochastic,
        FQEConfig(updates=asked.updates),
        seed,
        risk=RiskQuestion.parse(risk) if isinstance(risk, str) else risk or RiskQuestion(),
        model=ModelRequest(
            _model_path(dynamics),
            asked.own_model,
            asked.termination,
            0 if asked.own_model or dynamics is not None else asked.judges,
        ),
        crossfit=asked.crossfit,
        backtest=asked.backtest,
        weights=WeightTransform.parse(asked.weights),
    )


def _model_path(dynamics: "Dynamics | str | Path | None") -> Path | None:
    if isinstance(dynamics, Dynamics):
        return dynamics.path
    return None if dynamics is None else Path(dynamics)


def _trials(
    tested: str | Path | Mapping[str, Sequence[float]] | None, names: Sequence[str], episodes: int
) -> Trials:
    if tested is None:
        return Trials(episodes=episodes)
    if isinstance(tested, (str, Path)):
        return Trials(read_tested(Path(tested), names), episodes)
    unknown = sorted(set(tested) - set(names))
    if unknown:
        raise ConfigError(f"Returns of {unknown[0]!r}, which is no candidate. Legal: {', '.join(names)}.")
    return Trials(dict(tested), episodes)
