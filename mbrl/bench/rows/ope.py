"""Fitted Q evaluation, the costly part of an off-policy evaluation."""

import numpy as np
import torch

from mbrl.bench.flops import LearnerShapes, fqe_flops
from mbrl.bench.registry import ROWS, BenchRow, Modes, PeerMode
from mbrl.bench.workload import Workload
from mbrl.core.estimates import Estimand
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.nets.actors import ActorSpec, DeterministicActor
from mbrl.nets.normaliser import Normaliser
from mbrl.ope.fqe import FQEConfig, FQEFit

_HIDDEN = (256, 256)
_UPDATES = 1_000_000
_EPISODE_STEPS = 1000


def fqe_modes(workload: Workload) -> Modes:
    """`loop`: updates of all members, each counted, without LayerNorm like the peer's."""
    rng = RngStreams(workload.seed)
    spec = ActorSpec("deterministic", workload.space, _HIDDEN)
    policy = DeterministicActor(spec, Normaliser.identity(workload.obs_dim), rng.at("policy"))
    config = FQEConfig(hidden=_HIDDEN, layer_norm=False, updates=_UPDATES, batch_size=workload.batch_size)
    fit = FQEFit(
        _episodes(workload),
        policy.requires_grad_(requires_grad=False),
        estimand=Estimand(0.99),
        config=config,
        rng=rng,
    )
    state = fit.init()

    def loop() -> int:
        fit.update(state)
        return config.members

    return {"loop": loop}


def _episodes(workload: Workload) -> Dataset:
    """The random log in two episodes or more."""
    log = workload.log()
    steps = min(_EPISODE_STEPS, workload.transitions // 2)
    last = torch.cat((log.observation, log.next_observation[-1:])).numpy()
    action, reward = log.action.numpy(), log.reward.numpy()
    starts = np.arange(0, workload.transitions, steps)
    episodes = [
        Episode(
            last[k : min(k + steps, workload.transitions) + 1].copy(),
            action[k : k + steps].copy(),
            reward[k : k + steps].copy(),
            terminated=False,
            truncated=True,
        )
        for k in starts
    ]
    return Dataset(tuple(episodes), workload.space, DatasetInfo(name="random"))


ROWS.register("fqe", "Updates of fitted Q evaluation, those of each member counted.")(
    BenchRow(
        unit="updates",
        build=fqe_modes,
        flops=lambda w: fqe_flops(LearnerShapes(w.batch_size, w.obs_dim, w.act_dim, _HIDDEN)),
        share_target=0.6,
        peers=(
            PeerMode("d3rlpy", "fqe", "fit", against="loop", target=3.0, options={"hidden": _HIDDEN}),
            PeerMode("d3rlpy", "fqe", "update", against="loop", options={"hidden": _HIDDEN}),
        ),
    )
)
