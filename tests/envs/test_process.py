"""The process-control tasks against the steady states and the delays that their sources state."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mbrl.core.rng import RngStreams
from mbrl.envs.make import make_env
from mbrl.envs.process import FourTank, Pipeline, ProcessEnv, Reactor
from mbrl.envs.specs import load_task
from mbrl.envs.termination import KnownTermination

TASKS = {"reactor": Reactor, "four_tank": FourTank, "pipeline": Pipeline}


def test_the_reactor_rests_at_its_unstable_steady_state() -> None:
    reactor, rest, coolant = Reactor(), np.array([0.5, 350.0]), np.array([300.0])
    # 0.5 mol/L, 350 K at a coolant of 300 K: the example's own figures, to four digits.
    assert reactor.derivative(rest, coolant) == pytest.approx([0.0, 0.0], abs=0.01)
    step = np.diag([1e-5, 1e-3])
    jacobian = np.stack(
        [
            (reactor.derivative(rest + d, coolant) - reactor.derivative(rest - d, coolant)) / (2 * d.max())
            for d in step
        ],
        1,
    )
    # d/dC (1 - C - k C) = -1 - k with k = (1 - 0.5) / 0.5 = 1 at rest.
    assert jacobian[0, 0] == pytest.approx(-2.0, abs=0.001)
    assert (
        np.linalg.eigvals(jacobian).real.max() > 2.0
    )  # it runs away, three times as far within half a minute


def test_the_tanks_rest_at_the_operating_point_of_the_paper() -> None:
    assert FourTank().derivative(FourTank().start(), np.array([3.0, 3.0])) == pytest.approx([0] * 4, abs=0.01)
    # Water is neither made nor lost: what flows in less what leaves the lower tanks is what all of them gain.
    levels, volts = np.array([9.0, 14.0, 3.0, 2.0]), np.array([2.0, 4.0])
    gained = (FourTank.AREA * FourTank().derivative(levels, volts)).sum()
    left = (FourTank.OUTLET * np.sqrt(2 * 981.0 * levels))[:2].sum()
    assert gained == pytest.approx((FourTank.PUMP * volts).sum() - left)


def test_a_runge_kutta_step_solves_the_equation() -> None:
    tanks, levels, volts = FourTank(), np.array([9.0, 14.0, 3.0, 2.0]), np.array([2.0, 4.0])
    fine = levels
    for _ in range(50_000):
        fine = fine + 1e-4 * tanks.derivative(fine, volts)
    assert tanks.advance(levels, volts) == pytest.approx(fine, abs=1e-4)


def test_the_pipe_delays_by_ten_steps_and_loses_a_tenth() -> None:
    pipe = Pipeline()
    outlet = pipe.start()
    at_rest = 15.0 + 0.9 * 35.0
    assert outlet == pytest.approx([at_rest])
    path = []
    for _ in range(60):
        outlet = pipe.advance(outlet, np.array([60.0]))
        path.append(float(outlet[0]))
    # Nothing for ten steps; the eleventh brings 0.3 of the change, and in the end all of it is there.
    assert path[:10] == pytest.approx([at_rest] * 10)
    assert path[10] == pytest.approx(at_rest + 0.3 * 9.0)
    assert path[-1] == pytest.approx(15.0 + 0.9 * 45.0, abs=1e-4)


def _reactor(o: NDArray[np.float32]) -> list[float]:
    return [300 - 60 * (o[2] - o[0]) - 6 * (o[1] - 350 + 60 * (o[2] - 0.5)) - 2 * o[3]]


def _tanks(o: NDArray[np.float32]) -> list[float]:
    return [3 + 2 * (o[4] - o[0]) + o[6], 3 + 2 * (o[5] - o[1]) + o[7]]


def _pipe(o: NDArray[np.float32]) -> list[float]:
    return [50 + 1.1 * (o[1] - 46.5)]


RULES = {"reactor": _reactor, "four_tank": _tanks, "pipeline": _pipe}


@pytest.mark.parametrize("name", TASKS)
def test_references_are_the_returns_of_random_commands_and_of_the_rule(name: str) -> None:
    """Ten episodes each; the deviation of a mean of ten is a tenth of the scale at most."""
    task = load_task(name)
    env, rng = make_env(task), np.random.default_rng(0)
    assert isinstance(env.unwrapped, TASKS[name])
    assert task.ref_min_score is not None
    assert task.ref_max_score is not None
    found = {"rule": 0.0, "random": 0.0}
    for who in found:
        for episode in range(10):
            obs, _ = env.reset(seed=episode)
            done = False
            while not done:
                action = RULES[name](obs) if who == "rule" else rng.uniform(task.act_low, task.act_high)
                obs, reward, ended, cut, _ = env.step(np.array(action, np.float32))
                assert 0.0 <= float(reward) <= 1.0
                found[who] += float(reward) / 10
                done = ended or cut
    env.close()
    scale = task.ref_max_score - task.ref_min_score
    assert found["rule"] == pytest.approx(task.ref_max_score, abs=0.05 * scale)
    assert found["random"] == pytest.approx(task.ref_min_score, abs=0.1 * scale)


def test_a_trip_ends_the_episode_as_the_task_says() -> None:
    env: ProcessEnv = Reactor()
    env.reset(seed=0)
    rule = load_task("reactor").termination
    assert rule is not None
    for _ in range(200):
        obs, reward, ended, _, _ = env.step(np.array([320.0], np.float32))
        known = KnownTermination(rule)(torch.zeros(1, 4), torch.zeros(1, 1), torch.from_numpy(obs)[None])
        assert bool(known[0] > 0.5) == ended
        if ended:
            assert reward == 0.0
            break
    else:
        pytest.fail("a reactor that is heated runs away")


@pytest.mark.parametrize("name", TASKS)
def test_a_seed_is_an_episode(name: str) -> None:
    one, two = TASKS[name](), TASKS[name]()
    for env in (one, two):
        env.reset(seed=7)
    generator = np.random.default_rng(RngStreams(0).integer("commands"))
    for _ in range(5):
        action = generator.uniform(one.low, one.high).astype(np.float32)
        assert one.step(action)[0].tolist() == two.step(action)[0].tolist()
