import dataclasses

import pytest
import torch

from mbrl.core.errors import NonFiniteError
from mbrl.core.rng import RngStreams
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.dynamics.objectives import StepObjective, decay_ramp
from mbrl.dynamics.training import MemberTrainer, Schedule, TrainingArrays
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP

SCHEDULE = Schedule(
    max_updates=60,
    epoch_updates=10,
    batch_size=16,
    learning_rate=1e-2,
    decay="cosine",
    patience=3,
    improvement=0.01,
    bootstrap=True,
)


@pytest.fixture
def arrays():
    generator = torch.Generator().manual_seed(0)
    inputs, holdout = torch.randn(200, 3, generator=generator), torch.randn(50, 3, generator=generator)
    weights = torch.randn(3, 2, generator=generator)
    return TrainingArrays(
        inputs=inputs,
        targets=torch.sin(inputs @ weights),
        holdout_inputs=holdout,
        holdout_targets=torch.sin(holdout @ weights),
    )


def make_ensemble(members):
    net = StackedMLP(members, 3, (16,), 4, generator=torch.Generator().manual_seed(3), activation="silu")
    bounds = torch.tensor([-10.0, 0.5])[None, :, None].expand(members, 2, 2)
    return DynamicsEnsemble(net, bounds, inputs=Normaliser.identity(3), targets=Normaliser.identity(2))


def make_trainer(arrays, *, members=3, ensemble=None, **changes):
    ensemble = ensemble or make_ensemble(members)
    objective = StepObjective(ensemble, bound_coef=0.01, weight_decay=decay_ramp(2))
    schedule = dataclasses.replace(SCHEDULE, **changes)
    return ensemble, MemberTrainer(objective, arrays, schedule, RngStreams(7))


def run(trainer):
    while not trainer.is_done:
        trainer.run_epoch()


def test_training_a_member_beside_others_is_training_it_alone(arrays):
    together, trainer = make_trainer(arrays)
    alone = make_ensemble(1)
    with torch.no_grad():
        alone.net.flat.copy_(make_ensemble(3).net.flat[:1])
    _, lone_trainer = make_trainer(arrays, ensemble=alone)
    for _ in range(3):
        trainer.run_epoch()
        lone_trainer.run_epoch()
    torch.testing.assert_close(together.net.flat[:1], alone.net.flat, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.bounds[:1], alone.bounds, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 3])
def test_resume_continues_to_the_same_bits(arrays, cut):
    straight, trainer = make_trainer(arrays)
    run(trainer)
    _, first = make_trainer(arrays)
    for _ in range(cut):
        first.run_epoch()
    resumed, second = make_trainer(arrays)
    second.load_state_dict(first.state_dict())
    run(second)
    assert torch.equal(straight.net.flat, resumed.net.flat)
    assert torch.equal(straight.bounds, resumed.bounds)
    assert second.history == trainer.history
    assert all(torch.equal(a, b) for a, b in zip(trainer.snapshots, second.snapshots, strict=True))


def test_restored_members_have_the_error_and_likelihood_of_their_snapshots(arrays):
    ensemble, trainer = make_trainer(arrays, learning_rate=0.05, decay="constant", patience=100)
    losses: list[torch.Tensor] = []
    targets = arrays.holdout_targets.expand(3, -1, -1)
    objective = StepObjective(ensemble, bound_coef=0.01, weight_decay=decay_ramp(2))
    while not trainer.is_done:
        trainer.run_epoch()
        losses.append(objective.loss(arrays.holdout_inputs.expand(3, -1, -1), targets).detach())
    taken = [0, 0, 0]  # epoch of each member's snapshot
    best = [float("inf")] * 3
    for epoch, record in enumerate(trainer.history):
        for member, error in enumerate(record.holdout_error):
            if error < best[member] * 0.99:
                best[member], taken[member] = error, epoch
    assert len(set(taken) - {len(losses) - 1}) > 0, (
        "some snapshot must be older than the end for this to bite"
    )
    trainer.restore_best()
    assert objective.holdout_error(arrays).tolist() == pytest.approx(best, rel=1e-6)
    restored = objective.loss(arrays.holdout_inputs.expand(3, -1, -1), targets)
    expected = torch.stack([losses[epoch][member] for member, epoch in enumerate(taken)])
    torch.testing.assert_close(restored, expected)


def test_it_stops_when_no_member_has_improved_for_long(arrays):
    _, trainer = make_trainer(arrays, learning_rate=1e-9, max_updates=1000, patience=3, decay="constant")
    run(trainer)
    assert len(trainer.history) == 4  # the first epoch improves on nothing, three do not improve


def test_it_cools_down_from_its_snapshots_before_it_stops(arrays):
    ensemble, trainer = make_trainer(arrays, learning_rate=0.1, max_updates=100_000, patience=6)
    while trainer.cooldown is None:
        trainer.run_epoch()
    start, stop = trainer.cooldown
    assert start == trainer.updates < 100_000
    assert stop - start == max(10, start // 4)
    assert torch.equal(ensemble.net.flat.detach(), trainer.snapshots[0])
    assert trainer._rate() == pytest.approx(SCHEDULE.rate(0) * 10, rel=1e-3)  # it goes on from where it was
    before = trainer.best.clone()
    trainer.run_epoch()
    resumed, second = make_trainer(arrays, learning_rate=0.1, max_updates=100_000, patience=6)
    second.load_state_dict(trainer.state_dict())
    run(trainer)
    run(second)
    assert trainer.updates == stop
    assert trainer._rate() == pytest.approx(0.0, abs=1e-9)
    assert bool((trainer.best <= before).all())
    assert torch.equal(ensemble.net.flat, resumed.net.flat)


def test_every_pass_shows_each_member_its_own_resample_in_new_order(arrays):
    _, trainer = make_trainer(arrays)
    length = 200 // 16
    batches = list(trainer._batches(0, 2 * length))
    rows = {tuple(row.tolist()): index for index, row in enumerate(arrays.inputs)}

    def seen(member, updates):
        return [rows[tuple(x.tolist())] for inputs, _ in batches[updates] for x in inputs[member]]

    first, second = seen(0, slice(0, length)), seen(0, slice(length, None))
    assert first != second
    counts = torch.bincount(trainer._bootstrap[0], minlength=200)
    drawn = torch.bincount(torch.tensor(first), minlength=200)
    assert bool((drawn <= counts).all())  # rows that fill no batch are missing, none is added
    assert set(seen(1, slice(0, length))) != set(first)


def test_batches_do_not_depend_on_where_an_epoch_begins(arrays):
    _, trainer = make_trainer(arrays)
    whole = list(trainer._batches(0, 30))
    pieces = [*trainer._batches(0, 7), *trainer._batches(7, 25), *trainer._batches(25, 30)]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole, pieces, strict=True))


def test_targets_stay_with_their_inputs(arrays):
    _, trainer = make_trainer(arrays)
    rows = {tuple(row.tolist()): target for row, target in zip(arrays.inputs, arrays.targets, strict=True)}
    for inputs, targets in trainer._batches(0, 3):
        for x, y in zip(inputs.flatten(0, 1), targets.flatten(0, 1), strict=True):
            assert torch.equal(rows[tuple(x.tolist())], y)


def test_a_nan_stops_the_fit_and_names_its_cause(arrays):
    bad = dataclasses.replace(arrays, targets=arrays.targets.clone())
    bad.targets[5] = torch.nan
    _, trainer = make_trainer(bad, bootstrap=False, epoch_updates=13)
    with pytest.raises(NonFiniteError, match="training rows hold NaN"):
        trainer.run_epoch()
    _, trainer = make_trainer(arrays, learning_rate=1e30)
    with pytest.raises(NonFiniteError, match=r"member\(s\) 0, 1, 2 .* step size"):
        trainer.run_epoch()
