"""Known termination rules as functions of the successor state."""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.envs.specs import Bound, PolynomialBound, TerminationRule


@dataclasses.dataclass(frozen=True, slots=True)
class KnownTermination:
    """A declared rule as a `TerminationFn`: 1 where the successor is terminal, else 0.

    The rule reads `next_obs` alone, in the precision that it comes in: a float32 value within one rounding
    step of a bound may fall on either side of the simulator's float64 test.

    Attributes:
        rule: the declaration.
    """

    rule: TerminationRule

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],  # noqa: ARG002 - the seam passes the whole transition
        action: Float[Tensor, "b act_dim"],  # noqa: ARG002
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]`, 0 or 1 in the type of `next_obs`; a NaN or an infinity in any dimension gives 1."""
        alive = torch.isfinite(next_obs).all(dim=-1)
        for dim, bound in self.rule.bounds.items():
            alive &= self._is_within(next_obs[:, dim], bound)
        if self.rule.abs_below is not None:
            largest = next_obs[:, self.rule.abs_below.from_dim :].abs().amax(dim=-1)
            alive &= self._is_within(largest, (None, self.rule.abs_below.limit))
        for polynomial in self.rule.polynomials:
            alive &= self._is_within(_evaluate(polynomial, next_obs), polynomial.bound)
        return (~alive).to(next_obs.dtype)

    def _is_within(self, value: Float[Tensor, "b"], bound: Bound) -> Bool[Tensor, "b"]:
        low, high = bound
        is_alive = torch.ones_like(value, dtype=torch.bool)
        if low is not None:
            is_alive &= value >= low if self.rule.is_inclusive else value > low
        if high is not None:
            is_alive &= value <= high if self.rule.is_inclusive else value < high
        return is_alive


def _evaluate(polynomial: PolynomialBound, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
    """Sum of `coefficient * prod_d s_d`."""
    terms = [term.coefficient * obs[:, list(term.dims)].prod(dim=-1) for term in polynomial.terms]
    return torch.stack(terms).sum(dim=0)
