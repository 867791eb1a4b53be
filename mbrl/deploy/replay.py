"""A bundle on a log: what the runtime would have done, step by step."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.types import Episode
from mbrl.data.choices.masks import MASK_KEY
from mbrl.data.dataset import Dataset
from mbrl.deploy.contract import Contract
from mbrl.deploy.runtime import Controller
from mbrl.deploy.steps import Floats

SATURATED: Final = 0.99
"""Share of the range to a limit beyond which an action counts as saturated, in scaled units."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What the runtime did on the steps of a log.

    Attributes:
        episode: `[n]` int64, index in the log.
        action: `[n, act_dim]` that it would have sent, environment units.
        proposed: `[n, act_dim]` by the policy within its limits; NaN where it was not asked.
        logged: `[n, act_dim]` that the log holds.
        novelty: `[n]` of the proposed action.
        surprise: `[n]` of the logged step that led here.
        alarm: `[n]` whether one of them is beyond the threshold.
        source: who acted, by name: steps.
        reasons: why not the policy, by name: steps.
        interventions: how often the guard took over.
        longest: steps of the longest time that it did.
        milliseconds: `[n]` of a call.
    """

    episode: NDArray[np.int64]
    action: Floats
    proposed: Floats
    logged: Floats
    novelty: Floats
    surprise: Floats
    alarm: NDArray[np.bool_]
    source: dict[str, int]
    reasons: dict[str, int]
    interventions: int
    longest: int
    milliseconds: Floats

    def __len__(self) -> int:
        return len(self.alarm)

    def saturation(self, contract: Contract) -> Floats:
        """`[act_dim]`, share of the proposed actions at a limit."""
        low, high = (
            np.array([getattr(c, k) for c in contract.action.channels], np.float64) for k in ("low", "high")
        )
        known = self.proposed[np.isfinite(self.proposed).all(1)]
        scaled = np.abs((known - (low + high) / 2) / ((high - low) / 2))
        return (scaled >= SATURATED).mean(0) if len(known) else np.full(len(low), np.nan)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LoggedScores:
    """What the guard says of the steps of a log as they were logged, all but the first of each episode.

    Attributes:
        novelty: `[m]`, of the state and the logged action.
        surprise: `[m]`, of the logged step that led there.
        group: `[m]` int64, which belong together: episodes, or blocks of them where there are few.
    """

    novelty: Floats
    surprise: Floats
    group: NDArray[np.int64]

    def alarms(self, threshold: float) -> NDArray[np.bool_]:
        """`[m]`; a score that is no number is an alarm."""
        return ~(np.maximum(self.novelty, self.surprise) <= threshold)

    def surprise_ratio(
        self, usual: float, *, level: float = 0.95, draws: int = 1000
    ) -> tuple[float, float, float]:
        """The median surprise over the `usual` one, and its interval by resampling groups.

        What single steps hide shows in many: another payload, wear, a slower drive.
        """
        parts: list[Floats] = [self.surprise[self.group == k] for k in np.unique(self.group)]
        rng, medians = np.random.default_rng(0), list[float]()
        for _ in range(draws):
            picks: list[int] = rng.integers(0, len(parts), len(parts)).tolist()
            medians.append(float(np.median(np.concatenate([parts[k] for k in picks]))))
        low, high = np.quantile(medians, ((1 - level) / 2, (1 + level) / 2)) / usual
        return float(np.median(self.surprise)) / usual, float(low), float(high)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class CheckedBundle:
    """A bundle on a log.

    Attributes:
        contract: of the bundle.
        replay: what the runtime would have done.
        logged: what the guard says of the log itself; None without a guard.
    """

    contract: Contract
    replay: Replay
    logged: LoggedScores | None

    @property
    def logged_alarm_rate(self) -> float | None:
        """Share of the logged steps with an alarm; None without a guard."""
        guard, logged = self.contract.guard, self.logged
        return None if guard is None or logged is None else float(logged.alarms(guard.threshold).mean())

    @property
    def surprise_ratio(self) -> tuple[float, float, float] | None:
        """Median surprise over that of the training's log, with its interval; None without a guard."""
        guard, logged = self.contract.guard, self.logged
        is_known = guard is not None and logged is not None and guard.usual_surprise > 0
        return logged.surprise_ratio(guard.usual_surprise) if is_known and guard and logged else None


def replay(
    log: Dataset, controller: Controller, contract: Contract, *, on_step: Callable[[int], None] | None = None
) -> Replay:
    """Gives every observation of a log to the runtime, which does not know what follows from its actions.

    The guard judges the state and the action that the policy proposes there, and the logged step before.

    Args:
        log: with the channels of the contract.
        controller: of the bundle.
        contract: of the bundle.
        on_step: told after each how many there were.
    """
    history, size = contract.observation.history, len(contract.frame_names)
    rows: list[tuple[int, Floats, Floats, float, float, bool, str, float]] = []
    reasons: Counter[str] = Counter()
    logged: list[NDArray[np.float32]] = []
    taken: list[bool] = []
    for index, episode in enumerate(log.episodes):
        controller.reset()
        masks = episode.infos.get(MASK_KEY) if contract.action.choices is not None else None
        for frame in _frames_before(episode, history, size):
            controller.act(frame)
        for step, sent in enumerate(episode.actions):
            mask = None if masks is None else masks[step]
            begun = time.perf_counter()
            controller.act(episode.observations[step, :size], mask=mask)
            seconds = time.perf_counter() - begun
            last = controller.last
            assert last is not None
            controller.executed(sent)
            scores = (last.novelty, last.surprise)
            rows.append((index, last.action, last.proposed, *scores, last.alarm, last.source, 1e3 * seconds))
            reasons.update(last.reasons)
            taken.append("novelty" in last.reasons and last.source != "coast")
            if on_step is not None:
                on_step(len(rows))
        logged.append(episode.actions)
    episodes, actions, proposed, novelty, surprise, alarm, source, spent = zip(*rows, strict=True)
    stretches = list(_stretches(np.array(taken), np.array(episodes)))
    return Replay(
        episode=np.array(episodes, np.int64),
        action=np.array(actions, np.float64),
        proposed=np.array(proposed, np.float64),
        logged=np.concatenate(logged).astype(np.float64),
        novelty=np.array(novelty),
        surprise=np.array(surprise),
        alarm=np.array(alarm, np.bool_),
        source=dict(Counter(source)),
        reasons=dict(reasons),
        interventions=len(stretches),
        longest=max(stretches, default=0),
        milliseconds=np.array(spent),
    )


def _frames_before(episode: Episode, history: int, size: int) -> Iterator[NDArray[np.float32]]:
    """The frames that complete the first observation, the oldest first."""
    for lag in range(history - 1, 0, -1):
        yield episode.observations[0, lag * size : (lag + 1) * size]


def _stretches(taken: NDArray[np.bool_], episode: NDArray[np.int64]) -> Iterator[int]:
    """Lengths of the stretches in which the guard acted, none across two episodes."""
    length = 0
    for row, is_taken in enumerate(taken):
        if length and (not is_taken or episode[row] != episode[row - 1]):
            yield length
            length = 0
        length += int(is_taken)
    if length:
        yield length
