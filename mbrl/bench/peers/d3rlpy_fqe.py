"""d3rlpy's fitted Q evaluation of several policies on one log: `python d3rlpy_fqe.py FOLDER`.

It runs in an interpreter of its own and imports nothing of this package. A policy comes as actions that it
drew at every logged state, which is all that fitted Q evaluation asks of it. The folder holds `options.json`,
`log.npz` and a `.npz` for each policy; the answers go to `options["answers"]`, one file after the other.
"""

import importlib
import importlib.metadata
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class DrawnActions:
    """A policy that is known at logged states: answers with one of its draws there.

    Args:
        observations: `[n, o]` float32, the logged states.
        draws: `[k, n, a]`, actions of the policy there.
        seed: chooses among the draws.
    """

    def __init__(self, observations: Any, draws: Any, seed: int) -> None:
        self._torch = importlib.import_module("torch")
        self._draws = self._torch.as_tensor(draws)
        self._rows = {row.tobytes(): index for index, row in enumerate(observations)}
        self._generator = self._torch.Generator().manual_seed(seed)

    def predict_best_action(self, x: Any) -> Any:
        """`[b, a]`; after a terminal state, which the library marks by zeros and masks, any action."""
        index = self._torch.tensor([self._rows.get(row.tobytes(), 0) for row in x.cpu().numpy()])
        draw = self._torch.randint(self._draws.shape[0], index.shape, generator=self._generator)
        return self._draws[draw, index]


def estimate(options: dict[str, Any], log: Any, policy: Any) -> dict[str, Any]:
    """Fits the library's FQE and averages its values of the first states.

    Args:
        options: fields of `PeerConfig`, `discount`, `seed` and `threads`.
        log: arrays `observations`, `actions`, `rewards`, `terminals`, `timeouts`, `first_observations`.
        policy: arrays `draws` `[k, n, a]` and `first_draws`, its actions at the logged and the first states.
    """
    library, numpy = importlib.import_module("d3rlpy"), importlib.import_module("numpy")
    logging = importlib.import_module("d3rlpy.logging")
    library.seed(options["seed"])
    begin = time.perf_counter()
    dataset = library.dataset.MDPDataset(
        log["observations"], log["actions"], log["rewards"], log["terminals"], log["timeouts"]
    )
    config = library.ope.FQEConfig(
        learning_rate=options["learning_rate"],
        batch_size=options["batch_size"],
        gamma=options["discount"],
        target_update_interval=options["target_update_interval"],
        encoder_factory=library.models.VectorEncoderFactory(list(options["hidden"])),
    )
    actions = DrawnActions(log["observations"], policy["draws"], options["seed"])
    fqe = library.ope.FQE(algo=SimpleNamespace(impl=actions), config=config, device=False)
    fqe.fit(
        dataset,
        n_steps=options["updates"],
        n_steps_per_epoch=options["updates"],
        logger_adapter=logging.NoopAdapterFactory(),
        show_progress=False,
    )
    values = [fqe.predict_value(log["first_observations"], draw) for draw in policy["first_draws"]]
    value = float(numpy.mean(values))
    return {
        "value": value if math.isfinite(value) else None,
        "seconds": round(time.perf_counter() - begin, 3),
        "version": importlib.metadata.version("d3rlpy"),
    }


def main(folder: Path) -> None:
    """Answers for every policy; stops when the process that asked is gone."""
    numpy, torch = importlib.import_module("numpy"), importlib.import_module("torch")
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    torch.set_num_threads(options["threads"])
    with numpy.load(folder / "log.npz") as arrays:
        log = dict(arrays)
    parent = os.getppid()
    for file, name in options["policies"].items():
        if os.getppid() != parent:
            return
        with numpy.load(folder / file) as arrays:
            answer = estimate(options, log, dict(arrays))
        partial = folder / "answer.tmp"
        partial.write_text(json.dumps(answer), encoding="utf-8")
        shutil.move(partial, Path(options["answers"]) / f"{name}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
