"""Mean predictions or draws: which of them says of the logged behaviour what the log says of it.

A step's deviation is drawn as if it were independent of the step before. Where the world is all but
deterministic that lets a stable gait fall; where it is noisy, means miss what noise costs. The log decides:
a clone of its behaviour is judged both ways, from the first states of complete episodes, whose returns are
known.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, Field

from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.off_policy.log.task_horizon import TaskHorizon
from mbrl.off_policy.value.judged import JudgedValue
from mbrl.run.files import read_record
from mbrl.run.judge.clone import clone_behaviour, clone_identity
from mbrl.run.records import Record
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import SUMMARY_FILE, StageKey

LEAST_EPISODES: Final = 5
"""Complete episodes without which nothing is asked: judges then follow means."""


class JudgeBacktest(BaseModel):
    """What the judges say of the behaviour.

    Attributes:
        draws: what was chosen, `mean` or `sample`.
        episodes: complete logged episodes from whose first states the clone was judged.
        logged: their mean return; None without episodes.
        logged_error: its standard error.
        mean: what the judges say by mean predictions.
        sample: what they say by draws.
    """

    draws: Literal["mean", "sample"]
    episodes: Annotated[int, Field(ge=0)]
    logged: float | None = None
    logged_error: float | None = None
    mean: float | None = None
    sample: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, and the choice in words."""
        return {**self.model_dump(mode="json"), "words": self.words}

    @property
    def words(self) -> str:
        """Why mean predictions or draws were chosen."""
        chosen = "mean predictions" if self.draws == "mean" else "draws from the members' Gaussians"
        if self.logged is None or self.mean is None or self.sample is None:
            return f"Judged by {chosen}: the log has too few complete episodes to tell which is nearer."
        return (
            f"Judged by {chosen}: {self.episodes} complete logged episodes return {self.logged:.4g} on "
            f"average; of a clone of their behaviour judges say {self.mean:.4g} by means, {self.sample:.4g} "
            "by draws."
        )


@runtime_checkable
class AskBehaviour(Protocol):
    """Judges a clone from some of the starts, by means or by draws."""

    def __call__(self, clone: Policy, rows: Sequence[int], *, samples: bool) -> JudgedValue:
        """What the members say."""
        ...


class _Stored(Record):
    """Summary of the stage."""

    found: JudgeBacktest


def backtest_judges(
    ask: AskBehaviour,
    dataset: Dataset,
    starts: Sequence[int],
    horizon: TaskHorizon,
    workspace: Workspace,
    *,
    discount: float,
    identity: Mapping[str, Any],
) -> JudgeBacktest:
    """Asks both ways, or finds what was answered before.

    Args:
        ask: judges the clone.
        dataset: the log.
        starts: rows of the episodes that give the judges' first states.
        horizon: of the task; censored episodes have no known return.
        workspace: where the answer is kept.
        discount: of the returns.
        identity: of the judges.
    """
    complete = [place for place, row in enumerate(starts) if not horizon.censored[row]]
    if len(complete) < LEAST_EPISODES:
        return JudgeBacktest(draws="mean", episodes=len(complete))

    def work(work: StageWork) -> Mapping[str, Any]:
        work.progress.message("Back-test of the judges: what they say of a clone of the log's behaviour.")
        clone = clone_behaviour(dataset, RngStreams(0).at("judge_clone"))
        said = [ask(clone, complete, samples=samples).mean for samples in (False, True)]
        returns = [_return(dataset, starts[place], horizon.steps, discount) for place in complete]
        found = choose_draws(np.array(returns), mean=said[0], sample=said[1])
        return {"found": found.model_dump(mode="json")}

    stage = Stage(
        key=StageKey(
            "calibrate_judges",
            dataset.info.name,
            "judges",
            0,
            {
                **identity,
                "dataset": dataset.content_hash,
                "horizon": horizon.steps,
                "clone": clone_identity(dataset.spec),
            },
        ),
        config={"discount": discount, "horizon": horizon.steps},
        facts={"dataset_hash": dataset.content_hash},
        work=work,
    )
    return read_record(perform(stage, workspace).path / SUMMARY_FILE, _Stored).found


def choose_draws(returns: Any, *, mean: float, sample: float) -> JudgeBacktest:
    """Draws where they come nearer than means to the mean return, by more than its standard error.

    Args:
        returns: `[n]`, of complete logged episodes, at least 2.
        mean: what the judges say by mean predictions.
        sample: what they say by draws.
    """
    values = np.asarray(returns, dtype=np.float64)
    logged, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    is_nearer = abs(sample - logged) < abs(mean - logged) - error or not np.isfinite(mean)
    return JudgeBacktest(
        draws="sample" if is_nearer and np.isfinite(sample) else "mean",
        episodes=len(values),
        logged=logged,
        logged_error=error,
        mean=mean if np.isfinite(mean) else None,
        sample=sample if np.isfinite(sample) else None,
    )


def _return(dataset: Dataset, row: int, steps: int, discount: float) -> float:
    rewards = dataset.episodes[row].logged.rewards[:steps].astype(np.float64)
    return float(rewards @ discount ** np.arange(len(rewards)))
