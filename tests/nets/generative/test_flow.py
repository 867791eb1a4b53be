import numpy as np
import pytest
import torch

from mbrl.core.protocols import StochasticPolicy
from mbrl.deploy.networks import write_policy
from mbrl.nets.best_of import BestOfPolicy
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.generative.flow import FlowPolicy, FlowSpec
from mbrl.testing.policies import POLICY_CHECKS, PolicyCase
from mbrl.testing.samples import SPACE, make_normaliser, make_transitions
from mbrl.testing.trainings import check_stored_policy

OBS = make_transitions().observation[:40]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(*, steps: int = 5, hidden: tuple[int, ...] = (8,), layer_norm: bool = False) -> FlowPolicy:
    return FlowPolicy(
        FlowSpec("flow", SPACE, hidden, steps, layer_norm=layer_norm), make_normaliser(), generator(1)
    )


def make_best(*, candidates: int = 6, pessimism: float = 1.0) -> BestOfPolicy:
    ranker = CriticEnsemble(2, SPACE, (8,), make_normaliser(), generator=generator(2), layer_norm=True)
    return BestOfPolicy.of(make(layer_norm=True), ranker, candidates=candidates, pessimism=pessimism)


def noise(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, SPACE.act_dim, generator=generator(seed))


@pytest.mark.parametrize("policy", [make(), make_best()], ids=["clone", "best"])
def test_it_is_a_policy_without_a_density(policy) -> None:
    for check in POLICY_CHECKS.values():
        check(PolicyCase(policy, SPACE))
    assert not isinstance(policy, StochasticPolicy)
    assert not hasattr(policy, "log_prob")


def test_the_best_of_its_draws_survives_a_file() -> None:
    check_stored_policy(make_best(), OBS)


def test_a_linear_field_is_solved_in_its_steps() -> None:
    """v = 0.3 + 0.5 t + the first standardised observation; Euler of K steps sums it at k / K."""
    policy = make(hidden=(), steps=4)
    with torch.no_grad():
        policy.field.flat.zero_()
        (layer,) = policy.field.layers(policy.field.flat)
        layer.weight[0, 0, :], layer.weight[0, -1, :], layer.bias[:] = 1.0, 0.5, 0.3
    start = 0.05 * noise(len(OBS))
    first = policy.normaliser(OBS)[:, :1].clone()
    expected = (start + 0.3 + 0.5 * (0 + 0.25 + 0.5 + 0.75) / 4 + first).clamp(-1, 1)
    torch.testing.assert_close(policy.scaled_sample(OBS, start), expected)
    torch.testing.assert_close(policy.act(OBS, start), policy.unscale(expected))
    middle = (0.3 + 0.1875 + first).clamp(-1, 1).expand(-1, SPACE.act_dim)
    torch.testing.assert_close(policy.act(OBS), policy.unscale(middle))


def test_draws_are_those_of_each_row_and_each_draw_alone() -> None:
    policy, draws = make(), noise(3, len(OBS))
    many = policy.sample(OBS, 3, draws)
    for k in range(3):
        torch.testing.assert_close(many[k], policy.act(OBS, draws[k]))
    torch.testing.assert_close(many[1, 7:8], policy.act(OBS[7:8], draws[1, 7:8]))
    with pytest.raises(ValueError, match="count is 2"):
        policy.sample(OBS, 2, draws)


def test_a_single_candidate_is_a_draw_of_the_clone_and_more_rank_higher() -> None:
    one = make_best(candidates=1)
    start = one.candidate_noise(None, len(OBS))[0]
    torch.testing.assert_close(one.act(OBS), one.behaviour.act(OBS, start))
    ranks = [float(p.rank(OBS, p.act(OBS)[None]).mean()) for p in (one, make_best(candidates=64))]
    assert ranks[0] < ranks[1]


@pytest.mark.parametrize("is_drawn", [False, True])
def test_its_graph_acts_alike_and_holds_the_field_once(is_drawn: bool) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    policy, start = make(layer_norm=True), noise(len(OBS))
    graph = write_policy(policy, history=1, stochastic=is_drawn).to_bytes({})
    feed = {"frames": OBS.numpy()[:, None], **({"noise": start.numpy()} if is_drawn else {})}
    (action,) = runtime.InferenceSession(graph).run(None, feed)
    np.testing.assert_allclose(action, policy.act(OBS, start if is_drawn else None).numpy(), atol=1e-5)
    weights = onnx.load_from_string(graph).graph.initializer
    assert [list(one.dims) for one in weights].count([8, SPACE.act_dim]) == 1


@pytest.mark.parametrize("pessimism", [0.0, 1.0])
def test_the_graph_of_the_best_of_its_draws_acts_alike(pessimism: float) -> None:
    runtime = pytest.importorskip("onnxruntime")
    policy = make_best(pessimism=pessimism)
    graph = write_policy(policy, history=1, stochastic=False).to_bytes({})
    (action,) = runtime.InferenceSession(graph).run(None, {"frames": OBS.numpy()[:, None]})
    np.testing.assert_allclose(action, policy.act(OBS).numpy(), atol=1e-5)
