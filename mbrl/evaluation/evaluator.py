"""Evaluates a policy in the simulator, episode by episode."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.envs.collect import open_envs
from mbrl.envs.specs import TaskSpec
from mbrl.envs.stepping import EpisodeRecord, run_episodes
from mbrl.evaluation.scores import normalised_score
from mbrl.evaluation.statistics import Interval, bootstrap_interval
from mbrl.evaluation.video import Recorder


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """What one policy did in N episodes of a task.

    The intervals are over episodes of this one policy: how well its own return is known. What another seed
    would reach is a question to `statistics.stratified_interval` over seeds.

    Attributes:
        task: name of the task.
        seed: seed of the episodes' starts and of the policy's noise.
        is_deterministic: whether the policy acted without noise.
        episode_returns: N undiscounted returns, raw reward units.
        episode_lengths: N numbers of steps.
        terminated: N flags: the MDP ended; False means that the time limit cut the episode.
        discounted_returns: N discounted returns, or None if no discount was given.
        discount: of the discounted returns, or None.
        normalised_scores: N scores, or None for a task without reference scores.
        return_interval: mean return with its 95 % interval.
        score_interval: mean normalised score with its 95 % interval, or None.
        environment_steps: steps taken in all.
        seconds: of the whole evaluation, or None if no clock was given.
    """

    task: str
    seed: int
    is_deterministic: bool
    episode_returns: tuple[float, ...]
    episode_lengths: tuple[int, ...]
    terminated: tuple[bool, ...]
    discounted_returns: tuple[float, ...] | None
    discount: float | None
    normalised_scores: tuple[float, ...] | None
    return_interval: Interval
    score_interval: Interval | None
    environment_steps: int
    seconds: float | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Evaluation":
        """Inverse of `to_json`; entries beside it are passed over."""
        fields: dict[str, Any] = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        for name in ("return_interval", "score_interval"):
            fields[name] = None if fields[name] is None else Interval.from_json(fields[name])
        for name in (
            "episode_returns",
            "episode_lengths",
            "terminated",
            "discounted_returns",
            "normalised_scores",
        ):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, intervals as objects."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            key: value.to_json() if isinstance(value, Interval) else value for key, value in values.items()
        }


def evaluate(
    task: TaskSpec,
    policy: Policy,
    *,
    episodes: int,
    rng: RngStreams,
    is_deterministic: bool = True,
    num_envs: int = 10,
    discount: float | None = None,
    video: Path | None = None,
    clock: Callable[[], float] | None = None,
) -> Evaluation:
    """Runs `policy` for `episodes` episodes in the simulator of `task`.

    The episodes are those of `mbrl.envs.collect` for the same streams: episode k starts at the same state for
    every policy, so policies are compared on common starts.

    Args:
        task: the task; it must have a simulator.
        policy: what acts.
        episodes: how many, at least 1; 10 or more for a figure that is to be quoted.
        rng: streams of this evaluation.
        is_deterministic: whether the policy acts without noise.
        num_envs: simulators side by side; changes the speed only (see `collect`).
        discount: in [0, 1] for discounted returns besides, or None.
        video: `.mp4` or `.gif` for a film of episode 0, or None. MuJoCo reads MUJOCO_GL when it is first
            loaded: set it to `egl` beforehand on a machine without a screen.
        clock: seconds, such as `time.perf_counter`; None leaves the time out.

    Raises:
        ConfigError: the task has no simulator, or `episodes` is not positive.
        NonFiniteError: the policy returned a NaN or an infinity.
        MissingExtraError: a video was asked for and its packages are not installed.
    """
    begin = clock() if clock is not None else 0.0
    recorder = Recorder(video) if video is not None else None
    with open_envs(task, min(num_envs, episodes), is_first_rendered=recorder is not None) as envs:
        records = list(
            run_episodes(
                envs, policy, rng=rng, is_deterministic=is_deterministic, episodes=episodes, on_step=recorder
            )
        )
    if recorder is not None:
        recorder.save()
    seconds = clock() - begin if clock is not None else None
    return _summarise(
        task, records, rng=rng, is_deterministic=is_deterministic, discount=discount, seconds=seconds
    )


def _summarise(
    task: TaskSpec,
    records: list[EpisodeRecord],
    *,
    rng: RngStreams,
    is_deterministic: bool,
    discount: float | None,
    seconds: float | None,
) -> Evaluation:
    returns = np.array([record.rewards.sum() for record in records])
    scores = None
    if task.ref_min_score is not None and task.ref_max_score is not None:
        scores = normalised_score(returns, task.ref_min_score, task.ref_max_score)
    discounted = None
    if discount is not None:
        discounted = tuple(float(discount ** np.arange(len(r)) @ r.rewards) for r in records)

    def interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> Interval:
        generator = np.random.default_rng(rng.integer("bootstrap"))
        return bootstrap_interval(values, generator=generator)

    return Evaluation(
        task=task.name,
        seed=rng.seed,
        is_deterministic=is_deterministic,
        episode_returns=tuple(returns.tolist()),
        episode_lengths=tuple(map(len, records)),
        terminated=tuple(record.terminated for record in records),
        discounted_returns=discounted,
        discount=discount,
        normalised_scores=None if scores is None else tuple(scores.tolist()),
        return_interval=interval(returns),
        score_interval=None if scores is None else interval(scores),
        environment_steps=sum(map(len, records)),
        seconds=seconds,
    )
