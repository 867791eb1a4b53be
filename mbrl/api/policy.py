"""Policies in NumPy: those that were trained here, and those of anybody else."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DiscretePolicy, EpisodicPolicy, StochasticPolicy
from mbrl.core.protocols import Policy as TensorPolicy
from mbrl.core.types import SpaceSpec
from mbrl.nets.policy import PolicyNetwork
from mbrl.run.policies import StoredPolicy, Which, open_policy, save_policy

Act: TypeAlias = Callable[[NDArray[np.float32]], ArrayLike]
"""`[b, obs_dim]` to `[b, act_dim]`, raw units: the action without noise."""

LogProb: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.float32]], ArrayLike]
"""`[b, obs_dim]`, `[b, act_dim]` to `[b]`: log-density of actions in environment units."""

Sample: TypeAlias = Callable[[NDArray[np.float32], np.random.Generator], ArrayLike]
"""`[b, obs_dim]` and a generator to one draw `[b, act_dim]` for each row."""


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
            _Callable(act, name) if log_prob is None else _StochasticCallable(act, log_prob, sample, name)
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
        if isinstance(policy, _Callable):
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


class _Callable:
    """A function of arrays as a deterministic tensor policy; `act_dim` is 0 until it is bound to a space."""

    def __init__(self, act: Act, name: str, space: SpaceSpec | None = None) -> None:
        self._act, self._name, self._space = act, name, space

    @property
    def act_dim(self) -> int:
        return 0 if self._space is None else self._space.act_dim

    def bind(self, space: SpaceSpec) -> "_Callable":
        return type(self)(self._act, self._name, space)

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        del noise
        return self._checked(self._act(_array(obs)), obs, "act")

    def _checked(self, action: ArrayLike, obs: Tensor, what: str) -> Tensor:
        """Finite, `[b, act_dim]` and inside the bounds; what is outside is moved to the bound."""
        values = np.asarray(action, dtype=np.float32)
        width = values.shape[-1] if self._space is None else self._space.act_dim
        if values.shape != (len(obs), width):
            raise ConfigError(
                f"{what} of the policy {self._name!r} returned shape {list(values.shape)} for {len(obs)} "
                f"observations; expected [{len(obs)}, {width}]. Remedy: return one row for each observation."
            )
        bad = ~np.isfinite(values).all(-1)
        if bad.any():
            row = int(np.argmax(bad))
            raise ConfigError(
                f"{what} of the policy {self._name!r} returned {values[row].tolist()} for the observation "
                f"{obs[row].tolist()}. Remedy: return finite actions."
            )
        if self._space is not None:
            values = np.clip(
                values, *(np.array(b, dtype=np.float32) for b in (self._space.act_low, self._space.act_high))
            )
        return torch.from_numpy(np.array(values, dtype=np.float32))


class _StochasticCallable(_Callable):
    """Functions of arrays as a tensor policy with a density."""

    def __init__(
        self,
        act: Act,
        log_prob: LogProb,
        sample: Sample | None,
        name: str,
        space: SpaceSpec | None = None,
    ) -> None:
        super().__init__(act, name, space)
        assert sample is not None
        self._log_prob, self._sample = log_prob, sample

    def bind(self, space: SpaceSpec) -> "_StochasticCallable":
        return type(self)(self._act, self._log_prob, self._sample, self._name, space)

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        if noise is None:
            return super().act(obs)
        return self._checked(self._sample(_array(obs), _generator_of(noise)), obs, "sample")

    def sample(
        self, obs: Float[Tensor, "b obs_dim"], count: int, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "k b act_dim"]:
        return torch.stack([self.act(obs, noise[k]) for k in range(count)])

    def log_prob(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """With respect to the action scaled to [-1, 1], as everywhere in this package.

        With u = (a - centre) / half, the densities are related by p(u) = p(a) |da/du|, that is
        log p(u) = log p(a) + sum_i log half_i.
        """
        assert self._space is not None, "a density needs the bounds of the actions"
        values = np.asarray(self._log_prob(_array(obs), _array(action)), dtype=np.float64)
        if values.shape != (len(obs),):
            raise ConfigError(
                f"log_prob of the policy {self._name!r} returned shape {list(values.shape)}; expected "
                f"[{len(obs)}]. Remedy: sum over the dimensions of the action."
            )
        if np.isnan(values).any():
            raise ConfigError(f"log_prob of the policy {self._name!r} returned NaN.")
        half = (np.array(self._space.act_high) - np.array(self._space.act_low)) / 2
        return torch.from_numpy(values + np.log(half).sum()).float()


def _rows(observation: ArrayLike) -> tuple[Tensor, bool]:
    """`[b, obs_dim]`, and whether it was one state."""
    values = np.asarray(observation, dtype=np.float32)
    if values.ndim not in (1, 2):
        raise ConfigError(f"An observation is [obs_dim] or [b, obs_dim], not {list(values.shape)}.")
    if not np.isfinite(values).all():
        raise ConfigError("The observation holds a NaN or an infinity. Remedy: check the sensor.")
    return torch.from_numpy(np.array(np.atleast_2d(values))), values.ndim == 1


def _noise(rng: np.random.Generator | int | None, shape: tuple[int, int]) -> Tensor:
    generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().numpy(), dtype=np.float32)


def _generator_of(noise: Tensor) -> np.random.Generator:
    """A generator that is a function of the noise: equal noise is equal draws."""
    digest = hashlib.blake2b(noise.detach().contiguous().numpy().tobytes(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


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
