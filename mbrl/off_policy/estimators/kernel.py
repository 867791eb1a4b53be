"""Kernel-smoothed ratios: importance sampling for deterministic policies with continuous actions.

A deterministic policy has no density. Blurred by a kernel of width h it has one, the ratio is
`k_h(a - pi(s)) / b(a|s)`, and what is estimated is the value of the blurred policy: a smaller h means less
bias and more variance (Kallus & Zhou 2018; for many steps, Kallus & Uehara 2020).
"""

import dataclasses
from typing import Annotated, Final, Literal, TypeAlias

import numpy as np
import scipy.special
import torch
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimate, Flag
from mbrl.core.protocols import Policy
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import fit_moments
from mbrl.nets.action_box import ActionBox
from mbrl.off_policy.estimators.array_estimator import judge_ratios
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.log.behaviour_fit import is_one_hot
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.log.policies import evaluation_actions, is_stochastic
from mbrl.off_policy.log.weight_evidence import WeightEvidence
from mbrl.ops.gaussian import LOG_2PI

BANDWIDTH_SENSITIVE: Final = Flag.BANDWIDTH_SENSITIVE
"""Flag of an estimate whose answer at half or double the width lies outside of its interval."""

WIDTH_FACTORS: Final = (0.5, 1.0, 2.0)
"""Widths at which the answer is shown, in units of the chosen one."""

KernelName: TypeAlias = Literal["gaussian", "epanechnikov", "triangular", "uniform"]


class KernelConfig(BaseModel):
    """Kernel-smoothed importance sampling.

    Attributes:
        kernel: of each action dimension; all but the Gaussian end at one width.
        bandwidth: h in deviations of the logged action; None takes `n^(-1 / (act_dim + 4))`, n the episodes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kernel: KernelName = "gaussian"
    bandwidth: Annotated[float, Field(gt=0, le=1e3)] | None = None

    def width(self, dataset: Dataset) -> float:
        """The width for this log."""
        if self.bandwidth is not None:
            return self.bandwidth
        # The rate at which squared bias h^4 and variance 1 / (n h^d)
        # fall alike; episodes are the independent units.
        return float(len(dataset) ** (-1.0 / (dataset.spec.act_dim + 4)))


DEFAULT: Final = KernelConfig()


def log_kernel(x: Array, kernel: KernelName) -> Array:
    """Logarithm of a kernel, a density on the line; -inf outside of its support.

    Args:
        x: distances in widths, any shape.
        kernel: which.
    """
    if kernel == "gaussian":
        return -0.5 * (np.square(x) + LOG_2PI)
    # Densities on [-1, 1]: 3/4 (1 - x^2), 1 - |x|, 1/2.
    distance = np.minimum(np.abs(x), 1.0)
    height = {
        "epanechnikov": 0.75 * (1.0 - np.square(distance)),
        "triangular": 1.0 - distance,
        "uniform": 0.5 * (np.abs(x) <= 1.0),
    }
    # log 0 = -inf beyond the support: the ratio is 0 there.
    with np.errstate(divide="ignore"):
        return np.log(height[kernel])


def kernel_mass(low: Array, high: Array, kernel: KernelName) -> Array:
    """Integral of a kernel from `low` to `high`, in widths."""
    if kernel == "gaussian":
        return np.asarray(scipy.special.ndtr(high) - scipy.special.ndtr(low))
    return _compact_mass(high, kernel) - _compact_mass(low, kernel)


def _compact_mass(x: Array, kernel: KernelName) -> Array:
    """Integral of a kernel that ends at one width, from there up to x."""
    # Their integrals, each 0 at -1 and 1 at 1.
    x = np.clip(x, -1.0, 1.0)
    if kernel == "epanechnikov":
        return 0.5 + 0.75 * x - 0.25 * x**3
    if kernel == "triangular":
        return 0.5 + x - 0.5 * x * np.abs(x)
    return 0.5 + 0.5 * x


def smoothed_log_prob(action: Array, centre: Array, *, widths: Array, kernel: KernelName) -> Array:
    """Log-density of actions under a blurred policy, `sum_j log [k((a_j - pi_j(s)) / h_j) / (h_j m_j(s))]`.

    `m_j` is the kernel's mass inside the box, so that the density integrates to 1 over the box: a controller
    that sits on a bound would else lose half of it there.

    Args:
        action: `[n, d]`, on the scale [-1, 1].
        centre: `[n, d]`, the policy's own actions, likewise.
        widths: `[d]`, h_j, likewise.
        kernel: of each dimension.

    Returns:
        `[n]`; -inf outside of the kernel's support.
    """
    # The robot clips what the policy asks for; so does the blurred policy.
    centre = np.clip(centre, -1.0, 1.0)
    # m_j: the kernel's mass between the bounds, as seen from the centre in widths.
    inside = kernel_mass((-1.0 - centre) / widths, (1.0 - centre) / widths, kernel)
    return (log_kernel((action - centre) / widths, kernel) - np.log(widths * inside)).sum(-1)


@register_estimator("kernel", family="ratio")
def estimate_kernel(
    context: EstimatorContext, *, generator: torch.Generator, config: KernelConfig = DEFAULT
) -> Estimate:
    """Kernel-smoothed ratios: PDWIS for a deterministic policy, blurred by a Gaussian.

    The answers at half and double the width stand in `details`.

    Args:
        context: policy, log and question.
        generator: source of all draws.
        config: kernel and width.

    Raises:
        EstimandError: the policy has densities of its own, or the actions are one-hot.
    """
    policy, data = context.policy, context.dataset
    _check(policy, data)
    width = config.width(data)
    # Only episodes that were cut have a tail that a value must stand for.
    values = context.values_on_log(generator) if context.needs_tail else None
    action, centre = _scaled_actions(policy, data)
    # Widths in deviations of the logged action, so that h means the same in every dimension.
    unit = fit_moments(action)[1]
    behaviour = context.behaviour
    found: list[Estimate] = []
    evidence: list[WeightEvidence] = []
    for factor in WIDTH_FACTORS:
        # rho_t = k_h(a_t - pi(s_t)) / b(a_t|s_t), the width h in deviations of the logged action.
        log_prob = smoothed_log_prob(action, centre, widths=factor * width * unit, kernel=config.kernel)
        arrays = context.arrays(log_prob, values)
        # Ratios of each step, self-normalised: blurred densities make large ratios common.
        estimate = importance_sampling(
            arrays, kind="pdwis", tail="bootstrap", transform=context.settings.weights
        )
        found.append(estimate.flagged(*behaviour.flags(arrays)))
        evidence.append(WeightEvidence.of_log(arrays, context.settings.weights))
    why_not = None if values is None else values.why_not
    chosen = evidence[WIDTH_FACTORS.index(1.0)]
    return judge_ratios(_with_widths(found, width), chosen, why_not_values=why_not)


def _check(policy: Policy, data: Dataset) -> None:
    if is_stochastic(policy):
        raise EstimandError(
            "A kernel smooths the one action of a deterministic policy; this one has densities of its own. "
            "Remedy: pdwis, or evaluate its deterministic mode."
        )
    if is_one_hot(data):
        raise EstimandError(
            "One-hot actions have no neighbours to smooth over. Remedy: pdwis, with a policy that gives the "
            "probabilities of its actions (0 and 1 where it is certain)."
        )


def _scaled_actions(policy: Policy, data: Dataset) -> tuple[Array, Array]:
    """Logged actions and the policy's, `[N, d]` on the scale [-1, 1]."""
    rows, box = data.transitions(), ActionBox(data.spec)
    chosen = evaluation_actions(policy, torch.tensor(rows.observation))
    logged, centre = (box.scale(action).double().numpy() for action in (torch.tensor(rows.action), chosen))
    return logged, centre


def _with_widths(found: list[Estimate], width: float) -> Estimate:
    estimate = dataclasses.replace(found[WIDTH_FACTORS.index(1.0)], name="kernel")
    answers = [
        {"bandwidth": factor * width, "point": answer.point, "n_eff": answer.n_eff}
        for factor, answer in zip(WIDTH_FACTORS, found, strict=True)
    ]
    estimate = dataclasses.replace(estimate, details={**estimate.details, "bandwidths": answers})
    if not np.isfinite(estimate.point):
        return estimate
    low, high = estimate.ci95
    # The interval knows of the noise, not of the bias that h brings: widths that disagree show it.
    if not all(low <= answer.point <= high for answer in found):
        estimate = estimate.flagged(BANDWIDTH_SENSITIVE)
    return estimate
