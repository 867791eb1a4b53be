"""d3rlpy's fitted Q evaluation: reads options as JSON and a log as npz, answers with one JSON object.

It runs in an interpreter of its own and imports nothing of this package. The policy comes as actions that it
drew at every logged state, which is all that fitted Q evaluation asks of it.
"""

import importlib
import importlib.metadata
import json
import sys
import time
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


def estimate(options: dict[str, Any], log: Any) -> dict[str, Any]:
    """Fits the library's FQE and averages its values of the first states.

    Args:
        options: fields of `PeerConfig`, `discount`, `seed` and `threads`.
        log: arrays `observations`, `actions`, `rewards`, `terminals`, `timeouts`, `draws` `[k, n, a]`,
            `first_observations` and `first_draws`.
    """
    library, numpy = importlib.import_module("d3rlpy"), importlib.import_module("numpy")
    logging = importlib.import_module("d3rlpy.logging")
    torch = importlib.import_module("torch")
    torch.set_num_threads(options["threads"])
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
    policy = DrawnActions(log["observations"], log["draws"], options["seed"])
    fqe = library.ope.FQE(algo=SimpleNamespace(impl=policy), config=config, device=False)
    fqe.fit(
        dataset,
        n_steps=options["updates"],
        n_steps_per_epoch=options["updates"],
        logger_adapter=logging.NoopAdapterFactory(),
        show_progress=False,
    )
    values = [fqe.predict_value(log["first_observations"], draw) for draw in log["first_draws"]]
    return {
        "value": float(numpy.mean(values)),
        "seconds": round(time.perf_counter() - begin, 3),
        "version": importlib.metadata.version("d3rlpy"),
    }


def main() -> None:
    """`python d3rlpy_fqe.py OPTIONS.json LOG.npz ANSWER.json`."""
    numpy = importlib.import_module("numpy")
    with open(sys.argv[1], encoding="utf-8") as file:
        options = json.load(file)
    with numpy.load(sys.argv[2]) as arrays:
        log = dict(arrays)
    answer = estimate(options, log)
    with open(sys.argv[3], "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
