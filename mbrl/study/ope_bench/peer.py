"""Another library's fitted Q evaluation of the same policies on the same log, in its own interpreter."""

import contextlib
import dataclasses
import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from mbrl.core.assets import PACKAGE
from mbrl.core.errors import MbrlError
from mbrl.core.estimates import Estimand
from mbrl.core.progress import Progress
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.off_policy.log.policies import draw_actions
from mbrl.run.files import read_json
from mbrl.study.ope_bench.config import PeerConfig

PEER: Final = "d3rlpy_fqe"
"""Name of the peer in tables; its program has this name too."""

PROGRAM: Final = PACKAGE / "bench" / "peers" / f"{PEER}.py"
_DRAWS: Final = 10
"""Actions that a stochastic policy draws at each state for the peer, as many as our own value fits."""

_LOOK_SECONDS: Final = 0.5
"""Between two looks for answers of the peer's process."""

_QUOTED: Final = 300
"""Last characters of the peer's output that an error quotes."""


class PeerError(MbrlError):
    """The other library could not be asked, or gave no answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What the other library says of a policy.

    Attributes:
        value: its estimate, NaN if it diverged.
        seconds: of its fit.
        version: of the library.
    """

    value: float
    seconds: float
    version: str

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "PeerAnswer":
        """Of the fields in a file."""
        value = math.nan if fields["value"] is None else float(fields["value"])
        return cls(value, fields["seconds"], fields["version"])


@dataclasses.dataclass(frozen=True, slots=True)
class PeerRequest:
    """What all policies of one log have in common.

    Attributes:
        python: interpreter in which the library is installed.
        estimand: its discount is passed on.
        config: of the fits.
        seed: of all draws.
        folder: keeps the answers: those that are there are not asked for again.
    """

    python: str
    estimand: Estimand
    config: PeerConfig
    seed: int
    folder: Path


def ask_peer(
    policies: Mapping[str, Policy], dataset: Dataset, request: PeerRequest, progress: Progress
) -> dict[str, PeerAnswer]:
    """Values of policies as d3rlpy's FQE estimates them.

    That library knows no horizon: its estimand is the discounted sum over all steps. At time-outs it leaves
    the last step out, as it has no next state. For a stochastic policy it would evaluate the greedy action;
    here it is given draws.

    Args:
        policies: by name.
        dataset: the log.
        request: how.
        progress: told of answers.

    Raises:
        PeerError: the interpreter or the library is missing, or a fit failed.
    """
    request.folder.mkdir(parents=True, exist_ok=True)
    files = {name: request.folder / f"{name}.json" for name in policies}
    missing = {name: policy for name, policy in policies.items() if not files[name].is_file()}
    progress.start("ask d3rlpy", len(policies))
    if missing:
        with tempfile.TemporaryDirectory(prefix="mbrl-peer-") as name:
            folder = Path(name)
            _write_question(folder, missing, dataset, request)
            _run(request.python, folder, lambda: progress.advance(sum(f.is_file() for f in files.values())))
    return {name: PeerAnswer.from_json(read_json(file)) for name, file in files.items()}


def _run(python: str, folder: Path, look: Callable[[], None]) -> None:
    with (folder / "errors.txt").open("w+", encoding="utf-8", errors="replace") as errors:
        try:
            process = subprocess.Popen([python, str(PROGRAM), str(folder)], stdout=errors, stderr=errors)
        except OSError as error:
            raise PeerError(f"The interpreter {python} cannot be started: {error}") from error
        with process:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_SECONDS)
                look()
        if process.returncode != 0:
            errors.seek(0)
            words = errors.read().strip()[-_QUOTED:]
            raise PeerError(
                f"d3rlpy's FQE failed in {python}: {words} Remedy: give an interpreter in which d3rlpy is "
                "installed, or leave --peer-python out."
            )


def _write_question(
    folder: Path, policies: Mapping[str, Policy], dataset: Dataset, request: PeerRequest
) -> None:
    rows, rng = dataset.transitions(), RngStreams(request.seed)
    first = np.stack([episode.observations[0] for episode in dataset.episodes])
    options = {
        **request.config.model_dump(mode="json"),
        "discount": request.estimand.discount,
        "seed": request.seed,
        "threads": 1,
        "answers": str(request.folder),
        "policies": {f"policy-{index}.npz": name for index, name in enumerate(policies)},
    }
    (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
    np.savez(
        folder / "log.npz",
        observations=rows.observation,
        actions=rows.action,
        rewards=rows.reward,
        terminals=rows.terminated.astype(np.float32),
        timeouts=(rows.truncated & ~rows.terminated).astype(np.float32),
        first_observations=first,
    )
    for index, policy in enumerate(policies.values()):
        draws, first_draws = (
            draw_actions(policy, torch.tensor(obs), count=_DRAWS, generator=rng.at(stream)).numpy()
            for stream, obs in (("peer/log", rows.observation), ("peer/first", first))
        )
        np.savez(folder / f"policy-{index}.npz", draws=draws, first_draws=first_draws)
