import dataclasses
import math

import numpy as np
import pytest

from mbrl.core.errors import EstimandMismatchError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.off_policy.judgement.blend import BlendConfig, blend_estimates, blend_primaries

ESTIMAND = Estimand(0.9, horizon=5)
MANY = BlendConfig(resamples=20_000)


def part(name: str, values: np.ndarray, **changes: object) -> Estimate:
    se = float(values.std(ddof=1)) / math.sqrt(values.size)
    point = float(values.mean())
    estimate = Estimate(
        name, "value", point=point, se=se, ci95=(point - 2 * se, point + 2 * se), method_of_ci="t",
        n_eff=float(values.size), estimand=ESTIMAND, per_episode=values,
    )  # fmt: skip
    return dataclasses.replace(estimate, **changes)


def uncorrelated(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Two samples with means 1, standard deviations 1 and 2, and an empirical correlation of exactly 0."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(n, 2))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / n)).T
    return 1 + white[:, 0], 1 + 2 * white[:, 1]


def test_independent_unbiased_parts_get_inverse_variance_weights():
    one, other = uncorrelated()
    blend = blend_estimates([part("a", one), part("b", other)], anchor="a", config=MANY)
    np.testing.assert_allclose(blend.details["weights"], [0.8, 0.2], atol=0.02)
    assert blend.point == pytest.approx(1.0)
    assert blend.se == pytest.approx(math.sqrt(0.8**2 + 0.2**2 * 4) / 20, rel=0.03)
    assert blend.per_episode.mean() == pytest.approx(blend.point)
    assert (blend.name, blend.details["parts"]) == ("blend", ["a", "b"])


def test_what_an_ensemble_leaves_open_counts_as_error():
    one, other = uncorrelated()
    open_part = part("a", one, details={"epistemic_se": math.sqrt(4 - 1) / 20})  # both have variance 4 / 400
    blend = blend_estimates([open_part, part("b", other)], anchor="b", config=MANY)
    np.testing.assert_allclose(blend.details["weights"], [0.5, 0.5], atol=0.02)


def test_a_part_far_from_the_anchor_loses_its_weight():
    one, other = uncorrelated()
    far = part("a", one + 50.0)  # 50 standard deviations of an episode beyond the interval of b
    blend = blend_estimates([far, part("b", other)], anchor="b")
    assert blend.details["weights"][0] < 1e-4
    assert blend.details["bias"][0] == pytest.approx(50.0, abs=0.3)


def test_weights_stay_on_the_simplex_where_a_negative_one_would_have_less_error():
    one, _ = uncorrelated()
    blend = blend_estimates([part("a", one), part("b", 1 + 3 * (one - 1))], anchor="a")
    np.testing.assert_allclose(blend.details["weights"], [1.0, 0.0], atol=1e-9)


def test_only_valid_primaries_are_blended_and_ratios_only_with_enough_episodes():
    one, other = uncorrelated()
    value, model = part("fqe", one), part("model_value", other, family="model")
    ratio = part("pdwis", other, family="ratio", n_eff=29.0)
    known = {"fqe": value, "model_value": model, "pdwis": ratio, "dm": part("dm", one)}
    blend = blend_primaries(known, least_ess=30.0)
    assert blend is not None
    assert blend.details["parts"] == ["fqe", "model_value"]
    enough = blend_primaries({**known, "pdwis": dataclasses.replace(ratio, n_eff=30.0)}, least_ess=30.0)
    assert enough is not None
    assert enough.details["parts"] == ["pdwis", "fqe", "model_value"]
    assert blend.valid
    alone = {name: one for name, one in known.items() if name != "model_value"}
    assert blend_primaries(alone, least_ess=30.0) is None  # few effective episodes are no part at all


def test_a_blend_of_parts_that_do_not_count_ranks_but_does_not_count():
    one, other = uncorrelated()
    value, model = part("fqe", one).invalidated("it moved"), part("model_value", other, family="model")
    blend = blend_primaries({"fqe": value, "model_value": model}, least_ess=30.0)
    assert blend is not None
    assert (blend.details["parts"], blend.valid) == (["fqe", "model_value"], False)
    assert blend.flags == ("invalid_parts",)
    assert "not fqe" in (blend.why_not or "")
    whole = blend_primaries({"fqe": part("fqe", one), "model_value": model}, least_ess=30.0)
    assert whole is not None
    assert blend.point == whole.point
    ratio = part("pdwis", other, family="ratio")
    two = blend_primaries({"fqe": value, "model_value": model, "pdwis": ratio}, least_ess=30.0)
    assert two is not None
    assert (two.details["parts"], two.valid) == (
        ["pdwis", "model_value"],
        True,
    )  # the invalid one is left out


def test_a_part_that_knows_some_episodes_is_blended_on_these():
    one, other = uncorrelated()
    starts = np.arange(0, 400, 2)
    whole = part("fqe", one)
    some = part("model_value", other[starts], family="model", details={"starts": starts})
    blend = blend_primaries({"fqe": whole, "model_value": some}, least_ess=30.0)
    assert blend is not None
    assert blend.per_episode is not None
    weights = blend.details["weights"]
    assert blend.point == pytest.approx(weights @ [whole.point, some.point])
    np.testing.assert_allclose(blend.per_episode, np.stack([one[starts], other[starts]], 1) @ weights)


def test_parts_that_cannot_be_blended_are_refused():
    one, other = uncorrelated()
    with pytest.raises(EstimandMismatchError, match="different quantities"):
        blend_estimates([part("a", one), part("b", other, estimand=Estimand(0.8))], anchor="a")
    with pytest.raises(ValueError, match="different episodes"):
        blend_estimates([part("a", one), part("b", other[:-1])], anchor="a")
    with pytest.raises(ValueError, match="no values by episode"):
        blend_estimates([part("a", one, per_episode=None)], anchor="a")
    with pytest.raises(ValueError, match="no part with an interval"):
        blend_estimates([part("a", one)], anchor="c")
    nothing = part("a", one, point=math.nan, valid=False, why_not="none")
    with pytest.raises(ValueError, match="without a point: a"):
        blend_estimates([nothing], anchor="a")
    with pytest.raises(ValueError, match="nothing to blend"):
        blend_estimates([], anchor="a")
