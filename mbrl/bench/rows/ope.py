"""Off-policy evaluation: value fits, its costly part, and estimators from ratios on a long log."""

import numpy as np
import torch

from mbrl.bench.flops import forward_flops, training_flops
from mbrl.bench.registry import ROWS, BenchRow, Modes, PeerMode
from mbrl.bench.workload import Workload
from mbrl.core.estimates import Estimand
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.nets.actors import ActorSpec, DeterministicActor
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.estimators.doubly_robust import doubly_robust
from mbrl.off_policy.estimators.importance import Kind, importance_sampling
from mbrl.off_policy.estimators.weighted_doubly_robust import weighted_doubly_robust
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.value.fqe import FQEConfig, FQEFit

_HIDDEN = (256, 256)
_UPDATES = 1_000_000
_EPISODE_STEPS = 1000
_RATIO_EPISODES = 1000
_RATIO_KINDS: tuple[Kind, ...] = ("is", "pdis", "wis", "pdwis")


def fqe_modes(workload: Workload) -> Modes:
    """`loop`: updates of all members, each counted, without LayerNorm like the peer's."""
    rng = RngStreams(workload.seed, workload.place)
    spec = ActorSpec("deterministic", workload.space, _HIDDEN)
    policy = DeterministicActor(spec, Normaliser.identity(workload.obs_dim), rng.host.at("policy"))
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


def fqe_flops(workload: Workload) -> float:
    """One member: its target at s' and its critic. The policy does not change, so its actions are known."""
    sizes = (workload.obs_dim + workload.act_dim, *_HIDDEN, 1)
    return forward_flops(workload.batch_size, sizes) + training_flops(workload.batch_size, sizes)


def ratio_modes(workload: Workload) -> Modes:
    """`together`: IS, PDIS, WIS, PDWIS, DR and WDR of a million logged steps, each step counted once.

    Intervals are included, those of the three normalised ones by 2000 resamples (BCa).
    """
    arrays = _weighted_log(_RATIO_EPISODES, _EPISODE_STEPS, workload.seed)

    def together() -> int:
        for kind in _RATIO_KINDS:
            importance_sampling(arrays, kind=kind)
        doubly_robust(arrays)
        weighted_doubly_robust(arrays)
        return arrays.reward.size

    return {"together": together}


def _weighted_log(episodes: int, steps: int, seed: int) -> OPEArrays:
    """Random rewards, values and ratios; the weights stay spread over many episodes."""
    rng = np.random.default_rng(seed)

    def draw(columns: int, scale: float = 1.0) -> Array:
        return scale * rng.standard_normal((columns, episodes)).T

    return OPEArrays(
        log_ratio=draw(steps, 0.05),
        reward=draw(steps),
        action_value=draw(steps),
        value=np.pad(draw(steps), ((0, 0), (0, 1))),
        length=np.full(episodes, steps),
        terminated=np.zeros(episodes, dtype=bool),
        truncated=np.zeros(episodes, dtype=bool),
        estimand=Estimand(0.99, steps),
    )


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
        flops=fqe_flops,
        share_target=0.6,
        peers=(
            PeerMode("d3rlpy", "fqe", "fit", against="loop", target=3.0, options={"hidden": _HIDDEN}),
            PeerMode("d3rlpy", "fqe", "update", against="loop", options={"hidden": _HIDDEN}),
        ),
    )
)

ROWS.register("ratios", "IS, PDIS, WIS, PDWIS, DR and WDR with intervals on a log of a million steps.")(
    BenchRow(unit="steps", build=ratio_modes, rate_target=500_000.0, has_device=False)
)
