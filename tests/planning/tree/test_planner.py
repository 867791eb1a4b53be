"""Laws of every tree planner: rows do not touch, plans add up, actions stay in the box, deadlines hold."""

import dataclasses

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import PLANNERS, Budget, Hints, Planner, PlanResult
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Pessimism, PlanningProblem, StepOut
from tests.planning.tasks import DOUBLE, box_problem, plan, random_tables, states, table_problem

PRICED = Pessimism(penalty_coef=0.7, lcb_coef=0.5, critic_lcb_coef=0.3)


def _discrete() -> tuple[PlanningProblem, Tensor]:
    """Members with their own rewards and successors, critics that differ."""
    tables = [random_tables(seed, states=64) for seed in range(3)]
    following, reward = (torch.stack([table[k] for table in tables]) for k in (0, 1))
    generator = tables[0][2]
    problem = table_problem(
        following,
        reward,
        values=torch.randn(2, 64, generator=generator, dtype=DOUBLE),
        logits=torch.randn(64, 4, generator=generator, dtype=DOUBLE),
        uncertainty=torch.rand(64, 4, generator=generator, dtype=DOUBLE),
        pessimism=PRICED,
    )
    return problem, states(*range(64))


def _continuous() -> tuple[PlanningProblem, Tensor]:
    problem = box_problem(uncertainty_coef=0.5, limit=2.5, pessimism=PRICED)
    return problem, torch.randn(64, 3, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)


KINDS = {
    "gumbel": (_discrete, "gumbel", {"gumbel_scale": 1.0}),
    "gumbel-mctx": (_discrete, "gumbel", {"gumbel_scale": 1.0, "exact": "mctx"}),
    "puct": (_discrete, "puct", {"dirichlet_fraction": 0.25, "temperature": 1.0}),
    "dpw-discrete": (_discrete, "dpw", {"transition": "member_forest"}),
    "dpw": (_continuous, "dpw", {}),
    "sampled-forest": (_continuous, "sampled_gumbel", {"gumbel_scale": 1.0}),
    "sampled-ts1": (_continuous, "sampled_gumbel", {"transition": "ts1"}),
    "sampled-ts_inf": (_continuous, "sampled_gumbel", {"transition": "ts_inf", "particles": 5}),
    "sampled-mean": (_continuous, "sampled_gumbel", {"transition": "mean"}),
    "sampled-max": (_continuous, "sampled_gumbel", {"node_value": "max"}),
    "dpw-max": (_continuous, "dpw", {"node_value": "max"}),
}
FIELDS = [
    field.name
    for field in dataclasses.fields(PlanResult)
    if field.name not in ("stats", "tree", "plan", "elites")
]


def _assert_rows_equal(one: PlanResult, many: PlanResult, rows: Tensor) -> None:
    for name in FIELDS:
        mine, theirs = getattr(one, name), getattr(many, name)[rows]
        if mine.is_floating_point():
            assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-11, equal_nan=True), name
        else:
            assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_64_is_64_plans_and_order_does_not_matter(kind: str):
    make, name, settings = KINDS[kind]
    problem, obs = make()
    noise = RowNoise(torch.arange(64) * 7919)
    together = plan(name, problem, obs, sims=9, noise=noise, **settings)
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    permuted = plan(name, problem, obs[shuffled], sims=9, noise=noise.rows(shuffled), **settings)
    _assert_rows_equal(permuted, together, shuffled)
    for row in range(0, 64, 5):
        one = slice(row, row + 1)
        alone = plan(name, problem, obs[one], sims=9, noise=noise.rows(one), **settings)
        _assert_rows_equal(alone, together, torch.tensor([row]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sims", [1, 2, 40])
def test_plans_add_up_and_keep_their_promises(kind: str, sims: int):
    make, name, settings = KINDS[kind]
    problem, obs = make()
    result = plan(name, problem, obs, sims=sims, **settings)
    again = plan(name, problem, obs, sims=sims, **settings)
    _assert_rows_equal(again, result, torch.arange(64))
    total = result.reward_part - result.penalty_part + result.bootstrap_part
    assert torch.allclose(result.value, total, rtol=1e-5)
    assert torch.allclose(result.weights.sum(-1), torch.ones(64, dtype=DOUBLE))
    assert (result.visits.sum(-1) == sims).all()
    assert (result.value_lcb <= result.value + 1e-12).all()
    assert (result.action.abs() <= 1.0).all()
    assert torch.equal(result.plan[:, 0], result.action)
    slot = (result.candidates - result.action[:, None]).abs().amax(-1).argmin(-1)
    assert (result.visits.gather(1, slot[:, None]) > 0).all()
    assert not result.stats.is_fallback.any()
    assert result.stats.sims == sims
    assert (result.plan_length >= 1).all()
    assert int(result.plan_length.max()) <= result.stats.max_depth


def test_other_seeds_are_other_noise():
    problem, obs = _continuous()
    one, other = (plan("sampled_gumbel", problem, obs[:4], seed=seed) for seed in (0, 1))
    assert not torch.equal(one.candidates, other.candidates)


def test_weights_can_be_targets_of_a_loss():
    problem, obs = _discrete()
    result = plan("gumbel", problem, obs)
    logits = torch.zeros(64, 4, dtype=DOUBLE, requires_grad=True)
    (-(result.weights * logits.log_softmax(-1)).sum(-1) * result.value.abs()).mean().backward()
    assert logits.grad is not None


def test_the_model_sees_only_actions_within_the_box():
    problem = box_problem(deviation=3.0)
    obs = torch.randn(16, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    hints = Hints(candidates=torch.full((16, 1, 2), 5.0, dtype=DOUBLE))
    for name in ("sampled_gumbel", "dpw"):
        result = plan(name, problem, obs, hints=hints)
        assert torch.cat(problem.step.actions).abs().amax() <= 1.0
        assert result.stats.clipped > 16


@dataclasses.dataclass
class _Broken:
    """NaN or infinity where the first action is high."""

    inner: object
    limit: float
    ensemble_size: int = 3

    def __call__(self, obs, action, *, member=None, noise=None) -> StepOut:
        out = self.inner(obs, action, member=member, noise=noise)
        bad = (action[:, 0] > self.limit).expand(out.reward.shape)
        after = out.next_observation.masked_fill(bad[..., None], torch.nan)
        return StepOut(after, out.reward.masked_fill(bad, torch.inf), out.terminated, out.uncertainty)


@pytest.mark.parametrize("name", ["sampled_gumbel", "dpw"])
@pytest.mark.parametrize("transition", ["mean", "ts1", "ts_inf", "member_forest"])
def test_what_the_model_does_not_answer_in_numbers_is_left_out_and_counted(name: str, transition: str):
    problem, obs = _continuous()
    broken = dataclasses.replace(problem, step=_Broken(problem.step, 0.1))
    result = plan(name, broken, obs, sims=40, transition=transition)
    assert result.stats.bad_rows > 0
    fine = ~result.stats.is_fallback
    assert fine.sum() > 32
    assert (result.action[fine, 0] <= 0.1).all()
    assert result.value.isfinite().all()
    assert result.weights.isfinite().all()
    nothing = plan(name, dataclasses.replace(problem, step=_Broken(problem.step, -2.0)), obs, sims=8)
    assert nothing.stats.is_fallback.all()
    assert torch.equal(nothing.action, problem.prior.act(obs).clamp(-1, 1))
    assert torch.equal(nothing.value, problem.leaf_value(obs))


def test_one_step_and_discount_1_are_no_special_cases():
    problem, obs = _discrete()
    problem = dataclasses.replace(problem, discount=1.0)
    for name in ("gumbel", "puct", "dpw"):
        result = plan(name, problem, obs, max_depth=1)
        assert result.stats.max_depth == 1
        assert (result.plan_length == 1).all()
        assert result.value.isfinite().all()


@pytest.mark.parametrize("name", ["gumbel", "sampled_gumbel", "puct", "dpw"])
def test_bad_input_is_refused_by_row(name: str):
    problem, obs = (_continuous if name == "sampled_gumbel" else _discrete)()
    width = problem.prior.act_dim
    bad = obs[:3].clone()
    bad[1] = torch.nan
    with pytest.raises(ValueError, match="row 1"):
        plan(name, problem, bad)
    with pytest.raises(ValueError, match=r"observations are \[b"):
        plan(name, problem, obs.repeat(1, 2))
    mask = torch.ones(3, width, dtype=torch.bool)
    mask[2] = False
    with pytest.raises(ValueError, match="row 2" if problem.prior.is_discrete else "discrete"):
        plan(name, problem, obs[:3], hints=Hints(mask=mask))
    with pytest.raises(ValueError, match="candidates"):
        plan(name, problem, obs[:3], hints=Hints(candidates=torch.zeros(3, 0, width)))
    with pytest.raises(ValueError, match="streams"):
        plan(name, problem, obs[:3], noise=RowNoise(torch.arange(2)))
    with pytest.raises(ValueError, match="clock"):
        plan(name, problem, obs[:3], budget=Budget(milliseconds=5.0))
    assert isinstance(PLANNERS.get(name).build(problem, PLANNERS.get(name).config(), None), Planner)


def test_planners_refuse_actions_that_they_cannot_plan():
    for name, problem in (
        ("gumbel", _continuous()[0]),
        ("puct", _continuous()[0]),
        ("sampled_gumbel", _discrete()[0]),
    ):
        with pytest.raises(ValueError, match="plans"):
            plan(name, problem, torch.zeros(1, problem.obs_dim))


@dataclasses.dataclass
class _Timed:
    """A model whose calls take time on its own clock."""

    inner: object
    seconds: float = 0.005
    now: float = 0.0
    ensemble_size: int = 3

    def __call__(self, obs, action, *, member=None, noise=None) -> StepOut:
        self.now += self.seconds
        return self.inner(obs, action, member=member, noise=noise)


def test_a_deadline_is_kept_and_what_fits_is_learned():
    problem, obs = box_problem(deviation=0.02), _continuous()[1] / 4.0
    step = _Timed(problem.step)
    entry = PLANNERS.get("sampled_gumbel")
    config = entry.config(merge_distance=0.0)
    planner = entry.build(dataclasses.replace(problem, step=step), config, lambda: step.now)
    noise = RowNoise(torch.arange(64))

    def think(**limits: float) -> PlanResult:
        return planner.plan(obs, budget=Budget(**limits), noise=noise)

    first = think(milliseconds=18.0)  # nothing known: 32, of whose 4 rounds 3 fit
    assert (first.stats.sims, first.stats.rounds, first.stats.is_deadline_hit) == (28, 3, True)
    assert first.stats.milliseconds == pytest.approx(15.0)
    second = think(milliseconds=18.0)  # 4 rounds of 5 ms do not fit, one does
    assert (second.stats.sims, second.stats.is_deadline_hit) == (16, False)
    third = think(milliseconds=3.0)
    assert third.stats.is_fallback.all()
    assert third.stats.model_rows == 0
    assert torch.equal(third.action, problem.prior.act(obs))
    assert think(milliseconds=50.0, sims=8).stats.sims == 8
    assert think(milliseconds=1000.0).stats.sims == 128
    assert first.visits.sum(-1).unique().tolist() == [28]


def test_one_slow_round_does_not_stop_planning_for_good():
    problem, obs = box_problem(deviation=0.02), _continuous()[1][:1] / 4.0
    step = _Timed(problem.step, seconds=0.020)
    entry = PLANNERS.get("sampled_gumbel")
    planner = entry.build(dataclasses.replace(problem, step=step), entry.config(), lambda: step.now)

    def is_policy() -> bool:
        result = planner.plan(obs, budget=Budget(milliseconds=20.0), noise=RowNoise(torch.arange(1)))
        return bool(result.stats.is_fallback.all())

    assert not is_policy()
    step.seconds, waited = 0.001, 0
    while is_policy():
        waited += 1
    assert waited == 12  # 1.3 * 20 * 0.98^13 < 20; the first call refused one more round
