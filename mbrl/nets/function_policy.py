"""Functions of arrays as tensor policies: what any other library acts with."""

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mbrl.core.choices import choice_ids
from mbrl.core.errors import ConfigError
from mbrl.core.types import SpaceSpec

Act: TypeAlias = Callable[[NDArray[np.float32]], ArrayLike]
"""`[b, obs_dim]` to `[b, act_dim]`, raw units: the action without noise."""

LogProb: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.float32]], ArrayLike]
"""`[b, obs_dim]`, `[b, act_dim]` to `[b]`: log-density of actions in environment units."""

Sample: TypeAlias = Callable[[NDArray[np.float32], np.random.Generator], ArrayLike]
"""`[b, obs_dim]` and a generator to one draw `[b, act_dim]` for each row."""


class FunctionPolicy:
    """A function of arrays as a deterministic tensor policy; `act_dim` is 0 until it is bound to a space."""

    def __init__(self, act: Act, name: str, space: SpaceSpec | None = None) -> None:
        self._act, self._name, self._space = act, name, space

    @property
    def act_dim(self) -> int:
        """Size of an action; 0 before it is bound."""
        return 0 if self._space is None else self._space.act_dim

    def bind(self, space: SpaceSpec) -> "FunctionPolicy":
        """The same function in a space, which its actions are checked against."""
        return type(self)(self._act, self._name, space)

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """The function's action; noise is ignored."""
        del noise
        return self._checked(self._act(_array(obs)), obs, "act")

    def _checked(self, action: ArrayLike, obs: Tensor, what: str) -> Tensor:
        """Finite, `[b, act_dim]` and inside the bounds; what is outside is moved to the bound.

        Where actions are choices, `[b]` ids are as good: they become one-hot vectors.
        """
        values = np.asarray(action, dtype=np.float32)
        if (
            self._space is not None
            and self._space.is_discrete
            and values.shape in {(len(obs),), (len(obs), 1)}
        ):
            values = self._one_hot(values.reshape(-1), what)
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

    def _one_hot(self, ids: NDArray[np.float32], what: str) -> NDArray[np.float32]:
        assert self._space is not None
        assert self._space.choices is not None
        known = choice_ids(self._space.choices)[:, 0]
        bad = ~np.isin(ids, known)
        if bad.any():
            raise ConfigError(
                f"{what} of the policy {self._name!r} returned the choice {ids[bad][0]:g}; there are "
                f"{', '.join(map(str, known[:6]))}{', ...' if len(known) > 6 else ''}. Remedy: return ids of "
                "these, or one-hot vectors."
            )
        return (ids[:, None] == known).astype(np.float32)


class StochasticFunctionPolicy(FunctionPolicy):
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

    def bind(self, space: SpaceSpec) -> "StochasticFunctionPolicy":
        """The same functions in a space."""
        return type(self)(self._act, self._log_prob, self._sample, self._name, space)

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """The action without noise, or a draw that is a function of it."""
        if noise is None:
            return super().act(obs)
        return self._checked(self._sample(_array(obs), _generator_of(noise)), obs, "sample")

    def sample(
        self, obs: Float[Tensor, "b obs_dim"], count: int, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "k b act_dim"]:
        """`count` draws for each observation."""
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


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().numpy(), dtype=np.float32)


def _generator_of(noise: Tensor) -> np.random.Generator:
    """A generator that is a function of the noise: equal noise is equal draws."""
    digest = hashlib.blake2b(noise.detach().contiguous().numpy().tobytes(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
