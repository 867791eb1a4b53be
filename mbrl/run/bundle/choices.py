"""What a bundle of a policy over choices is refused for, and the choice that ends a hold."""

import numpy as np

from mbrl.core.choices import choice_ids
from mbrl.core.errors import ConfigError
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.nets.policy import PolicyNetwork


def contract_ids(choices: tuple[str, ...] | None) -> tuple[int | tuple[int, ...], ...] | None:
    """What stands for each choice outside; None for continuous actions."""
    if choices is None:
        return None
    rows: list[list[int]] = choice_ids(choices).tolist()
    return tuple(row[0] if len(row) == 1 else tuple(row) for row in rows)


def resting_vector(log: Dataset, given: tuple[float, ...] | None) -> tuple[float, ...]:
    """The action that ends a hold, as a vector.

    Args:
        log: that a policy learned from.
        given: `BundleConfig.rest`, checked.
    """
    spec = log.spec
    if not spec.is_discrete:
        zero = np.clip(np.zeros(spec.act_dim), spec.act_low, spec.act_high)
        return tuple(float(x) for x in zero) if given is None else given
    if given is not None and len(given) == spec.act_dim:
        return given
    counts = np.sum([episode.actions.sum(0) for episode in log.episodes], axis=0)
    index = int(counts.argmax()) if given is None else (contract_ids(spec.choices) or ()).index(int(given[0]))
    return tuple(float(k == index) for k in range(spec.act_dim))


def check_choices(policy: PolicyNetwork, log: Dataset) -> None:
    """Refuses a policy whose choices are not those of the log.

    Raises:
        ConfigError: they are others, or one of the two is continuous.
    """
    own, logged = policy.spec.space.choices, log.spec.choices
    if own != logged:
        raise ConfigError(
            f"The choices of a policy are {own}, those of the log {log.info.name!r} {logged}. Remedy: "
            "name the log that it learned from (--dataset)."
        )


def check_rest(spec: SpaceSpec, *, rest: tuple[float, ...] | None, has_max_change: bool) -> None:
    """Refuses settings that make no sense of choices; continuous actions are passed over.

    Raises:
        ConfigError: a limit of change, or a rest that is no choice.
    """
    if not spec.is_discrete:
        return
    if has_max_change:
        raise ConfigError("max_change limits numbers, and an action here is a choice. Remedy: leave it out.")
    if rest is None:
        return
    ids = contract_ids(spec.choices) or ()
    is_id = len(rest) == 1 and rest[0] in ids
    if not is_id and sorted(rest) != [0.0] * (spec.act_dim - 1) + [1.0]:
        shown = ", ".join(map(str, ids[:6])) + (", ..." if len(ids) > 6 else "")
        raise ConfigError(f"rest must be the id of a choice ({shown}), not {list(rest)}.")
