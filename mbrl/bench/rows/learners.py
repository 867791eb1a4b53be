"""Updates of every registered learner; what is set for a few of them stands in one table."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from mbrl.bench.flops import count_flops
from mbrl.bench.registry import ROWS, BenchRow, Modes, PeerMode
from mbrl.bench.workload import Workload
from mbrl.core.device import CPU, on_device
from mbrl.core.protocols import BatchSource, Learner
from mbrl.core.rng import RngStreams
from mbrl.core.types import OnPolicyBatch, TransitionBatch, take
from mbrl.data.normaliser import fit_moments
from mbrl.data.sources import (
    DatasetSource,
    DemonstrationSource,
    MixtureSource,
    ModelBuffer,
    OnPolicySource,
)
from mbrl.learners.base import LEARNERS, LearnerContext, StatesPasses
from mbrl.learners.capture import Update, make_update
from mbrl.nets.normaliser import Normaliser
from mbrl.run.metrics import MetricSums

LOG_INTERVAL = 500
"""Updates between two conversions of metrics to numbers, as in the training loop."""

_UPDATES = 1_000_000
_HIDDEN = (256, 256)
_WIDE = (256, 256, 256)


def build_learner(
    learner: str, config: Mapping[str, Any], workload: Workload, normaliser: Normaliser
) -> Learner[Any]:
    """The learner at the sizes of the workload."""
    entry, workload = LEARNERS.get(learner), fitting(learner, workload)
    return entry(entry.Config(**config), LearnerContext(workload.space, normaliser, _UPDATES))


def fitting(learner: str, workload: Workload) -> Workload:
    """The workload with the kind of actions that a learner takes."""
    return dataclasses.replace(workload, has_choices=LEARNERS.get(learner).Config.acts_on_choices)


def learner_flops(learner: str, config: Mapping[str, Any], workload: Workload) -> float:
    """Operations of an update, from the passes that the learner states."""
    built = build_learner(learner, config, workload, Normaliser.identity(workload.obs_dim))
    if not isinstance(built, StatesPasses):
        raise TypeError(f"the learner {learner!r} states no passes")
    state = built.init(RngStreams(workload.seed).at("init"))
    return count_flops(built.passes(state), workload.batch_size)


def learner_modes(
    learner: str,
    config: Mapping[str, Any],
    workload: Workload,
    make_source: Callable[[Workload], BatchSource],
) -> Modes:
    """`loop`: what the training loop does for an update; `update`: the same batch over and over.

    On a card updates are captured as graphs, as in the training loop; `eager` is `loop` without.

    Args:
        learner: id in the registry.
        config: its settings.
        workload: sizes and data.
        make_source: where the loop draws its batches, unless the learner wants a policy's own steps.
    """
    entry, workload = LEARNERS.get(learner), fitting(learner, workload)
    kind = entry.Config(**config).batch_kind
    make = {"on_policy": on_policy_source, "demonstrations": demonstrated_source}.get(kind, make_source)
    source = on_device(make(workload), workload.place)
    moments = fit_moments(workload.log().observation.numpy())
    normaliser = Normaliser(*(torch.from_numpy(moment) for moment in moments))
    built = on_device(build_learner(learner, config, workload, normaliser), workload.place)
    rng = RngStreams(workload.seed, workload.place)
    batch = source.sample(workload.batch_size, rng.at("batch"))
    steps = itertools.count(1)

    def looping(update: Update) -> Callable[[], int]:
        sums = MetricSums()

        def loop() -> int:
            step = next(steps)
            drawn = source.sample(workload.batch_size, rng.at("batch", step))
            sums.add(update(drawn, rng.at("update", step)))
            if step % LOG_INTERVAL == 0:
                sums.averages()
                sums.clear()
            return 1

        return loop

    def fresh(device: torch.device) -> Update:
        return make_update(built, built.init(rng.at("init")), device)

    once = fresh(workload.place)

    def update() -> int:
        once(batch, rng.at("update", next(steps)))
        return 1

    modes = {"loop": looping(once), "update": update}
    return modes if workload.place == CPU else {**modes, "eager": looping(fresh(CPU))}


def logged_source(workload: Workload) -> BatchSource:
    """The log alone."""
    return DatasetSource(workload.log())


def on_policy_source(workload: Workload) -> BatchSource:
    """The log as the steps of a policy whose actions were all alike to it."""
    log, source = workload.log(), OnPolicySource()
    known = {field.name: getattr(log, field.name) for field in dataclasses.fields(TransitionBatch)}
    zeros = torch.zeros_like(log.reward)
    source.replace(OnPolicyBatch(**known, log_prob=zeros, advantage=log.reward, value=zeros))
    return source


def demonstrated_source(workload: Workload) -> BatchSource:
    """The log, whose first steps somebody has shown as well."""
    log = workload.log()
    first = take(log, torch.arange(1000))
    return DemonstrationSource(DatasetSource(log), first, first.observation[:10], workload.batch_size)


def mixed_source(workload: Workload) -> BatchSource:
    """MOPO's mixture with the published share of 5 % logged rows; the rest comes from a ring of rows."""
    log = DatasetSource(workload.log())
    ring = ModelBuffer(workload.transitions, log.layout)
    ring.push(workload.log())
    return MixtureSource([(log, 0.05), (ring, 0.95)])


def d3rlpy(work: str, target: float) -> tuple[PeerMode, PeerMode]:
    """Its training loop, with our target, and its update alone."""
    return (
        PeerMode("d3rlpy", work, "fit", against="loop", target=target),
        PeerMode("d3rlpy", work, "update", against="update"),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class LearnerRow:
    """What is set by hand for a row; a learner without has the defaults.

    Attributes:
        learner: its id where it is not the row's name.
        hidden: widths of the hidden layers, of ours and of the peers' networks.
        settings: further settings of the learner.
        make_source: where the loop draws its batches.
        share_target: of the GEMM peak.
        peers: other libraries.
    """

    learner: str | None = None
    hidden: tuple[int, ...] = _HIDDEN
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    make_source: Callable[[Workload], BatchSource] = logged_source
    share_target: float | None = None
    peers: tuple[PeerMode, ...] = ()


SET_BY_HAND: Final[Mapping[str, LearnerRow]] = {
    "awac": LearnerRow(hidden=_WIDE),
    "bc": LearnerRow(share_target=0.6, peers=d3rlpy("bc", 4.0)),
    "cql": LearnerRow(hidden=_WIDE, peers=d3rlpy("cql", 1.25)),
    "discrete_bcq": LearnerRow(peers=d3rlpy("discrete_bcq", 1.0)),
    "discrete_cql": LearnerRow(peers=d3rlpy("discrete_cql", 1.0)),
    "edac": LearnerRow(learner="sac", hidden=_WIDE, settings={"critics": 10, "diversity_coef": 1.0}),
    "iql": LearnerRow(share_target=0.6, peers=d3rlpy("iql", 2.5)),
    "rebrac": LearnerRow(hidden=_WIDE),
    "sac": LearnerRow(
        make_source=mixed_source,
        share_target=0.6,
        peers=(
            *d3rlpy("sac", 2.4),
            PeerMode("stable-baselines3", "sac", "train", against="loop", target=1.7),
        ),
    ),
    # Stable-Baselines3's TD3 does without the clone's term, which costs no product.
    "td3_bc": LearnerRow(
        peers=(
            *d3rlpy("td3_bc", 2.3),
            PeerMode("stable-baselines3", "td3", "train", against="loop", target=1.5),
        ),
    ),
}
"""Shapes and settings of the publications, our targets, and the libraries that have the same learner."""


def register_learner(name: str, row: LearnerRow) -> None:
    """Registers the row `name`: a learner's updates a second; its operations where it states its passes."""
    learner = row.learner or name
    entry = LEARNERS.get(learner)
    widths = {"hidden": row.hidden} if "hidden" in entry.Config.model_fields else {}
    config = {**widths, **row.settings}
    flops = functools.partial(learner_flops, learner, config) if hasattr(entry, "passes") else None
    ROWS.register(name, f"Updates of the learner {learner}.")(
        BenchRow(
            unit="updates",
            build=lambda workload: learner_modes(learner, config, workload, row.make_source),
            flops=flops,
            share_target=row.share_target,
            peers=tuple(dataclasses.replace(peer, options={"hidden": row.hidden}) for peer in row.peers),
            learner=learner,
        )
    )


def row_names() -> dict[str, LearnerRow]:
    """Every learner by the name of its row, and rows besides; those of others cannot take a row's name."""
    ours = {name: LearnerRow(name) for name in LEARNERS.names() if LEARNERS.origin(name) is None}
    others = {f"learner-{name}": LearnerRow(name) for name in LEARNERS.names() if name not in ours}
    return {**ours, **others, **SET_BY_HAND}


for _name, _row in row_names().items():
    register_learner(_name, _row)
