"""A planner on top of a trained policy, as its yaml tells it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.planning.base import PLANNERS, Budget
from mbrl.planning.choice import PlannerChoice, PlannerField
from mbrl.planning.improvement.gate import GateConfig
from mbrl.planning.problem.calibration import CalibrationConfig
from mbrl.planning.problem.uncertainty import UncertaintyConfig
from mbrl.run.config import find_part
from mbrl.run.documents import Override, Tree, read_overrides, read_yaml, set_at
from mbrl.run.validation import validate

CriticSource: TypeAlias = Literal["auto", "learner", "fqe"]


class PlanConfig(BaseModel):
    """Planning on top of a trained policy.

    Attributes:
        planner: which one, with its settings.
        sims: simulations or plans for each state; null for no such limit.
        milliseconds: of wall time for each call; null for no such limit. Plans are then made for one state at
            a time, as on a robot, and results depend on the machine.
        pessimism: factor on the calibrated penalty and on the calibrated deviations over members: 1 is
            calibrated, 0 is off, 2 is doubled.
        halts: end imagined steps whose uncertainty exceeds the calibrated threshold.
        soft_horizon_coef: eta, how fast trust in imagined steps falls with their uncertainty.
        critic_lcb_coef: deviations over critics that are subtracted at leaves.
        uncertainty: how that of a step is measured.
        calibration: how the cost of uncertainty is set on held-out rows.
        termination: who ends imagined episodes: the `learned` head or the known rule of the `task` (or the
            one that the log carries); `auto` takes the rule where there is one.
        critic: whose values stand at leaves: the `learner`'s, those of an `fqe` ensemble that is fitted to
            the log, or `auto`: the learner's where it has some.
        fqe: of that ensemble, whose members regress on resampled episodes with targets of their own.
        fqe_doublings: how often its updates are doubled while its values do not stand still.
        unsettled_critic: `refuse` values that still do not, or `use` them.
        constraint: a condition over the names of a step (`next_NAME` after it) that plans have to keep to;
            null for none.
        max_violation: share of a plan's imagined futures in which it may be broken while another plan is left
            that keeps to it.
        cost: what a step costs, an expression over the same names; null for nothing.
        cost_price: reward units that a unit of cost takes off a step's reward.
        cost_limit: most that the steps of a plan may cost, undiscounted; null for no limit.
        is_warm: offer the plan of the step before.
        gate: which gains may override the policy.
        certificate_states: logged states on which the planner is compared with the policy in the model; 0
            leaves the certificate out.
        certificate_sims: of each of these plans where `sims` is null, since no clock limits them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    planner: PlannerField
    sims: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    milliseconds: Annotated[float | None, Field(gt=0, le=1e6)] = None
    pessimism: Annotated[float, Field(ge=0, le=1000)] = 1.0
    halts: bool = False
    soft_horizon_coef: Annotated[float, Field(ge=0, le=1000)] = 0.0
    critic_lcb_coef: Annotated[float, Field(ge=0, le=1000)] = 0.0
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    termination: Literal["auto", "learned", "task"] = "auto"
    critic: CriticSource = "auto"
    fqe: FQEConfig = FQEConfig(updates=20_000, hidden=(128, 128), learning_rate=1e-3, polyak_tau=0.02)
    fqe_doublings: Annotated[int, Field(ge=0, le=20)] = 2
    unsettled_critic: Literal["refuse", "use"] = "refuse"
    constraint: str | None = None
    max_violation: Annotated[float, Field(ge=0, lt=1)] = 0.05
    cost: str | None = None
    cost_price: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    cost_limit: Annotated[float | None, Field(ge=-1e12, le=1e12)] = None
    is_warm: bool = True
    gate: GateConfig = GateConfig()
    certificate_states: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    certificate_sims: Annotated[int, Field(ge=1, le=1_000_000)] = 256

    @model_validator(mode="after")
    def _has_a_limit(self) -> "PlanConfig":
        if self.sims is None and self.milliseconds is None:
            raise ValueError("a planner needs sims, milliseconds or both")
        return self

    @model_validator(mode="after")
    def _prices_a_cost(self) -> "PlanConfig":
        if self.cost is None and (self.cost_price > 0.0 or self.cost_limit is not None):
            raise ValueError("cost_price and cost_limit are about a cost: give the expression `cost`")
        return self

    @property
    def budget(self) -> Budget:
        """When a plan stops."""
        return Budget(self.sims, self.milliseconds)

    def tree(self) -> Tree:
        """Plain values in the shape of a yaml file."""
        return {**self.model_dump(mode="json", exclude={"planner"}), "planner": self.planner.tree()}


def load_plan_config(
    planner: str,
    *,
    arguments: Mapping[str, Any] | None = None,
    overrides: Sequence[Override] = (),
) -> PlanConfig:
    """A shipped planner, or a yaml of one, with changes.

    Milliseconds that are given without `sims` take the place of those that stand in the file.

    Args:
        planner: name in `configs/planners`, or path of a yaml.
        arguments: top-level values given on the command line; None values count as not given.
        overrides: `dotted.key=value`, or a key's path and its value, in order.

    Raises:
        ConfigError: an unknown key or name, or a value that is out of range.
    """
    file = find_part("planners", planner)
    tree = read_yaml(file)
    given = {key: value for key, value in (arguments or {}).items() if value is not None}
    if "milliseconds" in given and "sims" not in given:
        tree["sims"] = None
    for key, value in given.items():
        set_at(tree, (key,), value)
    for path, value in read_overrides(overrides):
        set_at(tree, path, value)
    return _build(tree, where=f"Planner {file}")


def parse_plan_config(part: Mapping[str, Any], *, where: str) -> PlanConfig:
    """A planner section: `{file: mppi, further keys}` to change values of a file, or the whole of it.

    Raises:
        ConfigError: see `load_plan_config`.
    """
    changes = dict(part)
    tree = read_yaml(find_part("planners", str(changes.pop("file")))) if "file" in part else {}
    if "milliseconds" in changes and "sims" not in changes:
        tree["sims"] = None
    return _build(_merged(tree, changes), where=where, prefix="planner")


def _build(tree: Mapping[str, Any], *, where: str, prefix: str = "") -> PlanConfig:
    """Validates a tree, the planner's own settings first, so that a slip in them is told by its name."""
    fields, planner = dict(tree), tree.get("planner")
    if isinstance(planner, Mapping) and "name" in planner:
        settings = dict(cast("Mapping[str, Any]", planner))
        entry = PLANNERS.get(str(settings.pop("name")))
        below = f"{prefix}.planner" if prefix else "planner"
        config = validate(entry.config, settings, where=where, prefix=below)
        fields["planner"] = PlannerChoice(name=str(tree["planner"]["name"]), config=config)
    return validate(PlanConfig, fields, where=where, prefix=prefix)


def _merged(tree: Tree, changes: Mapping[str, Any]) -> Tree:
    merged = dict(tree)
    for key, value in changes.items():
        old: Any = merged.get(key)
        is_section = isinstance(old, dict) and isinstance(value, Mapping)
        merged[key] = _merged(cast("Tree", old), cast("Mapping[str, Any]", value)) if is_section else value
    return merged
