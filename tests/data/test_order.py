import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.assemble import assemble
from mbrl.data.info import DatasetInfo
from mbrl.data.open import open_dataset, parse_log
from mbrl.data.options import LoadOptions
from mbrl.data.order import order_problems
from mbrl.data.raw import RawEpisode, RawLog
from tests.data.logs import SPEC, make_raw

Machine = np.ndarray


def oscillator(seed: int, steps: int = 300) -> Machine:
    """A driven, damped oscillator: `[steps, 3]` position, velocity and command."""
    rng = np.random.default_rng(seed)
    state, rows = rng.normal(size=2), []
    for _ in range(steps):
        action = rng.uniform(-1, 1)
        rows.append([*state, action])
        state = state + 0.2 * np.array([state[1], -state[0] - 0.2 * state[1] + 2.0 * action])
    return np.array(rows)


def chaos(seed: int, steps: int = 300) -> Machine:
    """Two logistic maps: no line explains the next row, and yet the row before determines it."""
    rng = np.random.default_rng(seed)
    x, rows = rng.uniform(0.1, 0.9, 2), []
    for _ in range(steps):
        rows.append([*x, rng.uniform(-1, 1)])
        x = 3.99 * x * (1 - x)
    return np.array(rows)


def noise(seed: int, steps: int = 300) -> Machine:
    """States that have nothing to do with each other."""
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 3))


def raw(rows: Machine, name: str = "0") -> RawEpisode:
    steps = len(rows)
    return dataclasses.replace(
        make_raw(steps, name), observations=np.concatenate([rows[:, :2], rows[-1:, :2]]), actions=rows[:, 2:]
    )


def in_turn(machines: list[Machine]) -> Machine:
    return np.stack(machines, axis=1).reshape(-1, 3)


def messages(*raws: RawEpisode) -> list[str]:
    return [str(problem) for problem in order_problems(raws, SPEC, file="log")]


@pytest.mark.parametrize("make", [oscillator, chaos])
def test_rows_in_order_pass(make):
    assert messages(*[raw(make(seed)) for seed in range(4)]) == []


@pytest.mark.parametrize("machines", [2, 4, 7, 40])
def test_machines_in_turn_are_found_and_counted(machines: int):
    rows = in_turn([oscillator(seed, 150) for seed in range(machines)])
    (message,) = messages(raw(rows))
    assert f"rows continue better {machines} rows on" in message
    assert f"{machines} machines in turn" in message
    assert "Sort the rows" in message
    assert "order=trust" in message


def test_machines_in_turn_that_are_cut_together():
    """Four machines with a flag at the same time make one long episode and three of one step."""
    rows = in_turn([oscillator(seed, 60) for seed in range(4)])
    pieces = [raw(rows[:237]), *(raw(rows[k : k + 1]) for k in (237, 238, 239))]
    (message,) = messages(*pieces)
    assert "3 of 4 episodes are cut after one step" in message


@pytest.mark.parametrize("make", [oscillator, chaos])
def test_shuffled_rows_are_found(make):
    rows = make(0, 600)[np.random.default_rng(1).permutation(600)]
    (message,) = messages(raw(rows))
    assert "shuffled rows" in message


def test_states_without_any_relation_can_be_trusted():
    """A bandit with many steps an episode looks shuffled, and nobody but the user can tell."""
    found = RawLog(Path("log"), (raw(noise(0)),) * 2, DatasetInfo(name="x"), act_low=(-1.0,), act_high=(1.0,))
    with pytest.raises(DataError, match="order=trust"):
        assemble(found, LoadOptions())
    assert len(assemble(found, LoadOptions(order="trust"))) == 2


def test_one_step_episodes_have_no_order():
    one = [raw(noise(seed, 1)) for seed in range(300)]
    ended = [dataclasses.replace(r, terminations=r.truncations, truncations=r.terminations) for r in one]
    assert messages(*ended) == []


def test_few_rows_prove_nothing():
    assert messages(raw(noise(0, 150))) == []
    assert messages() == []


def test_constant_channels_and_wild_numbers_are_no_evidence():
    rows = oscillator(0)
    rows[:, 1] = 5.0
    assert messages(raw(rows)) == []
    rows[:, :2] = 5.0
    assert messages(raw(rows)) == []
    rows[:, 0] = 1e300 * np.random.default_rng(0).normal(size=300)
    assert messages(raw(rows)) == []


def test_the_bundled_log_passes_and_its_shuffled_rows_do_not():
    log = parse_log("pendulum-mixed")
    spec = open_dataset("pendulum-mixed").spec
    assert list(order_problems(log.episodes, spec)) == []
    rng = np.random.default_rng(0)
    shuffled = []
    for episode in log.episodes:
        order = rng.permutation(len(episode.rewards))
        shuffled.append(
            dataclasses.replace(
                episode, observations=episode.observations[:-1][order], actions=episode.actions[order]
            )
        )
    assert len(list(order_problems(shuffled, spec))) == 1


@pytest.mark.data
@pytest.mark.parametrize("name", ["hopper/random-v0", "halfcheetah/medium-expert-v0"])
def test_published_logs_pass(shared_data: Path, name: str):
    log = parse_log(shared_data / "sim" / name)
    spec = assemble(log, LoadOptions(order="trust")).spec
    assert list(order_problems(log.episodes, spec)) == []
