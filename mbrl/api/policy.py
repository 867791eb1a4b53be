"""Policies in NumPy: those that were trained here, and those of anybody else."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mbrl.core.choices import outer_actions, stated_names
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DiscretePolicy, EpisodicPolicy, StochasticPolicy
from mbrl.core.protocols import Policy as TensorPolicy
from mbrl.core.types import SpaceSpec
from mbrl.nets.function_policy import Act, FunctionPolicy, LogProb, Sample, StochasticFunctionPolicy
from mbrl.nets.policy import PolicyNetwork
from mbrl.run.policies import StoredPolicy, Which, open_policy, save_policy


class Policy:
    """Maps observations to actions, NumPy arrays in raw units; one state or many.

    Every function of the API that takes a policy takes one of these, a `Run`, or the path of either's file.

    Args:
        stored: the tensor policy and what is known of it.

    Example:
        A controller of one's own:

        >>> import numpy as np, mbrl
        >>> brake = mbrl.Policy.from_callable(lambda obs: -0.5 * obs[:, 2:3], name="brake")
        >>> brake.act(np.array([1.0, 0.0, 2.0]))
        array([-1.], dtype=float32)
    """

    def __init__(self, stored: StoredPolicy) -> None:
        self.stored = stored

    @classmethod
    def from_callable(
        cls, act: Act, log_prob: LogProb | None = None, sample: Sample | None = None, *, name: str = "custom"
    ) -> "Policy":
        """A policy of any other library, or one written by hand.

        With `log_prob` and `sample` it is a stochastic policy, for which importance sampling has answers;
        without them its actions are taken as deterministic.

        Args:
            act: `[b, obs_dim]` float32 to `[b, act_dim]`, the action without noise, environment units. For
                Stable-Baselines3: `lambda obs: model.predict(obs, deterministic=True)[0]`; for d3rlpy and
                scikit-learn: `model.predict`.
            log_prob: log-density of actions, with respect to actions in environment units.
            sample: one draw for each row; all randomness must come from the generator that it is given.
            name: for tables and folders.

        Raises:
            ConfigError: only one of `log_prob` and `sample` is given.
        """
        if (log_prob is None) != (sample is None):
            raise ConfigError(
                "A stochastic policy needs log_prob and sample. Remedy: give both, or neither of them."
            )
        policy = (
            FunctionPolicy(act, name)
            if log_prob is None
            else StochasticFunctionPolicy(act, log_prob, sample, name)
        )
        return cls(StoredPolicy.in_memory(policy, name=name))

    @classmethod
    def load(cls, path: str | Path, which: Which = "selected") -> "Policy":
        """The policy of a training's folder, or of a file that `save` wrote.

        Args:
            path: folder or file.
            which: of a training: its result, `selected`, or the policy of its `last` update.

        Raises:
            ConfigError: there is none.
        """
        return cls(open_policy(Path(path), which))

    @property
    def torch(self) -> TensorPolicy:
        """The tensor policy behind it (`mbrl.core.protocols.Policy`)."""
        return self.stored.policy

    @property
    def name(self) -> str:
        """What made it."""
        return self.stored.label

    @property
    def is_stochastic(self) -> bool:
        """Whether it has a density."""
        return isinstance(self.torch, (StochasticPolicy, DiscretePolicy))

    def act(
        self,
        observation: ArrayLike,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | int | None = None,
    ) -> NDArray[np.float32]:
        """The action for one state or for each of many.

        Args:
            observation: `[obs_dim]` or `[b, obs_dim]`, raw units.
            deterministic: take the evaluation action; False draws one.
            rng: generator or seed of the draw; None is a new one each time.

        Returns:
            `[act_dim]` or `[b, act_dim]` float32, environment units, inside the bounds.
        """
        obs, is_single = _rows(observation)
        noise = None
        if not deterministic:
            width = self.torch.act_dim or self.torch.act(obs[:1]).shape[1]
            noise = _noise(rng, (len(obs), width))
        with torch.no_grad():
            action = np.asarray(self.torch.act(obs, noise).numpy(), dtype=np.float32)
        return action[0] if is_single else action

    def predict(
        self,
        observation: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        deterministic: bool = True,
        rng: np.random.Generator | int | None = None,
    ) -> Any:
        """What a simulator's `step` takes: `act`, and ids in the place of one-hot vectors.

        Args:
            observation: `[obs_dim]` or `[b, obs_dim]`, raw units.
            mask: `[n]` or `[b, n]`, the choices that are allowed; None for all, and for boxes of actions.
            deterministic: take the evaluation action; False draws one.
            rng: generator or seed of the draw; None is a new one each time.

        Returns:
            The id of a choice, or `[b]` int64 ids (`[w]` and `[b, w]` where w integers make a choice); of a
            policy over a box what `act` returns.

        Raises:
            ConfigError: a mask for a policy over a box, or one that does not fit.
        """
        policy = self.torch
        if not isinstance(policy, DiscretePolicy):
            if mask is not None:
                raise ConfigError(f"The policy {self.name!r} takes no choices. Remedy: leave the mask out.")
            return self.act(observation, deterministic=deterministic, rng=rng)
        obs, is_single = _rows(observation)
        noise = None if deterministic else _noise(rng, (len(obs), policy.act_dim))
        chosen = policy.act(obs, noise, _mask(mask, (len(obs), policy.act_dim))).numpy()
        names = policy.spec.space.choices if isinstance(policy, PolicyNetwork) else None
        ids = outer_actions(chosen, names or stated_names(policy.act_dim))
        return (int(ids[0]) if ids.ndim == 1 else ids[0]) if is_single else ids

    def probabilities(self, observation: ArrayLike, *, mask: ArrayLike | None = None) -> NDArray[np.float32]:
        """Probability of every choice, `[n]` or `[b, n]`; 0 for those that the mask forbids.

        Args:
            observation: `[obs_dim]` or `[b, obs_dim]`, raw units.
            mask: `[n]` or `[b, n]`, the choices that are allowed; None for all.

        Raises:
            ConfigError: the policy takes no choices, or the mask does not fit.
        """
        policy = self.torch
        if not isinstance(policy, DiscretePolicy):
            raise ConfigError(f"The policy {self.name!r} takes no choices: it has no probabilities.")
        obs, is_single = _rows(observation)
        probs = policy.probs(obs, _mask(mask, (len(obs), policy.act_dim))).numpy()
        return probs[0] if is_single else probs

    def save(self, path: str | Path) -> Path:
        """Writes it as one `.safetensors` file that stands alone.

        Raises:
            ConfigError: it is no network of this package, or the suffix is another.
        """
        target = Path(path)
        if target.suffix != ".safetensors":
            raise ConfigError(f"The file (--out) must end in .safetensors, not {target.name!r}.")
        return save_policy(target, self.torch, self.stored.facts)

    def for_space(self, space: SpaceSpec) -> StoredPolicy:
        """The policy as stages take it, in the action box of a log or a task.

        Raises:
            ConfigError: it acts in another number of dimensions.
        """
        policy = self.torch
        if isinstance(policy, FunctionPolicy):
            bound = policy.bind(space)
            return StoredPolicy(bound, self.stored.facts, self.stored.content)
        width = policy.spec.space.obs_dim if isinstance(policy, PolicyNetwork) else None
        if width is not None and self.stored.history is None and width != space.obs_dim:
            raise ConfigError(
                f"The policy {self.stored.source} reads {width} numbers, what it is held against gives "
                f"{space.obs_dim}. Remedy: name the log or the task that it was made for."
            )
        if policy.act_dim != space.act_dim:
            raise ConfigError(
                f"The policy {self.stored.source} has {policy.act_dim} action dimensions, what it is held "
                f"against {space.act_dim}. Remedy: name the log or the task that it was made for."
            )
        return self.stored

    def live(self) -> "LivePolicy":
        """The policy as it acts on a machine: frame by frame, remembering what it reads of those before.

        Raises:
            ConfigError: it is no network of this package.
        """
        return LivePolicy(self.stored)

    def to_dict(self) -> dict[str, Any]:
        """What is known of it."""
        return {**self.stored.facts, "path": None if self.stored.path is None else str(self.stored.path)}

    def __repr__(self) -> str:
        kind = "stochastic" if self.is_stochastic else "deterministic"
        return f"Policy({self.name!r}, {kind})"


class LivePolicy:
    """Acts on a machine, one frame after the other; `Policy.live` makes it.

    A policy that was trained with a history (`mbrl.with_history`) needs the frames and actions before: they
    are remembered here. At the start of an episode its first frame and the resting action stand for them.

    Args:
        stored: a network with what is known of it.

    Example:
        >>> import numpy as np, mbrl
        >>> log = mbrl.with_history(mbrl.load("pendulum-mixed"), 2)
        >>> run = mbrl.train(log, "bc", updates=2, progress=False)
        >>> controller = run.policy.live()
        >>> controller.act(np.array([1.0, 0.0, 0.5])).shape
        (1,)
        >>> controller.reset()  # before the next episode
    """

    def __init__(self, stored: StoredPolicy) -> None:
        space, history = stored.network.spec.space, stored.history
        if history is not None:
            frame_dim = history.frame_dim(space.obs_dim, space.act_dim)
            space = dataclasses.replace(space, obs_dim=frame_dim)
        self._policy, self._obs_dim = stored.on_frames(space), space.obs_dim

    def act(self, frame: ArrayLike) -> NDArray[np.float32]:
        """The evaluation action `[act_dim]`, environment units, for the next frame `[frame_dim]`, raw units.

        Raises:
            ConfigError: the frame has another size, or is not finite.
        """
        obs = np.asarray(frame, dtype=np.float32)
        if obs.shape != (self._obs_dim,) or not np.isfinite(obs).all():
            raise ConfigError(
                f"The frame has shape {list(obs.shape)}, or a value that is not finite; expected "
                f"[{self._obs_dim}]. Remedy: give one frame as the log has them."
            )
        rows = torch.tensor(obs)[None]
        with torch.no_grad():
            if isinstance(self._policy, EpisodicPolicy):
                return self._policy.act_in_episodes(rows, episodes=[0])[0].numpy()
            return self._policy.act(rows)[0].numpy()

    def reset(self) -> None:
        """Forgets the episode."""
        if isinstance(self._policy, EpisodicPolicy):
            self._policy.reset()


def _rows(observation: ArrayLike) -> tuple[Tensor, bool]:
    """`[b, obs_dim]`, and whether it was one state."""
    values = np.asarray(observation, dtype=np.float32)
    if values.ndim not in (1, 2):
        raise ConfigError(f"An observation is [obs_dim] or [b, obs_dim], not {list(values.shape)}.")
    if not np.isfinite(values).all():
        raise ConfigError("The observation holds a NaN or an infinity. Remedy: check the sensor.")
    return torch.from_numpy(np.array(np.atleast_2d(values))), values.ndim == 1


def _mask(mask: ArrayLike | None, shape: tuple[int, int]) -> Tensor | None:
    """`[b, n]`; one row stands for all."""
    if mask is None:
        return None
    values = np.atleast_2d(np.asarray(mask, dtype=np.bool_))
    if values.shape not in {shape, (1, shape[1])}:
        raise ConfigError(f"A mask is [{shape[1]}] or {list(shape)}, not {list(np.shape(mask))}.")
    if not values.any(-1).all():
        raise ConfigError("A mask allows no choice. Remedy: allow at least one.")
    return torch.from_numpy(np.broadcast_to(values, shape).copy())


def _noise(rng: np.random.Generator | int | None, shape: tuple[int, int]) -> Tensor:
    generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


def as_policy(candidate: Any) -> Policy:
    """A `Policy` of whatever stands for one: itself, a run, a path, or a function of observations.

    Raises:
        ConfigError: it stands for none.
    """
    if isinstance(candidate, Policy):
        return candidate
    inner = getattr(candidate, "policy", None)
    if isinstance(inner, Policy):
        return inner
    if isinstance(candidate, (str, Path)):
        return Policy.load(candidate)
    if callable(candidate):
        act = cast("Act", candidate)
        return Policy.from_callable(act, name=str(getattr(act, "__name__", "custom")).strip("<>"))
    raise ConfigError(
        f"A {type(candidate).__name__} is no policy. Remedy: give a Policy, a Run, the path of a training or "
        "a policy file, or Policy.from_callable of a function of observations."
    )
