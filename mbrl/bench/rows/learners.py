"""Updates of every learner, with the shapes and the settings of their publications."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mbrl.bench import flops
from mbrl.bench.flops import LearnerShapes
from mbrl.bench.registry import ROWS, BenchRow, Modes, PeerMode
from mbrl.bench.workload import Workload
from mbrl.core.protocols import BatchSource
from mbrl.core.rng import RngStreams
from mbrl.data.normaliser import fit_moments
from mbrl.data.sources import DatasetSource, MixtureSource, ModelBuffer
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.nets.normaliser import Normaliser
from mbrl.run.metrics import MetricSums

LOG_INTERVAL = 500
"""Updates between two conversions of metrics to numbers, as in the training loop."""

_UPDATES = 1_000_000


def learner_modes(
    learner: str,
    config: Mapping[str, Any],
    workload: Workload,
    make_source: Callable[[Workload], BatchSource],
) -> Modes:
    """`loop`: what the training loop does for an update; `update`: the same batch over and over.

    Args:
        learner: id in the registry.
        config: its settings.
        workload: sizes and data.
        make_source: where the loop draws its batches.
    """
    entry = LEARNERS.get(learner)
    source = make_source(workload)
    moments = fit_moments(workload.log().observation.numpy())
    normaliser = Normaliser(*(torch.from_numpy(moment) for moment in moments))
    built = entry(entry.Config(**config), LearnerContext(workload.space, normaliser, _UPDATES))
    rng = RngStreams(workload.seed)
    state = built.init(rng.at("init"))
    batch = source.sample(workload.batch_size, rng.at("batch"))
    sums, steps = MetricSums(), itertools.count(1)

    def loop() -> int:
        step = next(steps)
        drawn = source.sample(workload.batch_size, rng.at("batch", step))
        sums.add(built.update(state, drawn, rng.at("update", step)))
        if step % LOG_INTERVAL == 0:
            sums.averages()
            sums.clear()
        return 1

    def update() -> int:
        built.update(state, batch, rng.at("update", next(steps)))
        return 1

    return {"loop": loop, "update": update}


def logged_source(workload: Workload) -> BatchSource:
    """The log alone."""
    return DatasetSource(workload.log())


def mixed_source(workload: Workload) -> BatchSource:
    """MOPO's mixture with the published share of 5 % logged rows; the rest comes from a ring of rows."""
    log = DatasetSource(workload.log())
    ring = ModelBuffer(workload.transitions, log.layout)
    ring.push(workload.log())
    return MixtureSource([(log, 0.05), (ring, 0.95)])


def register_learner(
    name: str,
    count: Callable[[LearnerShapes], float],
    *,
    hidden: tuple[int, ...] = (256, 256),
    settings: Mapping[str, Any] | None = None,
    learner: str | None = None,
    critics: int = 2,
    make_source: Callable[[Workload], BatchSource] = logged_source,
    share_target: float | None = None,
    peers: tuple[PeerMode, ...] = (),
) -> None:
    """Registers the row `name`: a learner's updates a second.

    Args:
        name: of the row.
        count: operations of an update.
        hidden: widths of the hidden layers, given to the learner, to the count and to the peers.
        settings: further settings of the learner.
        learner: its id where it is not the row's name.
        critics: action-value networks, for the count.
        make_source: where the loop draws its batches.
        share_target: of the GEMM peak.
        peers: other libraries.
    """
    entry = learner or name
    config = {"hidden": hidden, **(settings or {})}

    def needed(workload: Workload) -> float:
        return count(LearnerShapes(workload.batch_size, workload.obs_dim, workload.act_dim, hidden, critics))

    ROWS.register(name, f"Updates of the learner {entry}.")(
        BenchRow(
            unit="updates",
            build=lambda workload: learner_modes(entry, config, workload, make_source),
            flops=needed,
            share_target=share_target,
            peers=tuple(dataclasses.replace(peer, options={"hidden": hidden}) for peer in peers),
            learner=entry,
        )
    )


def d3rlpy(work: str, target: float) -> tuple[PeerMode, PeerMode]:
    """Its training loop, with our target, and its update alone."""
    return (
        PeerMode("d3rlpy", work, "fit", against="loop", target=target),
        PeerMode("d3rlpy", work, "update", against="update"),
    )


_TD3 = PeerMode("stable-baselines3", "td3", "train", against="loop", target=1.5)
"""TD3 without the clone's term, which costs no product."""

_CQL_ACTIONS, _BCQ_CANDIDATES = 10, 10

register_learner("bc", flops.bc_flops, share_target=0.6, peers=d3rlpy("bc", 4.0))
register_learner(
    "sac",
    flops.sac_flops,
    make_source=mixed_source,
    share_target=0.6,
    peers=(
        *d3rlpy("sac", 2.4),
        PeerMode("stable-baselines3", "sac", "train", against="loop", target=1.7),
    ),
)
register_learner(
    "edac",
    flops.edac_flops,
    learner="sac",
    hidden=(256, 256, 256),
    critics=10,
    settings={"critics": 10, "diversity_coef": 1.0},
)
register_learner("distil", flops.distil_flops)
register_learner("td3_bc", flops.td3_bc_flops, peers=(*d3rlpy("td3_bc", 2.3), _TD3))
register_learner("rebrac", flops.rebrac_flops, hidden=(256, 256, 256))
register_learner("iql", flops.iql_flops, share_target=0.6, peers=d3rlpy("iql", 2.5))
register_learner("awac", flops.awac_flops, hidden=(256, 256, 256))
register_learner(
    "cql",
    lambda shapes: flops.cql_flops(shapes, actions=_CQL_ACTIONS),
    hidden=(256, 256, 256),
    settings={"conservative_actions": _CQL_ACTIONS},
    peers=d3rlpy("cql", 1.25),
)
register_learner(
    "bcq",
    lambda shapes: flops.bcq_flops(shapes, candidates=_BCQ_CANDIDATES),
    settings={"target_candidates": _BCQ_CANDIDATES},
)
