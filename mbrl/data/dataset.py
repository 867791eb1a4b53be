"""A dataset is its episodes, whole and read-only; transitions are a view of them."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mbrl.core.choices import StatedChoices
from mbrl.core.errors import DataError
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.checks import first_problem
from mbrl.data.choices.masks import episode_mask
from mbrl.data.flags import flag_array
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions, Origin, with_choices
from mbrl.data.raw import RawEpisode
from mbrl.data.transitions import Transitions, join_steps

__all__ = ["Dataset", "DatasetInfo", "Transitions"]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Logged episodes of one task, checked on construction.

    Attributes:
        episodes: whole, at least one; each ends either terminated or truncated.
        spec: sizes and action bounds.
        info: description; never used by training itself.
        dropped: what a load dropped or repaired, counted by reason.
        origin: what it was opened from; None for a dataset that was made in memory, or of some episodes.

    Raises:
        DataError: an episode would make training wrong (see `mbrl.data.checks`).
    """

    episodes: tuple[Episode, ...]
    spec: SpaceSpec
    info: DatasetInfo
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if not self.episodes:
            raise DataError(
                f"dataset {self.info.name!r} has no episodes", remedy="Check the path and the options."
            )
        for index, episode in enumerate(self.episodes):
            problem = _episode_problem(episode, self.spec, str(index))
            if problem is not None:
                raise problem
            if episode.has_rewards != self.episodes[0].has_rewards:
                raise DataError(
                    "the rewards are missing here or in the first episode, and are there in others",
                    episode=str(index),
                    field="rewards",
                    remedy="Give rewards to all of them or to none.",
                )

    def __len__(self) -> int:
        return len(self.episodes)

    def __repr__(self) -> str:
        ends = sum(episode.terminated for episode in self.episodes)
        return (
            f"Dataset({self.info.name!r}, {len(self):,} episodes ({ends:,} terminated), "
            f"{self.num_transitions:,} transitions, observations of {self.spec.obs_dim}, actions of "
            f"{self.spec.act_dim})"
        )

    @classmethod
    def from_arrays(
        cls,
        observations: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike | None,
        terminations: ArrayLike,
        truncations: ArrayLike | None = None,
        *,
        timeouts: ArrayLike | None = None,
        next_observations: ArrayLike | None = None,
        behaviour_log_prob: ArrayLike | None = None,
        infos: Mapping[str, ArrayLike] | None = None,
        act_low: ArrayLike | float | None = None,
        act_high: ArrayLike | float | None = None,
        choices: StatedChoices | None = None,
        info: DatasetInfo | None = None,
        options: LoadOptions | None = None,
    ) -> "Dataset":
        """A dataset of flat rows, one episode after the other.

        Without `next_observations` a row leads to the next. They, `truncations` or a limit tell the ends.

        Args:
            observations: `[n, obs_dim]`, raw units.
            actions: `[n, act_dim]`, environment units; choices as `[n]` ids or labels, or one-hot rows.
            rewards: `[n]`; None for a log without rewards.
            terminations: `[n]` flags, 0 and 1 or booleans: the task ended with this row.
            truncations: `[n]` flags: the episode was cut after this row.
            timeouts: the same as `truncations`.
            next_observations: `[n, obs_dim]`, what each action led to.
            behaviour_log_prob: `[n]` log-density, actions scaled to [-1, 1]; log-probability of choices.
            infos: further arrays of n rows; `action_mask` `[n, choices]` says what was allowed.
            act_low: lower action bounds, else the range of the data.
            act_high: upper ones.
            choices: see `LoadOptions.choices`.
            info: name, simulator, time limit.
            options: what may be repaired.

        Raises:
            DataError: what would make training wrong, by argument and row.

        Example:
            >>> import numpy as np
            >>> walk, ends = np.cumsum(np.full((300, 1), 0.1), axis=0), np.arange(300) % 100 == 99
            >>> len(Dataset.from_arrays(walk, np.sin(walk), -walk[:, 0], np.zeros(300), ends))
            3
        """
        from mbrl.data.construct import dataset_from_arrays as build

        options, cuts = with_choices(options, choices), _cuts(truncations, timeouts)
        arrays = {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "terminations": terminations,
            "truncations": cuts,
            "next_observations": next_observations,
            "behaviour_log_prob": behaviour_log_prob,
        }
        return build(arrays, infos=infos, act_low=act_low, act_high=act_high, info=info, options=options)

    @classmethod
    def from_episodes(
        cls,
        episodes: "Iterable[Episode | Mapping[str, Any]]",
        *,
        act_low: ArrayLike | float | None = None,
        act_high: ArrayLike | float | None = None,
        choices: StatedChoices | None = None,
        info: DatasetInfo | None = None,
        options: LoadOptions | None = None,
    ) -> "Dataset":
        """A dataset of whole episodes.

        Args:
            episodes: `Episode` objects, or mappings with `observations` `[T + 1, obs_dim]`, `actions`
                `[T, act_dim]`, how it ended (`terminated`, `truncated`, or `[T]` flags `terminations`,
                `truncations`), and optionally `rewards` `[T]`, `behaviour_log_prob` `[T]`, `timestamps`
                `[T + 1]` and `infos`.
            act_low: lower action bounds; without them, the range of the actions.
            act_high: upper ones.
            choices: for actions that are choices, see `LoadOptions.choices`.
            info: name, simulator, time limit.
            options: what may be repaired; nothing by default.

        Raises:
            DataError: the first thing that would make training wrong, by episode, array and row.
        """
        from mbrl.data.construct import dataset_from_episodes

        options = with_choices(options, choices)
        return dataset_from_episodes(episodes, act_low=act_low, act_high=act_high, info=info, options=options)

    @classmethod
    def from_gymnasium_buffer(
        cls,
        buffer: Any,
        *,
        scaled_actions: bool = True,
        act_low: ArrayLike | float | None = None,
        act_high: ArrayLike | float | None = None,
        choices: StatedChoices | None = None,
        info: DatasetInfo | None = None,
        options: LoadOptions | None = None,
    ) -> "Dataset":
        """A dataset of a replay buffer, or of transitions that were collected with Gymnasium.

        Args:
            buffer: a `ReplayBuffer` of Stable-Baselines3 or an object with its arrays `[size, envs, ...]`
                (`observations`, `next_observations`, `actions`, `rewards`, `dones`, `timeouts`, and `pos`,
                `full`, `action_space`); or a list of transitions `(observation, action, reward,
                next_observation, terminated, truncated)`, or of mappings with these names.
            scaled_actions: the actions of a buffer are scaled to [-1, 1], as the learners of
                Stable-Baselines3 store them; they are brought back to the bounds of its action space. False
                if you filled the buffer with the environment's own actions. Transitions in a list are never
                scaled.
            act_low: lower action bounds; those of a buffer's action space by default.
            act_high: upper action bounds.
            choices: those of a buffer's action space by default.
            info: name, simulator, time limit and what else is known.
            options: what may be repaired; nothing by default.

        Raises:
            DataError: the first thing that would make training wrong, by array and row.
        """
        from mbrl.data.construct import dataset_from_buffer

        return dataset_from_buffer(
            buffer,
            scaled_actions=scaled_actions,
            act_low=act_low,
            act_high=act_high,
            info=info,
            options=with_choices(options, choices),
        )

    @functools.cached_property
    def num_transitions(self) -> int:
        """Steps in all episodes."""
        return sum(len(episode) for episode in self.episodes)

    @property
    def obs_names(self) -> tuple[str, ...]:
        """Names of the observation dimensions; `obs_0`, `obs_1`, ... where the log has none."""
        return _named(self.info.obs_names, "obs", self.spec.obs_dim)

    @property
    def act_names(self) -> tuple[str, ...]:
        """Names of the choices, or of the action dimensions; `act_0`, `act_1`, ... where the log has none."""
        if self.spec.choices is not None:
            return self.spec.choices
        return _named(self.info.act_names, "act", self.spec.act_dim)

    @property
    def has_rewards(self) -> bool:
        """Whether the steps have rewards; without them dynamics can be fitted and behaviour cloned."""
        return self.episodes[0].has_rewards

    def require_rewards(self, purpose: str) -> None:
        """Refuses a dataset without rewards.

        Args:
            purpose: what needs them, as the beginning of a sentence.

        Raises:
            DataError: it has none.
        """
        if not self.has_rewards:
            raise DataError(
                f"{purpose} needs rewards, and the dataset {self.info.name!r} has none.",
                field="rewards",
                remedy="Make a dataset that has them: mbrl relabel DATASET --reward EXPRESSION --out NEW.",
            )

    @functools.cached_property
    def episode_returns(self) -> NDArray[np.float64]:
        """`[episodes]` undiscounted returns; NaN without rewards."""
        return np.array([episode.episode_return for episode in self.episodes], dtype=np.float64)

    @functools.cached_property
    def episode_lengths(self) -> NDArray[np.int64]:
        """`[episodes]` steps."""
        return np.array([len(episode) for episode in self.episodes], dtype=np.int64)

    @functools.cached_property
    def content_hash(self) -> str:
        """Hex digest (blake2b) of what training and evaluation read, whatever the file format and the name.

        Covers bounds or names of choices, observations, actions, rewards, flags, action masks, behaviour
        log-probabilities and how the arrays came about (`DatasetInfo.making`), not infos and time stamps.
        """
        digest = hashlib.blake2b(digest_size=16)
        if self.info.making:
            digest.update(repr(sorted(self.info.making.items())).encode())
        digest.update(repr((self.spec.obs_dim, self.spec.act_dim)).encode())
        if self.spec.choices is not None:
            digest.update(repr(self.spec.choices).encode())
        digest.update(np.array([self.spec.act_low, self.spec.act_high], dtype=np.float64).tobytes())
        for episode in self.episodes:
            flags = (episode.terminated, episode.truncated, episode.is_final_observation_known)
            digest.update(repr((len(episode), flags, episode.behaviour_log_prob is not None)).encode())
            arrays: list[NDArray[Any] | None]
            arrays = [episode.observations, episode.actions, episode.rewards, episode.behaviour_log_prob]
            if self.spec.is_discrete:
                arrays.append(episode_mask(episode))
            for array in arrays:
                if array is not None:
                    digest.update(array.tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def logged_episodes(self) -> tuple[Episode, ...]:
        """The whole episodes behind the dataset, each once: its own, unless these were cut into blocks."""
        return tuple({id(episode.logged): episode.logged for episode in self.episodes}.values())

    @functools.cached_property
    def logged_index(self) -> NDArray[np.int64]:
        """`[episodes]`, which of `logged_episodes` each belongs to; 0, 1, 2, ... unless they were cut."""
        place = {id(episode): index for index, episode in enumerate(self.logged_episodes)}
        return np.array([place[id(episode.logged)] for episode in self.episodes], dtype=np.int64)

    @property
    def units(self) -> NDArray[np.int64]:
        """`[episodes]`, which of them belong together where episodes are resampled.

        Blocks of one logged episode do; those of a single one, with gaps between them, are all there is to
        resample.
        """
        if len(self.logged_episodes) > 1:
            return self.logged_index
        return np.arange(len(self), dtype=np.int64)

    def select(self, indices: Iterable[SupportsIndex]) -> "Dataset":
        """The dataset of some episodes, in the given order."""
        episodes = tuple(self.episodes[int(index)] for index in indices)
        return dataclasses.replace(self, episodes=episodes, origin=None)

    def transitions(self) -> Transitions:
        """All steps, flat and in memory; made once.

        Raises:
            DataError: the dataset is mapped, and its arrays do not fit into the memory.
        """
        return self._transitions

    def steps(self) -> Transitions:
        """As `transitions`; of a mapped dataset the large columns are read where they are indexed."""
        return self._steps

    @functools.cached_property
    def _transitions(self) -> Transitions:
        return self._steps.in_memory()

    @functools.cached_property
    def _steps(self) -> Transitions:
        return join_steps(self.episodes, self.units, act_dim=self.spec.act_dim)


def _cuts(truncations: ArrayLike | None, timeouts: ArrayLike | None) -> ArrayLike | None:
    """Whichever of the two names was given."""
    if truncations is not None and timeouts is not None:
        raise DataError("it is another name of truncations", field="timeouts", remedy="Give one of them.")
    return timeouts if truncations is None else truncations


def _named(names: tuple[str, ...] | None, prefix: str, count: int) -> tuple[str, ...]:
    if names is not None and len(names) == count:
        return names
    return tuple(f"{prefix}_{index}" for index in range(count))


def _episode_problem(episode: Episode, spec: SpaceSpec, name: str) -> DataError | None:
    steps = episode.rewards.shape[0]
    raw = RawEpisode(
        name=name,
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=flag_array(steps, last=episode.terminated),
        truncations=flag_array(steps, last=episode.truncated),
        final_observation="logged" if episode.is_final_observation_known else "unknown",
        behaviour_log_prob=episode.behaviour_log_prob,
        timestamps=episode.timestamps,
        infos=episode.infos,
        has_rewards=episode.has_rewards,
    )
    problem = first_problem(raw, spec)
    if problem is not None:
        return problem
    if not (episode.terminated or episode.truncated):
        return DataError(
            "the episode ends without a flag",
            episode=name,
            field="truncated",
            row=steps - 1,
            remedy="Mark the end of a log as truncated.",
        )
    return None
