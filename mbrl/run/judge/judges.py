"""The judges of a log: fitted once, made ready to be asked, and shared by all of its policies."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.progress import Progress, SilentProgress
from mbrl.core.protocols import Policy, TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.fit import split_for
from mbrl.dynamics.termination import NeverTerminates
from mbrl.off_policy.log.task_horizon import TaskHorizon
from mbrl.off_policy.value.evaluation_model import EvaluationModel
from mbrl.off_policy.value.judge_config import JudgesConfig
from mbrl.off_policy.value.judge_rollouts import EpisodeQuestion, JudgeModel, imagine_episodes
from mbrl.off_policy.value.judged import JudgedValue
from mbrl.rollouts.box import Box
from mbrl.run.config import ResolvedConfig, RunConfig
from mbrl.run.fit import fit_judge_stage, judge_dynamics, judge_key, judge_streams
from mbrl.run.inputs import find_run_task, known_termination, named_end, reward_identity
from mbrl.run.judge.judge_backtest import JudgeBacktest, backtest_judges
from mbrl.run.judge.question import asked_horizon
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder

_STREAMS: Final = RngStreams(0).child("judged")
"""Of starts and roll-outs: the same for all policies of a log, whatever their seeds."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Judges:
    """Ready to be asked what policies are worth.

    Attributes:
        fits: the ensembles.
        runs: their folders.
        config: how they are asked.
        starts: `[n, obs_dim]`, logged first states.
        held_out: how many of them come from episodes that a judge held out.
        question: horizon, discount, randomness.
        horizon: where the horizon comes from.
        rule: that is known to end the task, of the task or of the log; None if there is none.
        backtest: what decided between mean and draws; None where the config did.
    """

    fits: tuple[FittedDynamics, ...]
    runs: tuple[RunFolder, ...]
    config: JudgesConfig
    starts: Tensor
    held_out: int
    question: EpisodeQuestion
    horizon: TaskHorizon
    rule: TerminationFn | None
    backtest: JudgeBacktest | None

    @property
    def termination(self) -> str:
        """Who ends an imagined episode: `task`, `learned` or `never`."""
        return named_end(self.config.termination, self.rule, option="judges.termination")

    @property
    def can_compare_ends(self) -> bool:
        """Whether a known rule and a learned head both say when the task ends."""
        has_head = all(not isinstance(fit.termination, NeverTerminates) for fit in self.fits)
        return has_head and self.rule is not None

    def judge(
        self,
        policies: Sequence[Policy],
        *,
        progress: Progress | None = None,
        termination: str | None = None,
    ) -> list[JudgedValue]:
        """What every member of every judge says of each policy.

        Args:
            policies: act, by their evaluation action.
            progress: told of steps.
            termination: in place of the chosen one: `task`, `learned` or `never`.
        """
        return self.ask(self.fits, policies, progress=progress, termination=termination)

    def ask(
        self,
        fits: Sequence[FittedDynamics],
        policies: Sequence[Policy],
        *,
        progress: Progress | None = None,
        termination: str | None = None,
    ) -> list[JudgedValue]:
        """The same question to other ensembles, such as the one that trained a policy."""
        told = progress or SilentProgress()
        by_fit: list[list[Any]] = []
        for number, fit in enumerate(fits):
            told.start(f"judge {len(policies)} policies, model {number + 1} of {len(fits)}", self.steps)
            end = _termination(termination or self.termination, fit, self.rule)
            model = JudgeModel(fit.model, end, fit.known_reward)
            by_fit.append(imagine_episodes(model, policies, self.starts, self.question, progress=told))
            told.finish()
        return [JudgedValue.join([found[index] for found in by_fit]) for index in range(len(policies))]

    def judge_behaviour(self, clone: Policy, rows: Sequence[int], *, samples: bool) -> JudgedValue:
        """A policy that draws its actions, from some of the starts.

        Args:
            clone: acts, by draws.
            rows: which of the starts.
            samples: draw from the members' Gaussians too; else follow their means.
        """
        question = dataclasses.replace(self.question, samples=samples, stochastic=True)
        asked = dataclasses.replace(self, question=question, starts=self.starts[list(rows)])
        return asked.judge([clone])[0]

    def asked_as_they_are(self, model: EvaluationModel) -> EvaluationModel:
        """A model that is rolled out as these judges are: by means or by draws, inside the same box."""
        box = self.question.box or Box.unlimited(self.starts.shape[1])
        return dataclasses.replace(model, samples=self.question.samples, box=box)

    @property
    def steps(self) -> int:
        """Longest imagined episode."""
        return self.question.horizon

    def warnings(self) -> list[str]:
        """Judges that may not be asked to measure, each with a remedy."""
        found: list[str] = []
        for number, (run, fit) in enumerate(zip(self.runs, self.fits, strict=True)):
            training = fit.report.training
            if not training.settled:
                found.append(
                    f"The held-out error of judge {number} ({run.path}) had not settled: it fell by "
                    f"{training.late_gain:.0%} over the last fifth of its updates. It ranks policies, but "
                    "may measure them wrongly. Remedy: raise judges.max_updates."
                )
        return found

    def facts(self) -> dict[str, Any]:
        """Who was asked what, as plain values."""
        return {
            "question": self.horizon.estimand(self.config.discount).describe(),
            "horizon": self.steps,
            "horizon_source": self.horizon.source_words,
            "discount": self.config.discount,
            "starts": len(self.starts),
            "held_out_starts": self.held_out,
            "draws": "sample" if self.question.samples else "mean",
            "backtest": None if self.backtest is None else self.backtest.to_json(),
            "termination": self.termination,
            "rule": self.config.rule,
            "pessimism": self.config.pessimism,
            "warnings": self.warnings(),
            "judges": [_judge_facts(run, fit) for run, fit in zip(self.runs, self.fits, strict=True)],
        }


def judges_identity(config: RunConfig) -> dict[str, Any]:
    """What the judges of a given log depend on; the run's seed and algorithm do not enter."""
    return {
        "dynamics": judge_dynamics(config).model_dump(mode="json"),
        "judges": config.judges.model_dump(mode="json"),
        **reward_identity(config),
    }


def judges_question(run: RunConfig, dataset: Dataset) -> tuple[TaskHorizon, TerminationFn | None]:
    """How long an episode is that judges imagine, and the known rule of its end, or None.

    All that can be refused is refused here, before anything is fitted or trained.

    Raises:
        ConfigError: no judge is asked for, or a rule of termination is, and none is known.
        DataError: the log has no rewards.
        EstimandError: more steps are asked for than an episode can have.
    """
    config = run.judges
    if config.count == 0:
        raise ConfigError("judges.count is 0, so nobody can judge. Remedy: judges.count=2, or select=last.")
    dataset.require_rewards("A choice by judges")
    task = find_run_task(run, dataset)
    rule = known_termination(task, dataset)
    named_end(config.termination, rule, option="judges.termination")
    # A task that the user names comes before what the log says of itself.
    return asked_horizon(dataset, config.horizon, task=None if run.task is None else task), rule


def open_judges(resolved: ResolvedConfig, dataset: Dataset, workspace: Workspace) -> Judges:
    """Fits the judges of a log, or finds them, and makes them ready.

    Args:
        resolved: config whose sections `dynamics` and `judges` say which.
        dataset: the log.
        workspace: where fits are.

    Raises:
        MbrlError: see `judges_question`.
    """
    run = resolved.run
    config = run.judges
    horizon, rule = judges_question(run, dataset)
    fitted = [fit_judge_stage(resolved, dataset, workspace, number=k) for k in range(config.count)]
    fits, runs = tuple(fit for fit, _ in fitted), tuple(folder for _, folder in fitted)
    rows, held_out = choose_starts(run, dataset)
    batch = dataset.transitions().to_batch()
    judges = Judges(
        fits,
        runs,
        config,
        _first_states(dataset, rows),
        held_out,
        EpisodeQuestion(
            horizon.steps,
            config.discount,
            samples=config.draws == "sample",
            seed=_STREAMS.integer("episodes"),
            box=None if config.box_margin is None else _box(batch, config.box_margin),
        ),
        horizon,
        rule,
        None,
    )
    if config.draws != "auto":
        return judges
    keys = [judge_key(run, dataset, k).digest for k in range(config.count)]
    found = backtest_judges(
        judges.judge_behaviour, dataset, rows, horizon, workspace,
        discount=config.discount, identity={"fits": keys, **judges_identity(run)},
    )  # fmt: skip
    question = dataclasses.replace(judges.question, samples=found.draws == "sample")
    return dataclasses.replace(judges, question=question, backtest=found)


def choose_starts(run: RunConfig, dataset: Dataset) -> tuple[list[int], int]:
    """Which logged episodes give the first states, and how many of these a judge held out.

    Episodes that judges held out come first, in random order, then the others. First states are drawn from
    one distribution whoever was fitted to what follows them; too few of them would cost more than that.
    """
    held: list[int] = []
    place = {id(episode): index for index, episode in enumerate(dataset.episodes)}
    for number in range(run.judges.count):
        split = split_for(judge_dynamics(run), dataset, judge_streams(number))
        held += [place[id(episode)] for episode in split.holdout.episodes if id(episode) in place]
    drawn = torch.randperm(len(dataset), generator=_STREAMS.at("starts"))
    order = cast("list[int]", drawn.tolist())
    is_held = set(held)
    ranked = [row for row in order if row in is_held] + [row for row in order if row not in is_held]
    chosen = ranked[: run.judges.starts]
    return chosen, sum(row in is_held for row in chosen)


def _first_states(dataset: Dataset, rows: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.stack([dataset.episodes[row].logged.observations[0] for row in rows]))


def _box(batch: Any, margin: float) -> Box:
    box = Box.around(batch, margin=margin)
    spare = margin * (box.reward_high - box.reward_low)
    return dataclasses.replace(box, reward_low=box.reward_low - spare, reward_high=box.reward_high + spare)


def _termination(name: str, fit: FittedDynamics, rule: TerminationFn | None) -> TerminationFn:
    if name == "task" and rule is not None:
        return rule
    return fit.termination if name == "learned" else NeverTerminates()


def _judge_facts(run: RunFolder, fit: FittedDynamics) -> Mapping[str, Any]:
    training = fit.report.training
    best = [training.member_best[index] for index in training.elites]
    return {
        "path": str(run.path),
        "members": len(training.elites),
        "holdout_error": float(np.mean(best)),
        "updates": training.updates[-1],
        "settled": training.settled,
    }
