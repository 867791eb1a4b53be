"""The page of a bundle for people: what it is, how it was tested, and what nobody tested."""

from collections.abc import Iterator
from typing import Final

from mbrl.deploy.contract import Contract, GuardPart, VerdictPart

_VERDICTS: Final = {
    "go": "GO",
    "go_with_guard": "GO WITH GUARD",
    "no_go": "NO-GO",
    "cannot_tell": "CANNOT TELL",
}

_USE: Final = """
## Use

```python
from runtime import Controller  # this folder's runtime.py: NumPy and onnxruntime

with Controller("this folder", log="run.csv") as controller:
    action = controller.act(observation)
```
"""

_USE_OF_CHOICES: Final = """
## Use

```python
from runtime import Controller  # this folder's runtime.py: NumPy and onnxruntime

with Controller("this folder", log="run.csv") as controller:
    choice = controller.act(observation)  # its id, as in the table of choices below
    choice = controller.act(observation, mask=allowed)  # 1 for what is allowed, 0 for what is not
```
"""

_UNTESTED: Final = """
## Not checked

- That the machine is the one of the log: the guard notices what it can see in states, actions and steps, and
  misses a share that nobody knows beforehand.
- Slow changes (wear, temperature) that stay within what single steps of the log show.
- What an emergency stop, a watchdog and the limits of the drives must do: they stay where they are.
- Anything that the channels do not show: people, obstacles, cables.
"""


def model_card(contract: Contract) -> str:
    """Markdown."""
    policy = contract.policy
    lines = [
        f"# {policy.get('algorithm') or 'policy'} for {contract.log.name}",
        "",
        f"{'Draws its actions' if contract.stochastic else 'Deterministic'}; {_rate(contract)}; made by mbrl "
        f"{contract.versions.get('mbrl-offline', '?')} from {contract.log.transitions:,} logged steps in "
        f"{contract.log.episodes:,} episodes (content {contract.log.content_hash}), seed "
        f"{policy.get('seed')}.",
        *([f"Source of the log: {contract.log.source}."] if contract.log.source else []),
        (_USE if contract.action.choices is None else _USE_OF_CHOICES).rstrip(),
        "",
        "## Channels",
        "",
        f"An observation is one frame; the runtime keeps {contract.observation.history}.",
        "",
        *_channels(contract),
        "",
        "## Checked",
        "",
        *_parity(contract),
        *_guard(contract.guard),
        *_runtime(contract),
        "",
        "## Verdict",
        "",
        *_verdict(contract.verdict),
        _UNTESTED.rstrip(),
    ]
    return "\n".join(lines) + "\n"


def _rate(contract: Contract) -> str:
    return "rate unknown" if contract.rate is None else f"{contract.rate:g} steps per second"


def _channels(contract: Contract) -> Iterator[str]:
    yield "| observation | unit | made of | range in the log |"
    yield "|---|---|---|---|"
    for channel in contract.observation.channels:
        cells = (channel.name, channel.unit or "", channel.made_of or "")
        yield f"| {' | '.join(map(_cell, cells))} | {channel.logged_low:.4g} to {channel.logged_high:.4g} |"
    yield ""
    if contract.action.choices is not None:
        yield "| id | choice |"
        yield "|---|---|"
        pairs = zip(contract.action.ids or (), contract.action.choices, strict=True)
        yield from (f"| {own} | {_cell(name)} |" for own, name in pairs)
        return
    yield "| action | unit | kind | limits | change a step, largest | in the log |"
    yield "|---|---|---|---|---|---|"
    for channel in contract.action.channels:
        change = "no limit" if channel.max_change is None else f"{channel.max_change:.4g}"
        cells = (channel.name, channel.unit or "", channel.kind or "")
        yield (
            f"| {' | '.join(map(_cell, cells))} | {channel.low:.4g} to {channel.high:.4g} | {change} | "
            f"{channel.logged_change:.4g} |"
        )


def _cell(text: str) -> str:
    """Text that cannot end its cell."""
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "\\|")


def _parity(contract: Contract) -> Iterator[str]:
    parity = contract.parity
    rows = "held-out rows" if parity.held_out else "rows"
    what = f"actions differ by {parity.policy:.1e} of half their range at most"
    if contract.action.choices is not None:
        what = (
            f"the same choices, and probabilities that differ by {parity.policy:.1e} at most, with masks too"
        )
    yield (
        f"- The graph does what was trained: {what}, on {parity.rows:,} {rows} of the log (accepted: "
        f"{parity.tolerance:g})."
    )
    if parity.fallback is not None:
        yield f"- The fallback policy likewise: {parity.fallback:.1e}."


def _guard(guard: GuardPart | None) -> Iterator[str]:
    if guard is None:
        yield "- There is no guard: nothing notices that the policy leaves its data."
        return
    rate = guard.rate
    share, low, high, asked, own = (
        f"{100 * value:.2f} %"
        for value in (rate.estimate, rate.low, rate.high, rate.asked, guard.policy_alarms)
    )
    yield (
        f"- The guard raises an alarm on {share} of logged steps that it has not seen "
        f"({100 * rate.level:g} % interval {low} to {high}, {rate.rows:,} steps in {rate.groups:,} groups; "
        f"asked for: {asked}), and on {own} of them with the action of the policy."
    )


def _runtime(contract: Contract) -> Iterator[str]:
    say = contract.runtime
    if contract.action.choices is None:
        yield "- Every action lies within its limits, and changes by no more than that from step to step."
    else:
        yield "- Nothing that a mask forbids is ever chosen, not by a fallback or a hold either."
    yield "- An observation that is not finite, or of another size, never reaches the policy."
    if say.stale_after is not None:
        yield f"- An observation with a stamp older than {say.stale_after:.4g} s counts as lost."
    if say.frozen_after is not None:
        yield f"- One that is repeated bit by bit {say.frozen_after} times counts as lost."
    if contract.guard is not None:
        yield (
            "- A frame that is lost, or does not follow from the step before, is replaced by a forecast, "
            f"{say.coast_steps} times in a row at most."
        )
    then = "the fallback policy acts" if say.fallback == "policy" else "the last action is held"
    if say.patience is None:
        yield "- A state far from the log is told of, and nobody takes over: no patience is set."
    else:
        yield (
            f"- After {say.patience} step(s) in a row far from the log {then}, until {say.release} step(s) "
            "are not."
        )
    rest: object = list(say.rest)
    if contract.action.choices is not None:
        rest = contract.action.choices[say.rest.index(1.0)]
    yield f"- A hold ends after {say.hold_steps} steps with {rest}."


def _verdict(verdict: VerdictPart | None) -> Iterator[str]:
    if verdict is None:
        yield "Nobody has asked `mbrl ope` what the log says of this policy."
        return
    yield f"**{_VERDICTS[verdict.verdict]}** by `mbrl ope`, held against {verdict.baseline}:"
    yield ""
    yield from (f"- {reason}" for reason in verdict.reasons)
