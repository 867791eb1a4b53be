"""Whether a graph does what torch does."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError
from mbrl.deploy.choices import MASK, choices_difference, sample_masks
from mbrl.deploy.graph import require
from mbrl.deploy.guard import NOVELTY, PREVIOUS_ACTION, PREVIOUS_FRAMES, SURPRISE, Guard
from mbrl.deploy.networks import ACTION, FRAMES, NOISE
from mbrl.deploy.steps import Steps
from mbrl.nets.categorical import CategoricalPolicy
from mbrl.nets.policy import PolicyNetwork

Rows = NDArray[np.float32]


def run_graph(content: bytes, feed: Mapping[str, Rows]) -> dict[str, Rows]:
    """Outputs of a graph by name, on one thread."""
    runtime = require("onnxruntime", purpose="Checking a policy against torch")
    options: Any = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session: Any = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def policy_difference(
    policy: PolicyNetwork, content: bytes, obs: Rows, *, history: int, stochastic: bool
) -> float:
    """Largest difference of an action to torch's, scaled to [-1, 1]; infinite where one is no number.

    Of a policy over choices it is that of a probability, with masks and without; infinite where another
    choice is taken.

    Args:
        policy: the network.
        content: its graph.
        obs: `[n, obs_dim]`, raw units.
        history: frames of an observation.
        stochastic: whether the graph takes noise.
    """
    feed = {FRAMES: obs.reshape(len(obs), history, -1)}
    if isinstance(policy, CategoricalPolicy):
        feed[MASK] = sample_masks(len(obs), policy.act_dim)
        return choices_difference(policy, obs, feed[MASK], run_graph(content, feed))
    noise = None
    if stochastic:
        feed[NOISE] = np.random.default_rng(0).standard_normal((len(obs), policy.act_dim)).astype(np.float32)
        noise = torch.from_numpy(feed[NOISE])
    with torch.no_grad():
        expected = policy.scale(policy.act(torch.from_numpy(obs.copy()), noise))
        found = policy.scale(torch.from_numpy(run_graph(content, feed)[ACTION]))
    return _largest((found - expected).numpy())


def guard_feed(steps: Steps, history: int) -> dict[str, Rows]:
    """Rows of a log as the inputs of a guard."""
    count = len(steps)
    feed = {
        FRAMES: steps.obs.reshape(count, history, -1),
        ACTION: steps.action,
        PREVIOUS_FRAMES: steps.previous_obs.reshape(count, history, -1),
        PREVIOUS_ACTION: steps.previous_action,
    }
    return {name: rows.astype(np.float32) for name, rows in feed.items()}


def guard_difference(guard: Guard, content: bytes, steps: Steps, *, history: int) -> float:
    """Largest difference of a part of the guard to float64, in units of an alarm.

    Args:
        guard: as it was fitted.
        content: its graph.
        steps: rows.
        history: frames of an observation.
    """
    found = run_graph(content, guard_feed(steps, history))
    surprise = guard.surprise(steps.previous_obs, steps.previous_action, steps.obs)
    parts = (found[NOVELTY] - guard.novelty(steps.obs, steps.action), found[SURPRISE] - surprise)
    return _largest(np.stack(parts) / guard.threshold)


def check_parity(difference: float, tolerance: float, *, what: str) -> None:
    """Refuses a graph that does something else.

    Raises:
        ConfigError: the difference is larger than the tolerance, or no number.
    """
    if not difference <= tolerance:
        raise ConfigError(
            f"The graph of {what} differs from what was trained by {difference:.3g} on rows of the log, more "
            f"than {tolerance:g}; nothing was written. Remedy: report it with the policy file; a wider "
            "tolerance (--set tolerance=...) writes it all the same."
        )


def _largest(difference: NDArray[Any]) -> float:
    largest = float(np.abs(difference).max(initial=0.0))
    return largest if np.isfinite(largest) else float("inf")
