"""What the flags of estimates mean, in words."""

from collections.abc import Mapping
from typing import Any, Final

from mbrl.report.kit.table import Cell, Table

FLAGS: Final[Mapping[str, str]] = {
    "all_weights_zero": "no logged episode could have come from the policy",
    "backtest_inconclusive": "the family could not be asked for the behaviour's known value",
    "bandwidth_sensitive": "half or twice the kernel's width gives an answer outside of the interval",
    "behaviour_fitted": "the density of the policy that acted was fitted, and may be wrong",
    "behaviour_miscalibrated": "the density of the policy that acted does not fit these ratios",
    "bootstrapped_tail": "more than a tenth of it is a fitted value of what the log does not show",
    "both_end_flags": "some episodes are marked terminated and truncated; they count as terminated",
    "boundary_actions": "many logged actions lie at a bound, where a density hides probability",
    "diverged": "the values grew without bound",
    "dominated": "one episode carries more than a tenth of the weight",
    "exploitation_alarm": "the model promises more than fitted values, or leaves the data too often",
    "fails_backtest": "asked for the behaviour's known value, it misses it",
    "heavy_tail": "the weights have too heavy a tail for any mean of them",
    "huber": "the loss does not estimate a mean",
    "leaves_the_data": "the members of the model disagree beyond the data too often",
    "low_ess": "too few episodes carry the weight",
    "model_of_other_data": "the model was fitted to another log",
    "no_crossfit": "the values were fitted to the episodes that they correct (dr, wdr, magic: --crossfit)",
    "no_interval": "no interval can be made of it",
    "no_epistemic": "one member has no spread",
    "not_converged": "the value still moved at the end of its fit (raise --updates)",
    "tail_left_out": "what follows the last imagined step is missing",
    "parts_in_doubt": "fewer than two of the estimates that it blends count themselves",
    "targets_clipped": "many targets of the value fit lay outside of what the logged rewards permit",
    "too_few_updates": "the value fit cannot have crossed the horizon (raise --updates)",
    "unbalanced": "no weights on the log match the visits of the policy",
    "unbalanced_value": "the weights on the log miss what the fitted value shows",
    "unreliable_tail": "roll-outs end in a fitted value that does not count itself",
    "untested_weights": "the fitted value that tests the weights had too few updates",
    "values_in_doubt": "it rests on fitted values that do not count themselves",
    "weights_overflow": "the weights are too large for a number",
}


def flag_table(report: Mapping[str, Any]) -> Table:
    """Which flags the estimates of a report carry, and what they mean."""
    carriers: dict[str, list[str]] = {}
    for estimate in report["estimates"]:
        for flag in estimate["flags"]:
            carriers.setdefault(flag, []).append(estimate["name"])
    rows: list[list[Cell]] = [
        [flag, ", ".join(names), FLAGS.get(flag, "")] for flag, names in sorted(carriers.items())
    ]
    return Table(f"Flags of {report['candidate']}", ("flag", "estimators", "meaning"), rows)
