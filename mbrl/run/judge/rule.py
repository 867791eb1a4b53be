"""What a user may choose about the choice among policies."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mbrl.off_policy.value.fqe_config import FQEConfig
from mbrl.run.judge.question import RETURN_DISCOUNT

RuleName: TypeAlias = Literal["judge", "last", "fqe"]


class SelectRule(BaseModel):
    """How one of several policies is chosen: of a training's, along its way; of a grid's trainings.

    Attributes:
        rule: `judge`, the best lower bound over the members of models that trained no policy (section
            `judges`); `last`, nothing is chosen; or `fqe`, the largest lower end of the 95 % interval of
            fitted Q evaluation of the evaluation action. null is `judge` for recipes that need a model and
            imitate nobody, else `last`.
        kept: policies of a training that are kept at even intervals and may be chosen.
        discount: of the value under `fqe`; 1 is the return.
        horizon: steps that count under `fqe`; null takes the whole task, as `mbrl ope` does.
        fqe: of the value fits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: RuleName | None = None
    kept: Annotated[int, Field(ge=1, le=1000)] = 20
    discount: Annotated[float, Field(ge=0, le=1)] = RETURN_DISCOUNT
    horizon: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    fqe: FQEConfig = FQEConfig()


def _open_name(value: object) -> object:
    return {"rule": value} if isinstance(value, str) else value


Select: TypeAlias = Annotated[SelectRule, BeforeValidator(_open_name)]
"""A rule, or its bare name."""


def kept_steps(updates: int, kept: int) -> tuple[int, ...]:
    """The updates after which a policy is kept: `kept` of them at even intervals, the last among them.

    A longer training whose intervals are a multiple of those of a shorter one finds its policies there.
    """
    return tuple(sorted({max(1, round(updates * k / kept)) for k in range(1, kept + 1)} | {updates}))
