import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.deploy.networks import write_policy
from mbrl.nets.actors import Actor, ActorSpec, build_actor
from mbrl.nets.best_of import BestOfPolicy
from mbrl.nets.critics import CriticEnsemble
from mbrl.testing.policies import POLICY_CHECKS, PolicyCase
from mbrl.testing.samples import SPACE, make_normaliser, make_transitions
from mbrl.testing.trainings import check_stored_policy

OBS = make_transitions().observation[:50]


def make_behaviour(kind: str = "clipped_gaussian") -> Actor:
    spec = ActorSpec(kind, SPACE, (8,), components=2 if kind == "mixture" else 1)  # pyright: ignore
    return build_actor(spec, make_normaliser(), torch.Generator().manual_seed(1))


def make_ranker(members: int = 2) -> CriticEnsemble:
    generator = torch.Generator().manual_seed(2)
    return CriticEnsemble(members, SPACE, (8,), make_normaliser(), generator=generator, activation="silu")


def make_best(kind: str = "clipped_gaussian", *, candidates: int = 8, pessimism: float = 0.0) -> BestOfPolicy:
    return BestOfPolicy.of(
        make_behaviour(kind),
        make_ranker(),
        candidates=candidates,
        pessimism=pessimism,
        offset=torch.tensor([0.1, -0.2]),
        scale=torch.tensor([1.0, 3.0]),
    )


@pytest.mark.parametrize("kind", ["clipped_gaussian", "tanh_gaussian", "mixture"])
def test_it_is_a_policy_that_survives_its_file(kind: str) -> None:
    policy = make_best(kind)
    for check in POLICY_CHECKS.values():
        check(PolicyCase(policy, SPACE))
    check_stored_policy(policy, OBS)
    assert not hasattr(policy, "log_prob")


def test_it_takes_the_draw_of_the_highest_lower_bound() -> None:
    behaviour, ranker = make_behaviour(), make_ranker()
    policy = BestOfPolicy.of(behaviour, ranker, candidates=8, pessimism=1.0)
    draws = behaviour.sample(OBS, 8, policy.candidate_noise(None, len(OBS)))  # pyright: ignore
    # With two members and pessimism 1 the bound is the least of both.
    values = torch.stack([ranker(OBS, behaviour.scale(a)).amin(0) for a in draws])
    torch.testing.assert_close(policy.act(OBS), draws[values.argmax(0), torch.arange(len(OBS))])


def test_its_candidates_are_draws_of_the_behaviour_whatever_the_points() -> None:
    policy = make_best(candidates=3)
    noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(3))
    candidates = policy.candidate_noise(noise, len(noise))
    assert candidates.shape == (3, 20_000, 2)
    torch.testing.assert_close(candidates.mean(1), torch.zeros(3, 2), atol=0.03, rtol=0)
    torch.testing.assert_close(candidates.std(1), torch.ones(3, 2), atol=0.03, rtol=0)


def test_more_candidates_find_a_higher_rank() -> None:
    means = []
    for count in (1, 4, 32):
        policy = make_best(candidates=count)
        means.append(float(policy.rank(OBS, policy.act(OBS)[None]).mean()))
    assert means == sorted(means)
    assert means[0] < means[-1]


@pytest.mark.parametrize("kind", ["clipped_gaussian", "tanh_gaussian"])
@pytest.mark.parametrize("pessimism", [0.0, 1.5])
def test_its_graph_acts_alike(kind: str, pessimism: float) -> None:
    runtime = pytest.importorskip("onnxruntime")
    policy = make_best(kind, pessimism=pessimism)
    graph = write_policy(policy, history=1, stochastic=False).to_bytes({})
    session = runtime.InferenceSession(graph)
    (action,) = session.run(None, {"frames": OBS.numpy()[:, None]})
    np.testing.assert_allclose(action, policy.act(OBS).numpy(), atol=1e-5)


def test_graphs_of_what_cannot_be_drawn_there_are_refused() -> None:
    pytest.importorskip("onnx")
    with pytest.raises(ConfigError, match="mixture"):
        write_policy(make_best("mixture"), history=1, stochastic=False)
    with pytest.raises(ConfigError, match="inverse of erf"):
        write_policy(make_best(), history=1, stochastic=True)


def test_a_policy_without_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="deterministic"):
        BestOfPolicy.of(make_behaviour("deterministic"), make_ranker(), candidates=2)
