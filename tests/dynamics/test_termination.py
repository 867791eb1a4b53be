import pytest
import torch

from mbrl.core.rng import RngStreams
from mbrl.dynamics.arrays import termination_edges
from mbrl.dynamics.assessment.termination import score_termination
from mbrl.dynamics.objectives import TerminationObjective
from mbrl.dynamics.termination import NeverTerminates, TerminationHead
from mbrl.dynamics.training import MemberTrainer, Schedule, TrainingArrays
from mbrl.nets.encoding import PiecewiseLinearEncoding
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP


def make_head(edges, *, size, weight, members=2, hidden=(16,), reads_successor=True):
    encoding = PiecewiseLinearEncoding(edges)
    generator = torch.Generator().manual_seed(0)
    return TerminationHead(
        StackedMLP(members, size + encoding.added_size, hidden, 1, generator=generator),
        inputs=Normaliser.identity(size),
        encoding=encoding,
        positive_weight=weight,
        reads_successor=reads_successor,
    )


def train_head(inputs, flags, *, weight, updates=300, rate=1e-3, bins=0):
    edges = termination_edges(inputs, flags.bool().numpy(), obs_dim=1, bins=bins)
    head = make_head(edges, size=inputs.shape[1], weight=weight)
    half = len(inputs) // 2
    arrays = TrainingArrays(inputs[:half], flags[:half, None], inputs[half:], flags[half:, None])
    schedule = Schedule(
        max_updates=updates,
        epoch_updates=100,
        batch_size=256,
        learning_rate=rate,
        decay="cosine",
        patience=5,
        improvement=0.01,
        bootstrap=False,
    )
    trainer = MemberTrainer(TerminationObjective(head), arrays, schedule, RngStreams(0))
    while not trainer.is_done:
        trainer.run_epoch()
    trainer.restore_best()
    return head


def score(probability, flags):
    return score_termination(
        probability.double().numpy(), flags.bool().numpy(), is_learned=True, train_rows=1, train_terminated=0
    )


@torch.no_grad()
def test_uninformative_inputs_give_the_base_rate_after_the_correction():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40_000, 3, generator=generator)
    flags = torch.zeros(40_000)
    flags[torch.randperm(40_000, generator=generator)[:400]] = 1.0
    with torch.enable_grad():
        head = train_head(inputs, flags, weight=99.0)
    obs, action, next_obs = inputs.split(1, 1)
    uncorrected = torch.sigmoid(head.net(inputs)).mean()
    assert float(uncorrected) == pytest.approx(0.5, abs=0.05)
    assert float(head(obs, action, next_obs).mean()) == pytest.approx(0.01, rel=0.2)


@torch.no_grad()
def test_a_wall_is_learned():
    inputs = torch.rand(8000, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    flags = (inputs[:, 2] > 0.8).float()
    with torch.enable_grad():
        head = train_head(inputs, flags, weight=9.0, rate=2e-2)
    probability = head(*inputs.split(1, 1))
    scores = score(probability, flags)
    assert scores.recall > 0.8
    assert scores.precision > 0.8
    assert scores.brier < 0.25 * scores.brier_constant


def test_it_averages_members_after_the_correction():
    head = make_head(torch.zeros(1, 1), size=2, weight=5.0, hidden=(4,), reads_successor=False)
    obs, action = torch.randn(6, 1, generator=torch.Generator().manual_seed(1)), torch.zeros(6, 1)
    odds = torch.exp(head.net(torch.cat((action, obs), 1)).squeeze(-1)) / 5.0
    expected = (odds / (1 + odds)).mean(0)
    torch.testing.assert_close(head(obs, action, obs * torch.nan), expected)  # s' is not read
    chosen = head.select(torch.tensor([1]))
    torch.testing.assert_close(chosen(obs, action, obs), (odds / (1 + odds))[1])


@torch.no_grad()
def test_a_threshold_that_few_rows_pass_is_sharp_with_the_encoding():
    """The last 1 % of a normal: without the encoding the head is a slope, with it almost a step."""
    inputs = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(2))
    flags = (inputs[:, 2] > 2.33).float()
    found = {}
    for bins in (0, 16):
        with torch.enable_grad():
            head = train_head(inputs, flags, weight=5.0, updates=600, bins=bins)
        found[bins] = score(head(*inputs.split(1, 1)), flags).brier
    assert found[16] < 0.5 * found[0]


def test_without_terminations_nothing_ends():
    obs = torch.ones(3, 2)
    assert NeverTerminates()(obs, obs, obs).tolist() == [0.0, 0.0, 0.0]
