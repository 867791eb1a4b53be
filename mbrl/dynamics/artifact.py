"""A fitted model with all that its users need, and its form on disk: JSON and tensors."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from mbrl.core.history import History
from mbrl.core.protocols import Policy, RewardFn
from mbrl.dynamics.categorical.model import CategoricalDynamics
from mbrl.dynamics.categorical.stored import categorical_shapes, categorical_tensors, rebuild_categorical
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.dynamics.forecast import Forecast
from mbrl.dynamics.linear_base import LinearBase
from mbrl.dynamics.prediction import RolloutPrediction, StepPrediction, predict_rollout, predict_steps
from mbrl.dynamics.report import DynamicsReport
from mbrl.dynamics.tabular.model import TabularDynamics, TabularTermination
from mbrl.dynamics.tabular.stored import rebuild_table, table_shapes, table_tensors
from mbrl.dynamics.termination import NeverTerminates, TerminationHead
from mbrl.nets.encoding import PiecewiseLinearEncoding
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP

DYNAMICS_FORMAT: Final = 5
"""Of the file of a fit; it is part of a fit's identity, so that fits of before are made again."""

AnyDynamics: TypeAlias = DynamicsEnsemble | TabularDynamics | CategoricalDynamics
"""What a fit leaves behind as its model, by the kind of its config."""


@dataclasses.dataclass(frozen=True, slots=True)
class FittedDynamics:
    """What a fit leaves behind.

    Attributes:
        model: the elites, recalibrated, or a table; implements `DynamicsModel`.
        termination: the learned head, or what the table counted; implements `TerminationFn`.
        forecast: what held-out episodes say of predictions of several steps.
        config: what it was fitted with.
        dataset_hash: content hash of the dataset.
        reward_scale: c_r, deviation of the training rewards, which one outlier cannot move (`robust_scale`);
            the unit of penalties, reward units.
        thresholds: for each uncertainty measure, its quantiles over held-out rows by probability, in its own
            units. The 0.95 quantile makes a measure unit-free; the others are rollout thresholds.
        report: how far it can be trusted.
        known_reward: rule that takes the place of the learned reward in imagination; no part of the file, but
            of the log that the fit is used with.
    """

    model: AnyDynamics
    termination: TerminationHead | NeverTerminates | TabularTermination
    forecast: Forecast
    config: DynamicsConfig
    dataset_hash: str
    reward_scale: float
    thresholds: Mapping[str, Mapping[float, float]]
    report: DynamicsReport
    known_reward: RewardFn | None = None

    @property
    def trusted_horizon(self) -> int:
        """Steps that can be trusted; 0 says: do not roll out."""
        return self.report.trusted_horizon

    @property
    def has_rewards(self) -> bool:
        """Whether the log had rewards; without them every predicted reward is NaN."""
        return self.report.reward is not None

    def predict(self, obs: ArrayLike, action: ArrayLike) -> StepPrediction:
        """Mean and calibrated deviation of the next observation and the reward, and the end of the task.

        Args:
            obs: `[obs_dim]` or `[n, obs_dim]`, raw units.
            action: `[act_dim]` or `[n, act_dim]`, environment units.

        Raises:
            DataError: shapes do not fit the model or one another, or a value is not finite.
        """
        step = predict_steps(self.model, self.termination, obs, action)
        if self.has_rewards:
            return step
        unknown = np.full_like(step.reward, np.nan)
        return dataclasses.replace(step, reward=unknown, reward_std=unknown)

    def rollout(
        self,
        obs: ArrayLike,
        actions: ArrayLike | Policy,
        *,
        horizon: int | None = None,
        particles: int = 100,
        level: float = 0.9,
        seed: int = 0,
    ) -> RolloutPrediction:
        """Means and intervals of several steps ahead, under given actions or a policy; nothing cuts them.

        Steps beyond `trusted_horizon` are predicted all the same. Means and intervals are corrected by what
        held-out episodes say of such predictions (`Forecast`): where nothing can be known any more they are
        the mean and the spread of the log. A policy or actions unlike those of the log are outside of what
        this was judged on.

        Args:
            obs: `[obs_dim]` or `[n, obs_dim]`, where to start, raw units.
            actions: `[h, act_dim]` (for every start) or `[n, h, act_dim]`, environment units; or a policy.
            horizon: steps; needed with a policy, at most h with actions (None for all of them).
            particles: sampled futures of each start.
            level: of the intervals, in (0, 1).
            seed: of the futures.

        Raises:
            DataError: shapes do not fit the model or one another, a value is not finite, or a number is out
                of its range.
        """
        found = predict_rollout(
            self.model,
            self.termination,
            obs,
            actions,
            horizon=horizon,
            particles=particles,
            level=level,
            seed=seed,
            forecast=self.forecast,
        )
        if self.has_rewards:
            return found
        unknown = np.full_like(found.reward, np.nan)
        return dataclasses.replace(found, reward=unknown, reward_low=unknown, reward_high=unknown)

    def to_tensors(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Facts for a JSON file, and tensors for a safetensors file."""
        head = self.termination if isinstance(self.termination, TerminationHead) else None
        tensors: dict[str, Tensor] = {f"model.{k}": value for k, value in _model_tensors(self.model).items()}
        tensors |= {f"forecast.{name}": value for name, value in self.forecast.state_dict().items()}
        if head is not None:
            tensors |= {f"termination.{name}": value for name, value in head.state_dict().items()}
        meta = {
            "format": DYNAMICS_FORMAT,
            "config": self.config.model_dump(mode="json"),
            "dataset_hash": self.dataset_hash,
            "reward_scale": self.reward_scale,
            "history": None if self.model.history is None else dataclasses.asdict(self.model.history),
            "thresholds": {
                name: {str(probability): value for probability, value in quantiles.items()}
                for name, quantiles in self.thresholds.items()
            },
            "report": self.report.model_dump(mode="json"),
            "has_termination": head is not None,
            "termination_reads_successor": head is not None and head.reads_successor,
        }
        return meta, {name: value.detach().contiguous().clone() for name, value in tensors.items()}

    @classmethod
    def from_tensors(cls, facts: "DynamicsFacts", tensors: Mapping[str, Tensor]) -> "FittedDynamics":
        """Inverse of `to_tensors`.

        Args:
            facts: what `to_tensors` said, as `DynamicsFacts` reads it.
            tensors: of the shapes that `tensor_shapes` gives.

        Raises:
            ValueError: the edges of the termination head's encoding do not ascend, or the sizes do not fit
                the history.
        """
        model = _rebuild_model(facts.config, _part(tensors, "model."), facts.history)
        head: TerminationHead | NeverTerminates | TabularTermination = NeverTerminates()
        if isinstance(model, TabularDynamics):
            head = TabularTermination(model)
        elif facts.has_termination:
            head = _rebuild_head(
                facts.config,
                _part(tensors, "termination."),
                reads_successor=facts.termination_reads_successor,
            )
        return cls(
            model=model,
            termination=head,
            forecast=Forecast(**_part(tensors, "forecast.")),
            config=facts.config,
            dataset_hash=facts.dataset_hash,
            reward_scale=facts.reward_scale,
            thresholds={
                name: {float(probability): value for probability, value in quantiles.items()}
                for name, quantiles in facts.thresholds.items()
            },
            report=facts.report,
        )


class DynamicsFacts(BaseModel):
    """What the file of a fit says besides its tensors; see `FittedDynamics`.

    Attributes:
        format: of the tensors and of these facts.
        config: what it was fitted with.
        dataset_hash: content hash of the dataset.
        reward_scale: deviation of the training rewards.
        history: past frames and actions that an observation holds, or None.
        thresholds: for each uncertainty measure, its quantiles by probability.
        report: how far it can be trusted.
        has_termination: whether there is a learned head.
        termination_reads_successor: whether that reads s'.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[5]
    config: DynamicsConfig
    dataset_hash: str
    reward_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    history: History | None
    thresholds: dict[str, dict[Annotated[str, Field(pattern=r"^[0-9.e-]{1,30}$")], float]]
    report: DynamicsReport
    has_termination: bool
    termination_reads_successor: bool

    @field_validator("thresholds")
    @classmethod
    def _probabilities_are_numbers(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for quantiles in value.values():
            for probability in quantiles:
                if not 0 <= float(probability) <= 1:
                    raise ValueError(f"{probability} is no probability")
        return value


def tensor_shapes(facts: DynamicsFacts, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes that the tensors of a fit must have, by name, held against what some of them say of the sizes.

    The sizes are those of `model.bounds` `[e, 2, frame_dim + 1]`, `model.inputs.mean` `[obs_dim + act_dim]`,
    `forecast.share` `[h, obs_dim + 1]` and `termination.encoding.edges` `[k, obs_dim]`, of the head's members
    that of its parameters.
    """
    config, part = facts.config, _part(tensors, "model.")
    if config.kind == "gaussian":
        model, (inputs, obs_dim) = _ensemble_shapes(facts, part)
    else:
        is_table = config.kind == "tabular"
        model = table_shapes(part) if is_table else categorical_shapes(config, part)
        inputs, obs_dim = model["inputs.mean"][0], model["targets.mean"][0] - 1
    steps, _ = _sizes(tensors, "forecast.share", 2)
    shapes: dict[str, tuple[int, ...]] = {
        **{f"model.{name}": shape for name, shape in model.items()},
        **{f"forecast.{name}": shape for name, shape in Forecast.tensor_shapes(steps, obs_dim).items()},
    }
    if facts.has_termination and config.kind != "tabular":
        width = inputs + obs_dim if facts.termination_reads_successor else inputs
        edges, _ = _sizes(tensors, "termination.encoding.edges", 2)
        heads, _ = _sizes(tensors, "termination.net.flat", 2)
        encoded = width + (edges - 1) * obs_dim
        shapes |= {
            "termination.log_weight": (),
            "termination.inputs.mean": (width,),
            "termination.inputs.std": (width,),
            "termination.encoding.edges": (edges, obs_dim),
            "termination.net.flat": StackedMLP.flat_shape(heads, encoded, config.termination.hidden, 1),
        }
    return shapes


def _ensemble_shapes(
    facts: DynamicsFacts, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[int, ...]], tuple[int, int]]:
    """Shapes of an ensemble's tensors, and sizes of (s, a) and of s."""
    members, _, outputs = _sizes(tensors, "bounds", 3)
    (inputs,) = _sizes(tensors, "inputs.mean", 1)
    config = facts.config
    shapes: dict[str, tuple[int, ...]] = {
        "bounds": (members, 2, outputs),
        "temperature": (outputs,),
        **{f"inputs.{name}": shape for name, shape in Normaliser.tensor_shapes(inputs).items()},
        **{f"targets.{name}": shape for name, shape in Normaliser.tensor_shapes(outputs).items()},
        **{f"base.{name}": shape for name, shape in LinearBase.tensor_shapes(inputs, outputs).items()},
        "net.flat": StackedMLP.flat_shape(
            members, inputs, config.hidden, 2 * outputs, layer_norm=config.layer_norm
        ),
    }
    return shapes, (inputs, _obs_dim(facts.history, inputs, outputs))


def _obs_dim(history: History | None, inputs: int, outputs: int) -> int:
    """Size of an observation; 1 where the sizes fit no history: the shapes then contradict each other."""
    if history is None:
        return outputs - 1
    try:
        return inputs - history.act_dim(inputs, outputs - 1)
    except ValueError:
        return 1


def _sizes(tensors: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    """The shape of a tensor, each size at least 1; ones where it is missing or has other dimensions."""
    shape = tuple(tensors[name].shape) if name in tensors else ()
    return tuple(max(1, size) for size in shape) if len(shape) == dims else (1,) * dims


def build_net(config: DynamicsConfig, sizes: tuple[int, int, int], generator: torch.Generator) -> StackedMLP:
    """The stacked network of an ensemble, `sizes` being (members, inputs, outputs)."""
    return StackedMLP(
        sizes[0],
        sizes[1],
        config.hidden,
        sizes[2],
        generator=generator,
        activation=config.activation,
        layer_norm=config.layer_norm,
        init="truncated_normal",
    )


def build_head_net(config: DynamicsConfig, sizes: tuple[int, int], generator: torch.Generator) -> StackedMLP:
    """The stacked network of a termination head, `sizes` being (members, encoded inputs)."""
    return StackedMLP(
        sizes[0],
        sizes[1],
        config.termination.hidden,
        1,
        generator=generator,
        activation=config.activation,
        init="truncated_normal",
    )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _model_tensors(model: AnyDynamics) -> dict[str, Tensor]:
    if isinstance(model, TabularDynamics):
        return table_tensors(model)
    return categorical_tensors(model) if isinstance(model, CategoricalDynamics) else model.state_dict()


def _rebuild_model(
    config: DynamicsConfig, tensors: dict[str, Tensor], history: History | None
) -> AnyDynamics:
    if config.kind == "tabular":
        return rebuild_table(tensors)
    if config.kind == "categorical":
        return rebuild_categorical(config, tensors)
    bounds = tensors["bounds"]
    inputs, outputs = tensors["inputs.mean"].shape[0], bounds.shape[-1]
    net = build_net(config, (bounds.shape[0], inputs, 2 * outputs), torch.Generator().manual_seed(0))
    model = DynamicsEnsemble(
        net,
        bounds,
        inputs=Normaliser.identity(inputs),
        targets=Normaliser.identity(outputs),
        history=history,
    )
    model.load_state_dict(tensors)
    return model.requires_grad_(requires_grad=False)


def _rebuild_head(
    config: DynamicsConfig, tensors: dict[str, Tensor], *, reads_successor: bool
) -> TerminationHead:
    inputs = tensors["inputs.mean"].shape[0]
    encoding = PiecewiseLinearEncoding(tensors["encoding.edges"])
    sizes = (tensors["net.flat"].shape[0], inputs + encoding.added_size)
    head = TerminationHead(
        build_head_net(config, sizes, torch.Generator().manual_seed(0)),
        inputs=Normaliser.identity(inputs),
        encoding=encoding,
        positive_weight=1.0,
        reads_successor=reads_successor,
    )
    head.load_state_dict(tensors)
    return head.requires_grad_(requires_grad=False)
