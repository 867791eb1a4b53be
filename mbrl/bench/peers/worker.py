"""One contender in a process of its own, told what to do by JSON lines.

This file imports nothing but the standard library when it is loaded, and only the asked-for library, NumPy
and torch afterwards: `python worker.py` runs it with any interpreter, for peers that cannot be installed
beside this project. One request a line on standard input, one reply a line on standard output:

    {"build": {"library": "d3rlpy", "work": "bc", "threads": 1, ...}} -> {"modes": [...], "version": "2.8.1"}
    {"window": {"mode": "fit", "seconds": 1.0}} -> {"units": 220, "seconds": 1.004, "resident": 400000000}

An error is answered by `{"error": "..."}`, a library that is not installed by `{"missing": "d3rlpy"}`. The
end of the input ends the process. Whatever libraries print goes to standard error.
"""

import importlib
import importlib.metadata
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

Options: TypeAlias = Mapping[str, Any]
Work: TypeAlias = Callable[[], int]
"""Does a little work; returns how many units (updates, transitions, steps) it did."""

_EPOCH_UPDATES = 10
"""Updates that a training loop makes between two looks at the clock."""


def run_window(work: Work, seconds: float, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Works until `seconds` have passed, at least once; counts whole calls only."""
    begin = clock()
    units = 0
    while True:
        units += work()
        passed = clock() - begin
        if passed >= seconds:
            return {"units": units, "seconds": passed, "resident": resident_bytes()}


def resident_bytes() -> int | None:
    """Memory of this process that is in use, bytes; None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def serve(build: Callable[[dict[str, Any]], tuple[dict[str, Work], str]]) -> None:
    """Answers requests until the input ends.

    Args:
        build: from the options of a build request to the modes of work and the library's version.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print must not speak between the lines
    modes: dict[str, Work] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "build" in request:
                modes, version = build(request["build"])
                reply: dict[str, Any] = {"modes": list(modes), "version": version}
            else:
                window = request["window"]
                reply = run_window(modes[window["mode"]], window["seconds"])
        except ModuleNotFoundError as error:
            reply = {"missing": error.name}
        except Exception as error:  # noqa: BLE001 - whatever a library raises, the other process must hear it
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def random_log(options: Options) -> dict[str, Any]:
    """Random transitions in episodes of 1000 steps, float32 arrays by name; speed does not depend on them."""
    numpy = importlib.import_module("numpy")
    rng = numpy.random.default_rng(options["seed"])
    n, obs_dim, act_dim = options["transitions"], options["obs_dim"], options["act_dim"]
    truncated = numpy.zeros(n, dtype=numpy.float32)
    truncated[999::1000] = 1.0
    truncated[-1] = 1.0
    return {
        "observations": rng.standard_normal((n, obs_dim), dtype=numpy.float32),
        "actions": rng.uniform(-1, 1, (n, act_dim)).astype(numpy.float32),
        "rewards": rng.standard_normal(n, dtype=numpy.float32),
        "truncated": truncated,
    }


def build_d3rlpy(options: Options) -> tuple[dict[str, Work], str]:
    """`fit`: its training loop without a progress bar and files; `update`: one batch over and over."""
    library = importlib.import_module("d3rlpy")
    logging = importlib.import_module("d3rlpy.logging")
    log = random_log(options)
    terminals = 0 * log["truncated"]
    if options["work"].startswith("discrete"):
        log["actions"] = log["actions"].argmax(1)[:, None]
    dataset = library.dataset.MDPDataset(
        log["observations"], log["actions"], log["rewards"], terminals, log["truncated"]
    )
    is_evaluation = options["work"] == "fqe"
    algo = _d3rlpy_algorithm(library, "td3_bc" if is_evaluation else options["work"], options)
    if is_evaluation:
        algo.build_with_dataset(dataset)
        encoder = library.models.VectorEncoderFactory(list(options["hidden"]))
        config = library.ope.FQEConfig(batch_size=options["batch_size"], encoder_factory=encoder)
        algo = library.ope.FQE(algo=algo, config=config)
    epochs = algo.fitter(
        dataset,
        n_steps=sys.maxsize,
        n_steps_per_epoch=_EPOCH_UPDATES,
        logger_adapter=logging.NoopAdapterFactory(),
        show_progress=False,
    )
    next(epochs)  # builds the networks
    batch = dataset.sample_transition_batch(options["batch_size"])

    def fit() -> int:
        next(epochs)
        return _EPOCH_UPDATES

    def update() -> int:
        algo.update(batch)
        return 1

    return {"fit": fit, "update": update}, importlib.metadata.version("d3rlpy")


def _d3rlpy_algorithm(library: Any, work: str, options: Options) -> Any:
    names = {
        "bc": "BCConfig", "iql": "IQLConfig", "cql": "CQLConfig", "td3_bc": "TD3PlusBCConfig",
        "sac": "SACConfig", "discrete_cql": "DiscreteCQLConfig", "discrete_bcq": "DiscreteBCQConfig",
    }  # fmt: skip
    encoder = library.models.VectorEncoderFactory(list(options["hidden"]))
    has_one = work == "bc" or work.startswith("discrete")
    encoders = ("encoder_factory",) if has_one else ("actor_encoder_factory", "critic_encoder_factory")
    if work == "iql":
        encoders = (*encoders, "value_encoder_factory")
    config = getattr(library.algos, names[work])
    return config(batch_size=options["batch_size"], **dict.fromkeys(encoders, encoder)).create(device=False)


def build_stable_baselines3(options: Options) -> tuple[dict[str, Work], str]:
    """`train`: its gradient steps on a full replay buffer."""
    library = importlib.import_module("stable_baselines3")
    logger = importlib.import_module("stable_baselines3.common.logger")
    log = random_log(options)
    model = getattr(library, {"sac": "SAC", "td3": "TD3"}[options["work"]])(
        "MlpPolicy",
        _silent_task(options),
        buffer_size=options["transitions"],
        policy_kwargs={"net_arch": list(options["hidden"])},
        device="cpu",
        seed=options["seed"],
    )
    model.set_logger(logger.Logger(None, []))
    buffer = model.replay_buffer
    buffer.observations[:, 0] = log["observations"]
    buffer.next_observations[:-1, 0] = log["observations"][1:]
    buffer.actions[:, 0] = log["actions"]
    buffer.rewards[:, 0] = log["rewards"]
    buffer.full = True

    def train() -> int:
        model.train(_EPOCH_UPDATES, options["batch_size"])
        return _EPOCH_UPDATES

    return {"train": train}, importlib.metadata.version("stable-baselines3")


def _silent_task(options: Options) -> Any:
    """A task of the right sizes in which nothing happens: the library takes its spaces from one."""
    gymnasium = importlib.import_module("gymnasium")
    numpy = importlib.import_module("numpy")
    task = gymnasium.Env()
    sizes = options["obs_dim"], options["act_dim"]
    task.observation_space = gymnasium.spaces.Box(-numpy.inf, numpy.inf, (sizes[0],), numpy.float32)
    task.action_space = gymnasium.spaces.Box(-1.0, 1.0, (sizes[1],), numpy.float32)
    return task


def build_gymnasium(options: Options) -> tuple[dict[str, Work], str]:
    """`loop`: one simulator and a torch policy, a step at a time, as evaluation is usually written."""
    gymnasium = importlib.import_module("gymnasium")
    torch = importlib.import_module("torch")
    env = gymnasium.make(options["env_id"])
    sizes = (env.observation_space.shape[0], *options["hidden"], env.action_space.shape[0])
    layers: list[Any] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    policy = torch.nn.Sequential(*layers[:-1], torch.nn.Tanh())
    seeds = itertools.count(options["seed"])

    def loop() -> int:
        obs, _ = env.reset(seed=next(seeds))
        steps, is_over, episode_return = 0, False, 0.0
        while not is_over:
            with torch.no_grad():
                action = policy(torch.as_tensor(obs, dtype=torch.float32)[None])[0].numpy()
            obs, reward, terminated, truncated, _ = env.step(action)
            episode_return += float(reward)
            steps, is_over = steps + 1, terminated or truncated
        return steps

    return {"loop": loop}, importlib.metadata.version("gymnasium")


LIBRARIES: dict[str, Callable[[Options], tuple[dict[str, Work], str]]] = {
    "d3rlpy": build_d3rlpy,
    "stable-baselines3": build_stable_baselines3,
    "gymnasium": build_gymnasium,
}


def build_peer(options: dict[str, Any]) -> tuple[dict[str, Work], str]:
    """Modes of work and version of the library that `options` names."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(options["threads"])
    torch.manual_seed(options["seed"])
    return LIBRARIES[cast(str, options["library"])](options)


if __name__ == "__main__":
    serve(build_peer)
