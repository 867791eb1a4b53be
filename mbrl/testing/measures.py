"""What every uncertainty measure must keep to."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from mbrl.core.device import on_device
from mbrl.core.types import DynamicsPosterior
from mbrl.testing.card import StandIn
from mbrl.testing.checks import Checks, Subject, expect, expect_all, expect_close, expect_same, run_checks
from mbrl.uncertainty.density import DensityReference
from mbrl.uncertainty.measures import MEASURES, Measure, StepContext

_MEMBERS, _ROWS, _OBS_DIM, _ACT_DIM = 4, 12, 3, 2
_UNITS = (1.0, 50.0, 0.02)


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureCase:
    """A measure, and steps of which it is told all that there is to know.

    Attributes:
        measure: as it is registered.
    """

    measure: Measure

    def step(
        self, units: Sequence[float] = (1.0,) * _OBS_DIM, rows: slice = slice(None)
    ) -> tuple[DynamicsPosterior, StepContext]:
        """Twelve steps in a model of four members, which disagree from row to row more.

        Args:
            units: one factor for each dimension of the observation.
            rows: that are kept.
        """
        draws = torch.Generator().manual_seed(0)
        scale = torch.tensor(units)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draws)

        obs, action = normal(_ROWS, _OBS_DIM), normal(_ROWS, _ACT_DIM)
        spread = torch.linspace(0.01, 1.0, _ROWS)[:, None]
        mean = obs + 0.3 * normal(_ROWS, _OBS_DIM) + spread * normal(_MEMBERS, _ROWS, _OBS_DIM)
        variance = 0.1 + 0.1 * normal(_MEMBERS, _ROWS, _OBS_DIM).square()
        reward = spread[:, 0] * normal(_MEMBERS, _ROWS)
        outcome, values = mean[0] + 0.1 * normal(_ROWS, _OBS_DIM), normal(5, _MEMBERS, _ROWS)
        logged = normal(50, _OBS_DIM) * scale, normal(50, _ACT_DIM)
        posterior = DynamicsPosterior(
            mean[:, rows] * scale,
            variance[:, rows] * scale.square(),
            reward[:, rows],
            torch.full_like(reward, 0.04)[:, rows],
            delta_scale=scale.clone(),
            reward_scale=torch.tensor(2.0),
        )
        context = StepContext(
            obs=obs[rows] * scale,
            action=action[rows],
            reference=DensityReference.fit(*logged, generator=torch.Generator().manual_seed(1)),
            outcome=outcome[rows] * scale,
            next_values=values[:, :, rows],
        )
        return posterior, context


def check_measure(measure: str | Measure, *, checks: Sequence[str] | None = None) -> None:
    """Checks an uncertainty measure: its shape and sign, rows on their own, members alike, units.

    Args:
        measure: name in the registry, or the function itself.
        checks: names from `MEASURE_CHECKS`; None for all.

    Raises:
        CheckError: a check failed; the message says what was expected and what came.
        ConfigError: there is no measure, or no check, of that name.
    """
    found = MEASURES.get(measure) if isinstance(measure, str) else measure
    name = measure if isinstance(measure, str) else getattr(measure, "__name__", repr(measure))
    run_checks(MEASURE_CHECKS, MeasureCase(found), Subject("uncertainty measure", name), checks)


def one_number_for_each_row(case: MeasureCase) -> None:
    """`[b]`, finite, not below 0."""
    value = case.measure(*case.step())
    expect(list(value.shape) == [_ROWS], f"the shape {[_ROWS]}", came=list(value.shape))
    expect_all(value.isfinite() & (value >= 0), "finite values of 0 at least")


def rows_do_not_influence_each_other(case: MeasureCase) -> None:
    """A step is as uncertain among others as on its own."""
    rows = slice(3, 5)
    alone, together = case.measure(*case.step(rows=rows)), case.measure(*case.step())
    expect_close(alone, together[rows], "the same of rows on their own", rtol=1e-4, atol=1e-6)


def inputs_stay(case: MeasureCase) -> None:
    """Posterior and context are as before."""
    posterior, context = case.step()
    before = copy.deepcopy((posterior, context))
    case.measure(posterior, context)
    for now, then in zip((posterior, context), before, strict=True):
        for field in dataclasses.fields(now):
            value, kept = getattr(now, field.name), getattr(then, field.name)
            if isinstance(value, Tensor):
                expect_same(value, kept, f"{field.name} as it was")


def members_are_alike(case: MeasureCase) -> None:
    """Which member comes first is chance, and changes nothing."""
    posterior, context = case.step()
    turned = dataclasses.replace(
        posterior,
        **{
            name: getattr(posterior, name).roll(1, 0)
            for name in ("mean", "variance", "reward_mean", "reward_variance")
        },
    )
    assert context.next_values is not None
    other = dataclasses.replace(context, next_values=context.next_values.roll(1, 1))
    first, second = case.measure(posterior, context), case.measure(turned, other)
    expect_close(first, second, "the same for members in another order", rtol=1e-4, atol=1e-6)


def units_of_observations_do_not_matter(case: MeasureCase) -> None:
    """Deviations of the data are the unit, so a joint in degrees counts as one in radians."""
    first, second = case.measure(*case.step()), case.measure(*case.step(_UNITS))
    expect_close(first, second, "the same in other units of the observations", rtol=1e-3, atol=1e-5)


def measures_on_a_card(case: MeasureCase) -> None:
    """The same numbers, without waiting for it."""
    expected = case.measure(*case.step())
    with StandIn() as card:
        posterior, context = on_device(case.step(), card.device)
        with card.unattended("measures"):
            found = case.measure(posterior, context)
        found = found.cpu()
    expect_same(found, expected, "the uncertainty of a CPU from a card")


MEASURE_CHECKS: Final[Checks[MeasureCase]] = {
    check.__name__: check
    for check in (
        one_number_for_each_row,
        rows_do_not_influence_each_other,
        inputs_stay,
        members_are_alike,
        units_of_observations_do_not_matter,
        measures_on_a_card,
    )
}
"""Checks of `check_measure` by name."""
