"""Training of the dynamics ensemble, and imagination with it."""

import itertools
import sys

import torch
from torch import Tensor

from mbrl.bench.flops import forward_flops, training_flops
from mbrl.bench.registry import ROWS, BenchRow, Modes
from mbrl.bench.workload import Workload
from mbrl.core.device import on_device
from mbrl.core.rng import RngStreams
from mbrl.dynamics.artifact import build_net
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.dynamics.objectives import StepObjective, decay_ramp
from mbrl.dynamics.termination import NeverTerminates
from mbrl.dynamics.training import MemberTrainer, Schedule, TrainingArrays
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.nets.normaliser import Normaliser
from mbrl.rollouts.generate import Imagination, RolloutConfig, generate_rollouts
from mbrl.uncertainty.measures import MEASURES, Measure
from mbrl.uncertainty.penalty import UnitFree, penalise

_EPOCH_UPDATES = 100
_HOLDOUT_SHARE = 0.1
_POLICY_HIDDEN = (256, 256)


def member_sizes(workload: Workload) -> tuple[int, ...]:
    """Widths of a member: `(s, a)` to means and log-variances of `(s' - s, r)`."""
    return (workload.obs_dim + workload.act_dim, *workload.dynamics_hidden, 2 * (workload.obs_dim + 1))


def make_ensemble(workload: Workload, members: int) -> DynamicsEnsemble:
    """A fresh ensemble in the shape that MBPO and MOPO published: no LayerNorm."""
    config = DynamicsConfig(members=workload.members, hidden=workload.dynamics_hidden, layer_norm=False)
    sizes = member_sizes(workload)
    net = build_net(config, (members, sizes[0], sizes[-1]), RngStreams(workload.seed).at("init"))
    outputs = workload.obs_dim + 1
    bounds = torch.tensor([config.log_variance_low, config.log_variance_high])
    return DynamicsEnsemble(
        net,
        bounds[None, :, None].expand(members, 2, outputs),
        inputs=Normaliser.identity(sizes[0]),
        targets=Normaliser.identity(outputs),
    )


def _training_arrays(workload: Workload) -> TrainingArrays:
    """The log, and beside it held-out rows in proportion to the updates of an epoch."""
    log = workload.log()
    inputs = torch.cat((log.observation, log.action), 1)
    targets = torch.cat((log.next_observation - log.observation, log.reward[:, None]), 1)
    held_out = min(len(log), int(_EPOCH_UPDATES * workload.batch_size * _HOLDOUT_SHARE))
    return TrainingArrays(inputs, targets, inputs[:held_out], targets[:held_out])


def ensemble_modes(workload: Workload) -> Modes:
    """`epoch`: updates of all members side by side, with the look at the holdout that ends an epoch."""
    ensemble = on_device(make_ensemble(workload, workload.members), workload.place)
    decay = decay_ramp(len(workload.dynamics_hidden) + 1)
    schedule = Schedule(
        max_updates=sys.maxsize,
        epoch_updates=_EPOCH_UPDATES,
        batch_size=workload.batch_size,
        learning_rate=1e-3,
        decay="constant",
        patience=sys.maxsize,
        improvement=0.01,
        bootstrap=True,
    )
    trainer = MemberTrainer(
        StepObjective(ensemble, bound_coef=0.01, weight_decay=decay),
        on_device(_training_arrays(workload), workload.place),
        schedule,
        RngStreams(workload.seed, workload.place),
    )

    def epoch() -> int:
        trainer.run_epoch()
        return _EPOCH_UPDATES

    return {"epoch": epoch}


def rollout_modes(workload: Workload, measure: Measure | None) -> Modes:
    """`refresh`: imagined transitions as a recipe makes them, penalised if there is a measure."""
    rng = RngStreams(workload.seed, workload.place)
    model = make_ensemble(workload, workload.elites).requires_grad_(requires_grad=False)
    spec = ActorSpec("tanh_gaussian", workload.space, _POLICY_HIDDEN)
    actor = TanhGaussianActor(spec, Normaliser.identity(workload.obs_dim), rng.host.at("policy"))
    parts = (actor, Imagination(model, NeverTerminates(), measure), _starts(workload))
    policy, imagination, start = on_device(parts, workload.place)
    config = RolloutConfig(horizon=workload.horizon)
    refreshes = itertools.count()

    def refresh() -> int:
        generator = rng.at("rollout", next(refreshes))
        rollouts = generate_rollouts(imagination, policy, start, config=config, generator=generator)
        reward = rollouts.reward
        if measure is not None:
            reward = penalise(reward, rollouts.uncertainty, penalty_coef=1.0)
        return len(rollouts.transitions(reward))

    return {"refresh": refresh}


def _starts(workload: Workload) -> Tensor:
    generator = RngStreams(workload.seed).at("starts")
    log = workload.log().observation
    return log[torch.randint(len(log), (workload.starts,), generator=generator)]


def rollout_flops(workload: Workload, *, elites: int) -> float:
    """One transition: the policy, and a row through `elites` members."""
    policy = (workload.obs_dim, *_POLICY_HIDDEN, 2 * workload.act_dim)
    return forward_flops(1, policy) + forward_flops(1, member_sizes(workload), members=elites)


def _ensemble_flops(workload: Workload) -> float:
    return training_flops(workload.batch_size, member_sizes(workload), members=workload.members)


ROWS.register("ensemble", "Updates of the dynamics ensemble, all members side by side.")(
    BenchRow(unit="updates", build=ensemble_modes, flops=_ensemble_flops)
)
ROWS.register("rollouts_penalised", "Imagined transitions with an uncertainty over the elites.")(
    BenchRow(
        unit="transitions",
        build=lambda workload: rollout_modes(workload, UnitFree(MEASURES.get("ens_std"), quantile=1.0)),
        flops=lambda workload: rollout_flops(workload, elites=workload.elites),
    )
)
ROWS.register("rollouts", "Imagined transitions, each row through one elite.")(
    BenchRow(
        unit="transitions",
        build=lambda workload: rollout_modes(workload, None),
        flops=lambda workload: rollout_flops(workload, elites=1),
    )
)
