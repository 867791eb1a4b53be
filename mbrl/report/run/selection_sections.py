"""Which of the policies along a training was taken, and why; judged values and the own model beside."""

from collections.abc import Mapping, Sequence
from typing import Any

from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.message import Message
from mbrl.report.kit.plots import Line, Mark, draw_lines
from mbrl.report.kit.table import Cell, Table, format_cell
from mbrl.report.kit.wording import format_number


def selection_section(
    selection: Mapping[str, Any] | None, exploitation: Mapping[str, Any] | None = None
) -> Section:
    """The choice among the policies of one training.

    Args:
        selection: as its summary holds it (`mbrl.run.judge.selection.Selection`); None where the last policy
            is the result.
        exploitation: what the model says that trained them (`Exploitation`), or None.
    """
    if selection is None:
        text = "The result is the policy of the last update; nothing was selected (select: last)."
        return Section("Selection", text=text)
    tones = [Message(text, "plain") for text in selection_lines(selection)]
    warnings = [Message(text, "caution") for text in selection_warnings(selection, exploitation)]
    return Section(
        "Selection",
        messages=[*tones, *warnings],
        pictures=[_picture(selection, exploitation)],
        tables=[selection_table(selection, exploitation)],
    )


def selection_lines(selection: Mapping[str, Any]) -> list[str]:
    """What was asked, what was taken and why, and what it is worth by evidence that did not take it."""
    contestants, facts = selection["contestants"], selection["facts"]
    chosen, last = contestants[selection["chosen"]], contestants[-1]
    lines: list[str] = []
    if facts is not None:
        judges, kind = facts["judges"], facts["draws"]
        ends = {"task": "the task's rule", "learned": "the learned head", "never": "nothing"}
        lines.append(
            f"Asked: {facts['question']}; {facts['horizon']:,} steps are {facts['horizon_source']}. "
            f"{len(judges)} judges of {', '.join(str(judge['members']) for judge in judges)} members, "
            f"{facts['starts']} logged first states ({facts['held_out_starts']} of held-out episodes), "
            f"{'mean predictions' if kind == 'mean' else 'draws'}, ended by {ends[facts['termination']]}."
        )
        if facts["backtest"] is not None:
            lines.append(str(facts["backtest"]["words"]))
    what = ", ".join(f"{key} {format_cell(value)}" for key, value in chosen["changes"].items())
    lines.append(
        f"Taken: {what}, whose lower bound {format_number(chosen['low'])} is the best of {len(contestants)} "
        f"(the last has {format_number(last['low'])})."
    )
    if selection["honest"] is not None:
        honest = selection["honest"]
        lines.append(
            f"By evidence that had no say in it: {format_number(honest['mean'])} "
            f"[{format_number(honest['low'])}, {format_number(honest['high'])}]. What selected says "
            f"{format_number(chosen['point'])}: a maximum of noisy estimates is too high."
        )
    return lines


def selection_warnings(selection: Mapping[str, Any], exploitation: Mapping[str, Any] | None) -> list[str]:
    """Judges that had not settled, an untrustworthy pick, and models that are exploited."""
    chosen = selection["contestants"][selection["chosen"]]
    facts: Mapping[str, Any] = selection["facts"] or {}
    found = [str(text) for text in facts.get("warnings", [])]
    if chosen["problem"] is not None:
        found.append(f"The estimate of what was taken is not to be trusted: {chosen['problem']}.")
    return [*found, *map(str, (exploitation or {}).get("warnings", []))]


def selection_table(selection: Mapping[str, Any], exploitation: Mapping[str, Any] | None = None) -> Table:
    """Every candidate with its judged value."""
    own: Sequence[Any] = (exploitation or {}).get("own", [])
    names = list(selection["contestants"][0]["changes"])
    rows: list[list[Cell]] = []
    for index, one in enumerate(selection["contestants"]):
        judged = one["judged"]
        cells: list[Cell] = [one["changes"][name] for name in names]
        cells += [one["point"], one["low"]]
        if judged is not None:
            cells += [judged["member_spread"], ", ".join(map(format_number, judged["by_judge"]))]
        if own:
            cells.append(own[index])
        rows.append([*cells, "taken" if index == selection["chosen"] else ""])
    columns = [*names, "estimate", "lower bound"]
    if selection["contestants"][0]["judged"] is not None:
        columns += ["spread of members", "by judge"]
    columns += ["own model"] if own else []
    return Table("Policies that might have been taken", [*columns, ""], rows)


def _picture(selection: Mapping[str, Any], exploitation: Mapping[str, Any] | None) -> Picture:
    contestants = selection["contestants"]
    x: list[float] = [float(next(iter(one["changes"].values()))) for one in contestants]
    point = [_number(one["point"]) for one in contestants]
    low = [_number(one["low"]) for one in contestants]
    lines = [Line("judges, down to the lower bound", x, point, low=low, high=point)]
    own: Sequence[Any] = (exploitation or {}).get("own", [])
    if own:
        lines.append(Line("the model that trained it", x, [_number(value) for value in own]))
    taken = x[int(selection["chosen"])]
    return Picture(
        "selection",
        "Judged value along the training",
        draw_lines(lines, x_label="updates", y_label="return", upright=[Mark("taken", taken)]),
        alt=f"Judged return against updates; the policy after {taken:,.0f} is taken.",
        note="Where the own model promises more than the judges, the policy exploits it.",
    )


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
