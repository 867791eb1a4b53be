"""Policies in a simulator."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.policy import as_policy
from mbrl.api.progress import Listener
from mbrl.api.result import Result, jsonable
from mbrl.api.session import open_workspace, torch_settings
from mbrl.envs.specs import TaskSpec, load_task
from mbrl.evaluation.evaluator import Evaluation
from mbrl.evaluation.statistics import Interval
from mbrl.run.evaluate import evaluate_stage, policy_task
from mbrl.run.records import EvaluationSummary
from mbrl.run.store import RunFolder

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table


class EvaluationResult(Result):
    """What a policy did in the simulator.

    Attributes:
        evaluation: returns, lengths and intervals, typed.
        path: folder of the result.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._summary = folder.summary(EvaluationSummary)
        self.evaluation = Evaluation.from_json(self._summary)
        self.path = folder.path

    @property
    def mean_return(self) -> float:
        """Mean undiscounted return of an episode, raw reward units."""
        return self.evaluation.return_interval.estimate

    @property
    def interval(self) -> Interval:
        """Mean return with its 95 % interval over episodes of this one policy."""
        return self.evaluation.return_interval

    @property
    def score(self) -> Interval | None:
        """Mean normalised score with its interval; None for a task without reference scores."""
        return self.evaluation.score_interval

    def to_dict(self) -> dict[str, Any]:
        """The summary, and the path."""
        return jsonable({**self._summary, "path": str(self.path)})

    def tables(self) -> "Sequence[Table]":
        """Returns, scores and lengths."""
        from mbrl.report.run.evaluation_tables import evaluation_table

        return [evaluation_table(self.evaluation, name=self._summary["algorithm"])]

    def _headline(self) -> str:
        mean, found = self.interval, self.evaluation
        ends = f"[{mean.low:.4g}, {mean.high:.4g}]"
        count = len(found.episode_returns)
        return f"mean return {mean.estimate:.4g} {ends}, {count} episodes of {found.task}"


def evaluate(
    policy: Any,
    *,
    task: str | TaskSpec | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    video: str | Path | None = None,
    threads: int = 1,
    store: str | Path | None = None,
    progress: Listener = None,
) -> EvaluationResult:
    """Evaluates a policy in the simulator of its task, from the same starts for every policy.

    Args:
        policy: a `Policy`, a `Run`, the path of a training or of a policy file, or a function of
            observations.
        task: name of a task, path of its yaml, or a spec; None takes the one that the policy was trained for.
        episodes: full episodes; None takes what the config of the training says, else 10.
        seed: of starts and noise; None likewise, else 0.
        video: `.mp4` or `.gif` of the first episode.
        threads: of torch.
        store: root of the run folders; None for a temporary one of this process.
        progress: see `fit`.

    Raises:
        ConfigError: the task is unknown or has no simulator, or the policy does not fit it.

    Example:
        >>> import mbrl
        >>> still = mbrl.Policy.from_callable(lambda obs: 0.0 * obs[:, :1], name="still")
        >>> result = mbrl.evaluate(still, task="pendulum", episodes=2, progress=False)
        >>> len(result.evaluation.episode_returns)
        2
    """
    workspace, actor = open_workspace(store, progress), as_policy(policy)
    spec = load_task(task) if isinstance(task, str) else task
    spec = spec or policy_task(actor.stored)
    with torch_settings(threads):
        folder = evaluate_stage(
            actor.for_space(spec.space),
            workspace,
            task=spec,
            episodes=episodes,
            seed=seed,
            video=None if video is None else Path(video),
        )
    return EvaluationResult(folder)
