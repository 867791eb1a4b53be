import pytest
import torch

from mbrl.dynamics.assessment.measures import evaluate_measures
from mbrl.dynamics.assessment.thresholds import fit_thresholds
from mbrl.uncertainty.density import DensityReference
from mbrl.uncertainty.held_out import HELD_OUT_MEASURES, held_out_measures
from mbrl.uncertainty.measures import MEASURES, POSTERIOR_MEASURES, StepContext
from tests.dynamics.systems import linear_ensemble, make_dataset

from .test_measures import draw_posterior, make_context


def make_measures(context):
    episode = torch.arange(len(context.obs)) // 2
    return held_out_measures(context.obs, context.action, episode, torch.Generator().manual_seed(0))


def test_held_out_measures_are_all_but_the_learners():
    assert set(HELD_OUT_MEASURES) == set(MEASURES.names()) - {"bellman"}
    found = draw_posterior(4)
    context = make_context(found)
    made = make_measures(context)
    assert set(made) == set(HELD_OUT_MEASURES)
    for name in POSTERIOR_MEASURES:
        value = made[name](found, context.obs, context.action, context.outcome, None)
        assert torch.equal(value, MEASURES.get(name)(found))


def test_each_measure_gets_what_it_reads():
    found = draw_posterior(4)
    context = make_context(found)
    made = make_measures(context)
    reference = DensityReference.fit(context.obs, context.action, generator=torch.Generator().manual_seed(0))
    whole = StepContext(obs=context.obs, action=context.action, reference=reference, outcome=context.outcome)
    for name in ("knn", "ll_var"):
        value = made[name](found, context.obs, context.action, context.outcome, None)
        assert torch.equal(value, MEASURES.get(name)(found, whole))
        assert float(value.max()) > 0


def test_one_held_out_row_in_a_hundred_lies_beyond_the_99_percent_quantile():
    """Training rows lie in the reference: as their own neighbours they would pull the quantiles down."""
    train, judging, fresh = (
        make_dataset(episodes=n, steps=60, seed=s).transitions() for s, n in ((6, 60), (7, 5), (8, 100))
    )
    made = held_out_measures(
        *(torch.tensor(a) for a in (train.observation, train.action, train.episode)),
        torch.Generator().manual_seed(0),
    )
    knn = {"knn": made["knn"]}
    model = linear_ensemble()
    generator = torch.Generator().manual_seed(1)
    held_out = evaluate_measures(model, knn, judging, generator)
    fitted = evaluate_measures(model, knn, train, generator, is_training=True)
    quantiles = fit_thresholds(held_out, fitted, quantiles=(0.9, 0.99, 0.999))["knn"]
    values = evaluate_measures(model, knn, fresh, generator)["knn"]
    assert (values > quantiles[0.9]).mean() == pytest.approx(0.1, abs=0.03)
    assert (values > quantiles[0.99]).mean() == pytest.approx(0.01, abs=0.006)
    assert (values > quantiles[0.999]).mean() < 0.004
