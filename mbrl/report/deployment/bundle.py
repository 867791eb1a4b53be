"""Bundles for robots in words and tables."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mbrl.deploy.contract import Contract
from mbrl.deploy.replay import CheckedBundle, Replay
from mbrl.report.kit.table import Cell, Table

BUDGET_MS: Final = 1.0
"""Milliseconds of a step, 99th percentile, beyond which a check says so."""

_OTHER: Final = 1.2
"""Surprise in units of that of the training's log, beyond which (its whole interval) a check says so."""

_FAR: Final = 0.1
"""Share of logged steps on which the policy's own action raises an alarm, beyond which an export says so."""


def bundle_table(contract: Contract) -> Table:
    """How a bundle was tested."""
    parity, guard, verdict = contract.parity, contract.guard, contract.verdict
    rows: list[tuple[str, Cell]] = [
        (parity_name(contract), f"{parity.policy:.2e} on {parity.rows:,} rows"),
        ("history, frames", contract.observation.history),
        ("steps per second", contract.rate),
        ("fallback", contract.runtime.fallback),
        ("verdict", None if verdict is None else verdict.verdict),
    ]
    if guard is not None:
        rate = guard.rate
        interval = f"{100 * rate.estimate:.2f} % ({100 * rate.low:.2f} to {100 * rate.high:.2f})"
        rows += [
            ("false alarms of the guard", interval),
            ("alarms with the policy's action", f"{100 * guard.policy_alarms:.2f} %"),
        ]
    return Table("bundle", ("", "value"), rows)


def parity_name(contract: Contract) -> str:
    """What the parity of a policy is measured in."""
    unit = "of half the range" if contract.action.choices is None else "of a probability"
    return f"parity of the policy ({unit})"


def bundle_warnings(contract: Contract) -> list[str]:
    """What speaks against using a bundle as it is."""
    found: list[str] = []
    guard, verdict = contract.guard, contract.verdict
    if guard is None:
        found.append("There is no guard: nothing notices that the policy leaves its data.")
    elif guard.policy_alarms > _FAR:
        found.append(
            "The policy leaves its data: its own action raises an alarm in "
            f"{100 * guard.policy_alarms:.0f} % of logged states. Its fallback will act that often."
        )
    if guard is not None and not guard.rate.low <= guard.rate.asked <= guard.rate.high:
        found.append(
            f"The rate of false alarms is not the one that was asked for ({100 * guard.rate.asked:g} %): the "
            "episodes of the log differ too much from one another."
        )
    if verdict is None:
        found.append("Nobody has asked mbrl ope what the log says of this policy.")
    elif verdict.verdict in ("no_go", "cannot_tell"):
        found.append(f"mbrl ope says {verdict.verdict}: {'; '.join(verdict.reasons[:2])}.")
    return found


def check_values(checked: CheckedBundle) -> dict[str, Any]:
    """Plain values of a check."""
    found, contract = checked.replay, checked.contract
    low, high = (np.array([getattr(c, k) for c in contract.action.channels]) for k in ("low", "high"))
    difference = np.sqrt(np.nanmean(np.square((found.proposed - found.logged) / ((high - low) / 2)), axis=0))
    names = contract.action_names
    return {
        "steps": len(found),
        "episodes": len(np.unique(found.episode)),
        "alarm_rate": float(found.alarm.mean()),
        "logged_alarm_rate": checked.logged_alarm_rate,
        "surprise_ratio": checked.surprise_ratio,
        "interventions": found.interventions,
        "longest_intervention": found.longest,
        "sources": found.source,
        "reasons": found.reasons,
        "milliseconds": {f"p{q}": float(np.percentile(found.milliseconds, q)) for q in (50, 99)},
        "choices": None if contract.action.choices is None else _choices(found, contract.action.choices),
        "saturation": dict(zip(names, map(float, found.saturation(contract)), strict=True)),
        "difference_to_log": dict(zip(names, map(float, difference), strict=True)),
    }


def check_tables(checked: CheckedBundle) -> Sequence[Table]:
    """The same for people."""
    values = check_values(checked)
    steps = values["steps"]
    rows: list[tuple[str, Cell]] = [
        ("steps", steps),
        ("episodes", values["episodes"]),
        ("alarms with the policy's action", _share(values["alarm_rate"])),
        ("alarms with the logged action", _share(values["logged_alarm_rate"])),
        ("surprise, times that of the training's log", _ratio(values["surprise_ratio"])),
        ("times that the guard took over", values["interventions"]),
        ("longest of them, steps", values["longest_intervention"]),
        ("a step, p50, ms", round(values["milliseconds"]["p50"], 3)),
        ("a step, p99, ms", round(values["milliseconds"]["p99"], 3)),
    ]
    tables = [Table("replay", ("", "value"), rows)]
    acted = [(name, count, _share(count / steps)) for name, count in sorted(values["sources"].items())]
    tables.append(Table("who would have acted", ("source", "steps", "share"), acted))
    if values["reasons"]:
        why = [(name, count, _share(count / steps)) for name, count in sorted(values["reasons"].items())]
        tables.append(Table("why not the policy", ("reason", "steps", "share"), why))
    if values["choices"] is not None:
        shares = [(name, _share(p), _share(q)) for name, (p, q) in values["choices"]["shares"].items()]
        agreed = _share(values["choices"]["agreement"])
        return [
            *tables,
            Table(f"choices, the logged one in {agreed}", ("choice", "proposed", "logged"), shares),
        ]
    channels = [
        (name, _share(values["saturation"][name]), values["difference_to_log"][name])
        for name in checked.contract.action_names
    ]
    heads = ("channel", "at a limit", "RMS difference to the log, of half the range")
    tables.append(Table("actions", heads, channels))
    return tables


def check_messages(checked: CheckedBundle) -> list[str]:
    """What follows from a check."""
    found: list[str] = []
    values, guard = check_values(checked), checked.contract.guard
    if values["milliseconds"]["p99"] > BUDGET_MS:
        found.append(f"A step takes longer than {BUDGET_MS:g} ms now and then (p99).")
    ratio = values["surprise_ratio"]
    if ratio is not None and ratio[1] > _OTHER:
        found.append(
            f"Steps surprise {_ratio(ratio)} times as much as those of the training's log: the machine "
            "answers otherwise (payload, wear, delay), though single steps may not show it."
        )
    logged = values["logged_alarm_rate"]
    if guard is not None and logged is not None and logged > max(2 * guard.rate.high, 2 * guard.rate.asked):
        found.append(
            f"The log is not like the one of the training: alarms on {100 * logged:.1f} % of its steps, "
            f"where {100 * guard.rate.asked:g} % were asked for."
        )
    return found


def _choices(found: Replay, names: Sequence[str]) -> dict[str, Any]:
    """Share of the steps in which each choice was proposed, and logged; share in which both are one."""
    known = np.isfinite(found.proposed).all(1)
    proposed, logged = found.proposed[known].argmax(1), found.logged[known].argmax(1)
    shares = {
        name: (float((proposed == k).mean()), float((logged == k).mean())) for k, name in enumerate(names)
    }
    return {"shares": shares, "agreement": float((proposed == logged).mean())}


def _ratio(values: tuple[float, float, float] | None) -> str | None:
    return None if values is None else f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.2f} %"
