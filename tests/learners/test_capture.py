"""Captured updates against eager ones, by a graph of the host that computes what it recorded."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from mbrl.core.device import CPU
from mbrl.core.protocols import Learner
from mbrl.core.rng import RngStreams
from mbrl.core.types import Metrics, TransitionBatch, take
from mbrl.learners.base import LEARNERS, LearnerContext, find_phase
from mbrl.learners.capture import WARM_UP, CapturedUpdates, make_update
from mbrl.learners.reward_units import StandardisedRewards
from mbrl.testing.checks import find_difference
from mbrl.testing.learners import small_settings
from mbrl.testing.samples import SPACE, make_normaliser, make_transitions

UPDATES = 4 * WARM_UP


class HostGraph:
    """What a graph does to tensors and to nothing else: Python's side of a replay is undone."""

    made: ClassVar[list[Any]] = []

    def __init__(self, state: Any) -> None:
        self.state, self.replays = state, 0
        HostGraph.made.append(self)

    def warm(self, work: Callable[[], Metrics]) -> Metrics:
        return work()

    def capture(self, work: Callable[[], Metrics], generator: torch.Generator) -> Metrics:
        del generator
        self.work, before = work, self.state.state_dict()
        found = {name: value.clone() for name, value in work().items()}
        self._restore(before)
        self.metrics = found
        return found

    def replay(self) -> None:
        self.replays += 1
        counters = {name: getattr(self.state, name) for name in ("updates",) if hasattr(self.state, name)}
        optimisers = [one for one in vars_of(self.state) if hasattr(one, "steps")]
        steps = [one.steps for one in optimisers]
        for name, value in self.work().items():
            self.metrics[name].copy_(value)
        for name, value in counters.items():
            setattr(self.state, name, value)
        for one, count in zip(optimisers, steps, strict=True):
            one.steps = count

    def _restore(self, before: dict[str, Any]) -> None:
        """Tensors as they were, counters as the captured work left them."""
        counters = {name: getattr(self.state, name) for name in ("updates",) if hasattr(self.state, name)}
        optimisers = [one for one in vars_of(self.state) if hasattr(one, "steps")]
        steps = [one.steps for one in optimisers]
        self.state.load_state_dict(before)
        for name, value in counters.items():
            setattr(self.state, name, value)
        for one, count in zip(optimisers, steps, strict=True):
            one.steps = count


def vars_of(state: Any) -> list[Any]:
    return [getattr(state, name) for name in state.__dataclass_fields__]


def build(name: str, **settings: Any) -> Learner[Any]:
    entry = LEARNERS.get(name)
    config = entry.Config.model_validate({**small_settings(entry.Config), **settings})
    return StandardisedRewards(entry(config, LearnerContext(SPACE, make_normaliser(), UPDATES)), 2.0)


def captured(learner: Learner[Any], state: Any) -> CapturedUpdates:
    return CapturedUpdates(
        learner, state, make_graph=lambda: HostGraph(state), make_generator=torch.Generator
    )


def run(learner: Learner[Any], update: Any, batches: list[TransitionBatch]) -> list[dict[str, float]]:
    del learner
    return [
        {name: float(value) for name, value in update(batch, RngStreams(0).at("update", step)).items()}
        for step, batch in enumerate(batches)
    ]


def batches(count: int = UPDATES, rows: int = 16) -> list[TransitionBatch]:
    log, rng = make_transitions(), RngStreams(1)
    return [take(log, torch.randint(len(log), (rows,), generator=rng.at("rows", k))) for k in range(count)]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("td3_bc", {"policy_interval": 2}),
        ("rebrac", {"policy_interval": 3}),
        ("iql", {"actor_schedule": "cosine"}),
        ("sac", {"max_entropy_coef": 1.0}),
    ],
)
def test_captured_updates_end_where_eager_ones_do(name: str, settings: dict[str, Any]) -> None:
    learner = build(name, **settings)
    eager, replayed = (learner.init(RngStreams(0).at("init")) for _ in range(2))
    HostGraph.made.clear()
    expected = run(learner, make_update(learner, eager, CPU), batches())
    assert run(learner, captured(learner, replayed), batches()) == expected
    assert find_difference(eager.state_dict(), replayed.state_dict()) is None
    phases = settings.get("policy_interval", 1)
    kinds = min(phases, 2)
    assert sum(graph.replays > 0 for graph in HostGraph.made) == kinds
    assert sum(graph.replays for graph in HostGraph.made) == UPDATES - kinds * WARM_UP


def test_another_size_of_batch_is_another_graph() -> None:
    learner = build("bc")
    state, eager = (learner.init(RngStreams(0).at("init")) for _ in range(2))
    mixed = [*batches(5, rows=16), *batches(5, rows=8), *batches(3, rows=16)]
    HostGraph.made.clear()
    assert run(learner, captured(learner, state), mixed) == run(
        learner, make_update(learner, eager, CPU), mixed
    )
    assert sorted(graph.replays for graph in HostGraph.made if graph.replays) == [2, 5]


def test_a_capture_that_fails_leaves_eager_updates_and_says_so() -> None:
    learner = build("td3_bc")
    state, eager = (learner.init(RngStreams(0).at("init")) for _ in range(2))

    class Broken(HostGraph):
        def capture(self, work: Callable[[], Metrics], generator: torch.Generator) -> Metrics:
            super().capture(work, generator)
            raise RuntimeError("operation not permitted when stream is capturing")

    update = CapturedUpdates(learner, state, make_graph=lambda: Broken(state), make_generator=torch.Generator)
    with pytest.warns(UserWarning, match="not captured as a CUDA graph.*not permitted"):
        found = run(learner, update, batches())
    assert found == run(learner, make_update(learner, eager, CPU), batches())
    assert find_difference(eager.state_dict(), state.state_dict()) is None


def test_a_learner_that_counts_and_does_not_say_what_by_is_not_captured() -> None:
    learner = build("td3_bc")
    state = learner.init(RngStreams(0).at("init"))
    clone = build("bc")
    assert find_phase(clone, clone.init(RngStreams(0).at("init"))) == 0
    assert find_phase(learner, state) == 0
    state.updates = 1
    assert find_phase(learner, state) == 1

    class Counting:
        def init(self, generator: torch.Generator) -> Any: ...
        def update(self, state: Any, batch: TransitionBatch, generator: torch.Generator) -> Metrics: ...
        def policy(self, state: Any) -> Any: ...
        def value(self, state: Any) -> None: ...

    assert find_phase(Counting(), state) is None
