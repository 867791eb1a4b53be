import torch

from mbrl.uncertainty.density import DensityReference
from mbrl.uncertainty.held_out import HELD_OUT_MEASURES, held_out_measures
from mbrl.uncertainty.measures import MEASURES, POSTERIOR_MEASURES, StepContext

from .test_measures import draw_posterior, make_context


def test_held_out_measures_are_all_but_the_learners():
    assert set(HELD_OUT_MEASURES) == set(MEASURES.names()) - {"bellman"}
    found = draw_posterior(4)
    context = make_context(found)
    made = held_out_measures(context.obs, context.action, torch.Generator().manual_seed(0))
    assert set(made) == set(HELD_OUT_MEASURES)
    for name in POSTERIOR_MEASURES:
        value = made[name](found, context.obs, context.action, context.outcome)
        assert torch.equal(value, MEASURES.get(name)(found))


def test_each_measure_gets_what_it_reads():
    found = draw_posterior(4)
    context = make_context(found)
    made = held_out_measures(context.obs, context.action, torch.Generator().manual_seed(0))
    reference = DensityReference.fit(context.obs, context.action, generator=torch.Generator().manual_seed(0))
    whole = StepContext(obs=context.obs, action=context.action, reference=reference, outcome=context.outcome)
    for name in ("knn", "ll_var"):
        value = made[name](found, context.obs, context.action, context.outcome)
        assert torch.equal(value, MEASURES.get(name)(found, whole))
        assert float(value.max()) > 0
