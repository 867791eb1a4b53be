"""d3rlpy's discrete CQL or BCQ on a log of choices, and its returns: `python d3rlpy_choices.py FOLDER`.

It runs in an interpreter of its own and imports nothing of this package. The folder holds `options.json` and
`log.npz`; the answer, `answer.json`, has the returns of episodes with the greedy policy and the seconds of
the training.
"""

import importlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any


def train(options: dict[str, Any], log: Any) -> Any:
    """Trains on the log.

    Args:
        options: `work` (`discrete_cql`, `discrete_bcq`), `updates`, `batch_size`, `hidden`, `learning_rate`,
            `target_update_interval`, `discount`, `seed`.
        log: arrays `observations` `[n, o]`, `actions` `[n]` of ids, `rewards`, `terminals`, `timeouts`.
    """
    library = importlib.import_module("d3rlpy")
    logging = importlib.import_module("d3rlpy.logging")
    library.seed(options["seed"])
    dataset = library.dataset.MDPDataset(
        log["observations"], log["actions"][:, None], log["rewards"], log["terminals"], log["timeouts"]
    )
    name = {"discrete_cql": "DiscreteCQLConfig", "discrete_bcq": "DiscreteBCQConfig"}[options["work"]]
    algo = getattr(library.algos, name)(
        batch_size=options["batch_size"],
        gamma=options["discount"],
        learning_rate=options["learning_rate"],
        target_update_interval=options["target_update_interval"],
        encoder_factory=library.models.VectorEncoderFactory(list(options["hidden"])),
        observation_scaler=library.preprocessing.StandardObservationScaler(),
    ).create(device=False)
    algo.fit(
        dataset,
        n_steps=options["updates"],
        n_steps_per_epoch=options["updates"],
        logger_adapter=logging.NoopAdapterFactory(),
        show_progress=False,
    )
    return algo


def evaluate(algo: Any, env_id: str, episodes: int, seed: int) -> list[float]:
    """Undiscounted returns of its greedy policy."""
    env = importlib.import_module("gymnasium").make(env_id)
    returns: list[float] = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed + episode)
        total, is_over = 0.0, False
        while not is_over:
            obs, reward, terminated, truncated, _ = env.step(int(algo.predict(obs[None])[0]))
            total, is_over = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def main(folder: Path) -> None:
    """Answers the question in the folder."""
    numpy, torch = importlib.import_module("numpy"), importlib.import_module("torch")
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    torch.set_num_threads(options["threads"])
    with numpy.load(folder / "log.npz") as arrays:
        log = dict(arrays)
    begin = time.perf_counter()
    algo = train(options, log)
    seconds = time.perf_counter() - begin
    answer = {
        "returns": evaluate(algo, options["env_id"], options["episodes"], 1000),
        "seconds": round(seconds, 1),
        "version": importlib.metadata.version("d3rlpy"),
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
