"""Whole updates as CUDA graphs: captured once, then replayed by one launch in place of hundreds.

A graph repeats kernels with the addresses and numbers that they had when it was captured. So batches are
copied to where it reads them, one generator is seeded anew for every replay, learning rates lie in tensors,
and what Python counts is counted up after each replay. What an update does by a count, such as a delayed step
of the actor, is a phase of the learner with a graph of its own.
"""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from mbrl.core.protocols import Learner
from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import Optimiser, find_phase

WARM_UP: Final = 3
"""Updates of each phase that are made as always first: libraries choose kernels, Adam makes its moments."""

Update: TypeAlias = Callable[[TransitionBatch, torch.Generator], Metrics]


@runtime_checkable
class Graph(Protocol):
    """What captures and replays; that of CUDA, or a test's."""

    def warm(self, work: Callable[[], Metrics]) -> Metrics:
        """Works as always, where captures will take place."""
        ...

    def capture(self, work: Callable[[], Metrics], generator: torch.Generator) -> Metrics:
        """Records the kernels of `work` without running them; returns where its results will be."""
        ...

    def replay(self) -> None:
        """Runs what was recorded."""
        ...


class CudaGraph:
    """A graph of CUDA, in memory of its own.

    Args:
        stream: where captures take place; not the default one.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream, self._graph = stream, torch.cuda.CUDAGraph()

    def warm(self, work: Callable[[], Metrics]) -> Metrics:
        """On the stream of captures, before which and after which everything else waits."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            found = work()
        current.wait_stream(self._stream)
        return found

    def capture(self, work: Callable[[], Metrics], generator: torch.Generator) -> Metrics:
        """See `Graph.capture`."""
        # Its seed is then read by every replay, and not written into the kernels.
        self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph, stream=self._stream):
            return work()

    def replay(self) -> None:
        """On the current stream."""
        self._graph.replay()


@dataclasses.dataclass(slots=True)
class _Recorded:
    """One phase of an update, ready to be replayed."""

    graph: Graph
    batch: TransitionBatch
    metrics: Metrics
    counted: dict[str, int]


class CapturedUpdates:
    """Updates of one state, replayed where they can be; an `Update`.

    Args:
        learner: its updates draw from the generator that they are given, read no number back and upload
            nothing: the laws of `mbrl.testing` see to that.
        state: of the learner; its tensors stay where they are from now on.
        make_graph: of the device.
        make_generator: likewise; seeded anew for every replay.
    """

    def __init__(
        self,
        learner: Learner[Any],
        state: Any,
        *,
        make_graph: Callable[[], Graph],
        make_generator: Callable[[], torch.Generator],
    ) -> None:
        self._learner, self._state = learner, state
        self._make_graph, self._generator = make_graph, make_generator()
        self._recorded: dict[Hashable, _Recorded] = {}
        self._seen = Counter[Hashable]()
        self._graph = make_graph()
        self._is_eager = False

    @property
    def graphs(self) -> int:
        """How many were captured so far."""
        return len(self._recorded)

    def __call__(self, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One update; the metrics are valid until the next one."""
        phase = None if self._is_eager else find_phase(self._learner, self._state)
        if phase is None:
            return self._learner.update(self._state, batch, generator)
        # Another size of batch, or another field in it, is another graph.
        key = (phase, *((name, value.shape) for name, value in _tensors(batch).items()))
        if key not in self._recorded:
            self._seen[key] += 1
            if self._seen[key] <= WARM_UP or not self._record(key, batch):
                return self._graph.warm(lambda: self._learner.update(self._state, batch, generator))
        return self._replay(self._recorded[key], batch, generator)

    def _record(self, key: Hashable, batch: TransitionBatch) -> bool:
        """Captures an update; False where that cannot be done, and then no other is tried."""
        graph, before = self._make_graph(), _counters(self._state)
        copy = _cloned(batch)
        try:
            metrics = graph.capture(
                lambda: self._learner.update(self._state, copy, self._generator), self._generator
            )
        except RuntimeError as error:
            self._is_eager = True
            _count_to(self._state, before)
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"Updates are not captured as a CUDA graph, and slower for it: {reason}", stacklevel=2
            )
            return False
        after = _counters(self._state)
        # Nothing has been computed yet, so nothing counts: the first replay does both.
        _count_to(self._state, before)
        counted = {name: after[name] - before[name] for name in after}
        self._recorded[key] = _Recorded(graph, copy, metrics, counted)
        return True

    def _replay(self, recorded: _Recorded, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        given, inputs = _tensors(batch), _tensors(recorded.batch)
        for name, value in inputs.items():
            value.copy_(given[name])
        for optimiser in _optimisers(self._state).values():
            optimiser.set_rate()
        self._generator.manual_seed(generator.initial_seed())
        recorded.graph.replay()
        counters = _counters(self._state)
        _count_to(self._state, {name: counters[name] + more for name, more in recorded.counted.items()})
        return recorded.metrics


def make_update(learner: Learner[Any], state: Any, device: torch.device) -> Update:
    """How the loop makes updates: as graphs on a card, as they stand elsewhere."""
    if device.type != "cuda":
        return lambda batch, generator: learner.update(state, batch, generator)
    stream = torch.cuda.Stream(device)
    return CapturedUpdates(
        learner,
        state,
        make_graph=lambda: CudaGraph(stream),
        make_generator=lambda: torch.Generator(device),
    )


def _cloned(batch: TransitionBatch) -> TransitionBatch:
    """A copy, of the batches within it as well."""
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    copies = {name: value.clone() for name, value in fields.items() if isinstance(value, Tensor)}
    inner = {name: _cloned(value) for name, value in fields.items() if isinstance(value, TransitionBatch)}
    return dataclasses.replace(batch, **copies, **inner)


def _tensors(batch: TransitionBatch, prefix: str = "") -> dict[str, Tensor]:
    """The fields that a batch has, those of batches within it as well."""
    found: dict[str, Tensor] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            found[prefix + field.name] = value
        elif isinstance(value, TransitionBatch):
            found |= _tensors(value, f"{prefix}{field.name}.")
    return found


def _optimisers(state: Any) -> dict[str, Optimiser]:
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in values.items() if isinstance(value, Optimiser)}


def _counters(state: Any) -> dict[str, int]:
    """Whole numbers of a state, and the steps of its optimisers, by name."""
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    counts = {name: value for name, value in values.items() if type(value) is int}
    return counts | {name: one.steps for name, one in _optimisers(state).items()}


def _count_to(state: Any, counters: dict[str, int]) -> None:
    optimisers = _optimisers(state)
    for name, count in counters.items():
        if name in optimisers:
            optimisers[name].steps = count
        else:
            setattr(state, name, count)
