"""What other thresholds of the verdict would have done to the policies of a benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from mbrl.ope.judgement.rule import DEFAULT_RULE, JudgeRule
from mbrl.ope.judgement.verdict import judge
from mbrl.ops.shares import wilson_interval
from mbrl.report.kit.table import Cell, Table

SHIPPED: Final = "as shipped"

_CHANGES: Final[Sequence[Mapping[str, Any]]] = (
    {"most_support_share": 0.05},
    {"most_support_share": 0.2},
    {"most_model_disagreement": 0.05},
    {"most_model_disagreement": 0.2},
    {"most_disagreement": 1.0},
    {"most_disagreement": 4.0},
    {"most_backtest_z": 1.0},
    {"least_ess": 10.0},
    {"allow_go_without_ratio": True},
)

RULES: Final[Mapping[str, JudgeRule]] = {
    SHIPPED: DEFAULT_RULE,
    **{
        " ".join(f"{name} {value}".lower() for name, value in change.items()): DEFAULT_RULE.model_copy(
            update=change
        )
        for change in _CHANGES
    },
}
"""One threshold changed at a time. Validity that estimates carry themselves, such as a fit's drift, stays."""

_KINDS: Final[Sequence[tuple[str, tuple[str, ...]]]] = (
    ("GO", ("go",)),
    ("or guard", ("go", "go_with_guard")),
    ("NO-GO", ("no_go",)),
)


def verdicts_by_rule(report: Mapping[str, Any]) -> dict[str, str]:
    """The verdict of a report under each of `RULES`."""
    return {label: judge(report, rule).verdict for label, rule in RULES.items()}


def rule_table(judged: Sequence[tuple[Mapping[str, str], bool]]) -> Table:
    """Shares of the truly better and the truly worse policies that got a verdict, by thresholds.

    Beside each share that should be small stands the upper end of its 95 % interval (Wilson).

    Args:
        judged: of each policy its verdicts (`verdicts_by_rule`), and whether it is truly better.
    """
    columns = ["thresholds"]
    for kind, _ in _KINDS:
        right, wrong = ("worse", "better") if kind == "NO-GO" else ("better", "worse")
        columns += [f"{kind}, {right}", f"{kind}, {wrong}"]
    rows = [(label, *_shares(judged, label)) for label in RULES]
    return Table("Right and wrong verdicts, had one threshold been another", tuple(columns), rows)


def _shares(judged: Sequence[tuple[Mapping[str, str], bool]], label: str) -> Iterator[Cell]:
    better, worse = (
        [verdicts[label] for verdicts, is_better in judged if is_better == wanted and label in verdicts]
        for wanted in (True, False)
    )
    for kind, wanted in _KINDS:
        right, wrong = (worse, better) if kind == "NO-GO" else (better, worse)
        yield _share(right, wanted)
        yield _share(wrong, wanted, with_limit=True)


def _share(verdicts: Sequence[str], wanted: Sequence[str], *, with_limit: bool = False) -> str:
    if not verdicts:
        return "-"
    share = sum(verdict in wanted for verdict in verdicts) / len(verdicts)
    limit = f" (<= {100 * wilson_interval(share, float(len(verdicts)))[1]:.1f})" if with_limit else ""
    return f"{100 * share:.1f} %{limit}"
