"""Policy networks as ONNX graphs: raw frames in, actions inside the bounds out."""

import dataclasses
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import torch

from mbrl.core.errors import ConfigError
from mbrl.deploy.choices import PROBABILITIES, write_choices
from mbrl.deploy.graph import Graph
from mbrl.deploy.layers import apply_stack, name_stack, write_normaliser, write_stack
from mbrl.nets.actors import Actor, ClippedGaussianActor, MixtureActor
from mbrl.nets.best_of import BestOfPolicy
from mbrl.nets.categorical import CategoricalPolicy
from mbrl.nets.generative.bcq import BCQPolicy
from mbrl.nets.generative.flow import FlowPolicy
from mbrl.nets.policy import PolicyNetwork

FRAMES: Final = "frames"
"""Input of a policy: `[batch, history, frame_dim]`, raw units, the latest frame first."""

NOISE: Final = "noise"
"""Input of a policy that draws: `[batch, act_dim]` standard normal numbers."""

ACTION: Final = "action"
"""Output of a policy: `[batch, act_dim]`, environment units, inside the bounds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a writer is given.

    Attributes:
        graph: that grows.
        obs: name of the observations `[batch, obs_dim]`, raw units.
        noise: name of the draws, or None for the evaluation action.
    """

    graph: Graph
    obs: str
    noise: str | None


Writer: TypeAlias = Callable[[Any, Head], str]
"""`(network, head)` to the name of the action in [-1, 1], `[batch, act_dim]`."""


def write_policy(policy: PolicyNetwork, *, history: int, stochastic: bool) -> Graph:
    """The graph of a policy.

    Args:
        policy: a network of this package.
        history: frames of an observation.
        stochastic: the graph takes noise and draws; otherwise it gives the evaluation action. A policy over
            choices tells both, see `mbrl.deploy.choices`.

    Raises:
        ConfigError: its kind has no graph, or no draws in one.
    """
    spec = policy.spec
    if spec.kind not in _WRITERS and not isinstance(policy, CategoricalPolicy):
        raise ConfigError(
            f"A policy of kind {spec.kind!r} cannot be written as ONNX. Remedy: train one of "
            f"{', '.join(_WRITERS)}; or keep to --format policy, which torch reads."
        )
    graph = Graph("policy")
    obs_dim = spec.space.obs_dim
    frames = graph.input(FRAMES, history, obs_dim // history)
    if isinstance(policy, CategoricalPolicy):
        # One graph for both: whoever runs it draws from the probabilities, or takes the choice.
        best, probabilities = write_choices(policy, graph, graph.reshape(frames, -1, obs_dim))
        graph.output(ACTION, best, spec.space.act_dim)
        graph.output(PROBABILITIES, probabilities, spec.space.act_dim)
        return graph
    noise = graph.input(NOISE, spec.space.act_dim) if stochastic else None
    head = Head(graph, graph.reshape(frames, -1, obs_dim), noise)
    scaled = _WRITERS[spec.kind](policy, head)
    box = policy.action_box
    action = graph.scaled(scaled, box.half_range, box.centre)
    # In float32 centre + half_range may lie a rounding beyond the bound.
    graph.output(ACTION, graph.clip(action, box.low, box.high), spec.space.act_dim)
    return graph


def _output(policy: Actor, head: Head) -> str:
    graph = head.graph
    return write_stack(graph, write_normaliser(graph, head.obs, policy.normaliser), policy.net)


def _deterministic(policy: Actor, head: Head) -> str:
    if head.noise is not None:
        raise ConfigError("The policy is deterministic: it has no draws. Remedy: export without stochastic.")
    return head.graph.op("Tanh", _output(policy, head))


def _tanh_gaussian(policy: Actor, head: Head) -> str:
    graph, size = head.graph, policy.act_dim
    mean, log_std = graph.split(_output(policy, head), [size, size])
    if head.noise is not None:
        std = graph.op("Exp", graph.clip(log_std, *policy.spec.log_std_bounds))
        mean = graph.op("Add", mean, graph.op("Mul", std, head.noise))
    return graph.op("Tanh", mean)


def _clipped_gaussian(policy: ClippedGaussianActor, head: Head) -> str:
    graph = head.graph
    mean = graph.op("Tanh", _output(policy, head))
    if head.noise is None:
        return mean
    std = policy.log_std.detach().clamp(*policy.spec.log_std_bounds).exp()
    return graph.clip(graph.op("Add", mean, graph.op("Mul", head.noise, graph.constant(std))), -1.0, 1.0)


def _mixture(policy: MixtureActor, head: Head) -> str:
    if head.noise is not None:
        raise ConfigError(
            "Draws of a mixture are made in float64, which ONNX runtimes lack. Remedy: export without "
            "stochastic, or train a policy with one Gaussian."
        )
    graph, size = head.graph, policy.act_dim
    k = policy.spec.components
    logits, means, log_stds = graph.split(_output(policy, head), [k, k * size, k * size])
    log_stds = graph.clip(graph.reshape(log_stds, -1, k, size), *policy.spec.log_std_bounds)
    spread = graph.op("ReduceSum", log_stds, graph.constant([2]), keepdims=0)
    peak = graph.op("Sub", graph.op("LogSoftmax", logits, axis=-1), spread)
    best = graph.op("ArgMax", peak, axis=1, keepdims=1)
    return graph.op("Tanh", graph.op("GatherND", graph.reshape(means, -1, k, size), best, batch_dims=1))


def _flow(policy: FlowPolicy, head: Head) -> str:
    graph, size = head.graph, policy.act_dim
    rows = graph.op("Gather", graph.op("Shape", head.obs), graph.constant([0]))
    x = head.noise
    if x is None:
        shape = graph.op("Concat", rows, graph.constant([size]), axis=0)
        x = graph.op("Expand", graph.constant(torch.zeros(1, size)), shape)
    obs_n = write_normaliser(graph, head.obs, policy.normaliser)
    field, steps = name_stack(graph, policy.field), policy.spec.steps
    column = graph.op("Concat", rows, graph.constant([1]), axis=0)
    width = graph.constant(1 / steps)
    # Unrolled: every step is a pass through the same weights.
    for k in range(steps):
        time = graph.op("Expand", graph.constant(torch.full((1, 1), k / steps)), column)
        velocity = apply_stack(graph, graph.op("Concat", obs_n, x, time, axis=-1), field)
        x = graph.op("Add", x, graph.op("Mul", velocity, width))
    return graph.clip(x, -1.0, 1.0)


def _bcq(policy: BCQPolicy, head: Head) -> str:
    if head.noise is not None:
        raise ConfigError("Draws of BCQ need the inverse of erf, which ONNX lacks. Remedy: export without.")
    graph, space = head.graph, policy.spec.space
    count, size = policy.spec.candidates, space.act_dim
    rows = graph.op("Gather", graph.op("Shape", head.obs), graph.constant([0]))
    obs = graph.op("Unsqueeze", head.obs, graph.constant([1]))
    # Candidates of a state side by side, [batch, k, .] flattened, as in the network.
    obs = graph.reshape(graph.op("Tile", obs, graph.constant([1, count, 1])), -1, space.obs_dim)
    latent = graph.constant(policy.latents(None, 1)[0])
    shape = graph.op("Concat", rows, graph.constant([count, policy.spec.latent_dim]), axis=0)
    latent = graph.reshape(graph.op("Expand", latent, shape), -1, policy.spec.latent_dim)
    obs_n = write_normaliser(graph, obs, policy.normaliser)
    decoded = write_stack(graph, graph.op("Concat", obs_n, latent, axis=-1), policy.decoder)
    decoded = graph.op("Tanh", decoded)
    shift = write_stack(graph, graph.op("Concat", obs_n, decoded, axis=-1), policy.perturber)
    shift = graph.op("Mul", graph.op("Tanh", shift), graph.constant(policy.spec.perturbation))
    action = graph.clip(graph.op("Add", decoded, shift), -1.0, 1.0)
    critic = policy.critic
    judged = graph.op("Concat", write_normaliser(graph, obs, critic.normaliser), action, axis=-1)
    value = graph.reshape(write_stack(graph, judged, critic.net), -1, count)
    best = graph.op("ArgMax", value, axis=1, keepdims=1)
    return graph.op("GatherND", graph.reshape(action, -1, count, size), best, batch_dims=1)


def _best_of(policy: BestOfPolicy, head: Head) -> str:
    if head.noise is not None:
        raise ConfigError(
            "Draws of a best-of-N policy need the inverse of erf, which ONNX lacks. Remedy: export without."
        )
    kind = policy.spec.behaviour.kind
    if kind == "mixture":
        raise ConfigError(
            "The draws of a mixture are made in float64, which ONNX runtimes lack: its best of N cannot be "
            "written as ONNX. Remedy: clone with one Gaussian (learner.form=gaussian), or keep to --format "
            "policy, which torch reads."
        )
    graph, space, count = head.graph, policy.spec.space, policy.spec.candidates
    rows = graph.op("Gather", graph.op("Shape", head.obs), graph.constant([0]))
    obs = graph.op("Unsqueeze", head.obs, graph.constant([1]))
    # Candidates of a state side by side, [batch, k, .] flattened.
    obs = graph.reshape(graph.op("Tile", obs, graph.constant([1, count, 1])), -1, space.obs_dim)
    shape = graph.op("Concat", rows, graph.constant([count, space.act_dim]), axis=0)
    noise = graph.op("Expand", graph.constant(policy.candidate_noise(None, 1)[:, 0]), shape)
    noise = graph.reshape(noise, -1, space.act_dim)
    action = _WRITERS[kind](policy.behaviour, Head(graph, obs, noise))
    ranker = policy.ranker
    judged = graph.op("Concat", write_normaliser(graph, obs, ranker.normaliser), action, axis=-1)
    members = [write_stack(graph, judged, ranker.net, member=k) for k in range(ranker.net.members)]
    stacked = graph.op("Concat", *members, axis=-1)  # [batch k, members]
    stacked = graph.standardised(stacked, policy.rank_offset, policy.rank_scale)
    value = graph.op("ReduceMean", stacked, axes=[1], keepdims=1)
    if policy.spec.pessimism > 0:
        gap = graph.op("Sub", stacked, value)
        spread = graph.op("Sqrt", graph.op("ReduceMean", graph.op("Mul", gap, gap), axes=[1], keepdims=1))
        cost = graph.op("Mul", spread, graph.constant(policy.spec.pessimism))
        value = graph.op("Sub", value, cost)
    best = graph.op("ArgMax", graph.reshape(value, -1, count), axis=1, keepdims=1)
    return graph.op("GatherND", graph.reshape(action, -1, count, space.act_dim), best, batch_dims=1)


_WRITERS: Final[dict[str, Writer]] = {
    "deterministic": _deterministic,
    "tanh_gaussian": _tanh_gaussian,
    "clipped_gaussian": _clipped_gaussian,
    "mixture": _mixture,
    "flow": _flow,
    "bcq": _bcq,
    "best_of_n": _best_of,
}
"""By `PolicySpec.kind`."""
