"""Another library's fitted Q evaluation of the same policy on the same log, in an interpreter of its own."""

import dataclasses
import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

import mbrl.experiment.peers
from mbrl.core.errors import MbrlError
from mbrl.core.estimates import Estimand
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.experiment.ope_bench import PeerConfig
from mbrl.ope.policies import draw_actions

PEER: Final = "d3rlpy_fqe"
"""Name of the peer in tables; its program has this name too."""

PROGRAM: Final = Path(mbrl.experiment.peers.__file__).with_name(f"{PEER}.py")
_DRAWS: Final = 10
_QUOTED: Final = 300


class PeerError(MbrlError):
    """The other library could not be asked, or gave no answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What the other library says.

    Attributes:
        value: its estimate, NaN if it diverged.
        seconds: of its fit.
        version: of the library.
    """

    value: float
    seconds: float
    version: str


def ask_peer(
    python: str, policy: Policy, dataset: Dataset, estimand: Estimand, *, config: PeerConfig, seed: int
) -> PeerAnswer:
    """Value of a policy as d3rlpy's FQE estimates it.

    That library knows no horizon: its estimand is the discounted sum over all steps. At time-outs it leaves
    the last step out, as it has no next state. For a stochastic policy it would evaluate the greedy action;
    here it is given draws.

    Args:
        python: interpreter in which the library is installed.
        policy: whose value.
        dataset: the log.
        estimand: its discount is passed on.
        config: of the fit.
        seed: of all draws.

    Raises:
        PeerError: the interpreter or the library is missing, or the fit failed.
    """
    options = {**config.model_dump(mode="json"), "discount": estimand.discount, "seed": seed, "threads": 1}
    with tempfile.TemporaryDirectory(prefix="mbrl-peer-") as name:
        folder = Path(name)
        (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
        np.savez(folder / "log.npz", **_log_arrays(policy, dataset, seed))
        answer = folder / "answer.json"
        command = [
            python,
            str(PROGRAM),
            str(folder / "options.json"),
            str(folder / "log.npz"),
            str(answer),
        ]
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
        except OSError as error:
            raise PeerError(f"The interpreter {python} cannot be started: {error}") from error
        if run.returncode != 0 or not answer.is_file():
            raise PeerError(
                f"d3rlpy's FQE failed in {python}: {run.stderr.strip()[-_QUOTED:]} Remedy: give an "
                "interpreter in which d3rlpy is installed, or leave --peer-python out."
            )
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    value = float(found["value"])
    return PeerAnswer(value if math.isfinite(value) else math.nan, found["seconds"], found["version"])


def _log_arrays(policy: Policy, dataset: Dataset, seed: int) -> dict[str, Any]:
    rows, rng = dataset.transitions(), RngStreams(seed)
    first = np.stack([episode.observations[0] for episode in dataset.episodes])

    def draws(obs: Any, stream: str) -> Any:
        actions = draw_actions(policy, torch.tensor(obs), count=_DRAWS, generator=rng.at(f"peer/{stream}"))
        return actions.numpy()

    return {
        "observations": rows.observation,
        "actions": rows.action,
        "rewards": rows.reward,
        "terminals": rows.terminated.astype(np.float32),
        "timeouts": (rows.truncated & ~rows.terminated).astype(np.float32),
        "draws": draws(rows.observation, "log"),
        "first_observations": first,
        "first_draws": draws(first, "first"),
    }
