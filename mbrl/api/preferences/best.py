"""Best of N: draws of a policy, ranked by what was learned from preferences or by critics."""

import hashlib
from pathlib import Path
from typing import Any

from mbrl.api.policy import Policy, as_policy
from mbrl.api.preferences.rewards import RewardModel
from mbrl.api.session import open_workspace
from mbrl.core.errors import ConfigError
from mbrl.core.progress import SilentProgress
from mbrl.run.policies import StoredPolicy
from mbrl.run.preferences.best_of import best_by_critic, best_by_reward


def best_of(
    policy: Any,
    *,
    reward_model: "RewardModel | str | Path | None" = None,
    critic: str | Path | None = None,
    candidates: int = 16,
    pessimism: float = 0.0,
    store: str | Path | None = None,
) -> Policy:
    """A policy that takes the best of N draws of another one; evaluated, judged and exported like any.

    It has no density: estimates by importance weights refuse it, values and models answer. A reward model
    ranks the step at hand alone, critics rank what follows, too.

    Args:
        policy: who draws, with a density: a `Policy`, a `Run`, or the path of either.
        reward_model: what ranks: a fitted reward model, or the path of its fit or file.
        critic: or a training whose critics rank, those of its last update.
        candidates: N, 1 to 10,000.
        pessimism: k of the rank `mean_i - k std_i` over members; with two critics 1 is their minimum.
        store: root of the run folders in which the training's log may lie.

    Raises:
        ConfigError: the policy draws nothing, none or two are to rank, or the sizes differ.

    Example:
        >>> import mbrl
        >>> from mbrl.api.preferences import best_of
        >>> short = {"updates": 5, "progress": False}
        >>> clone = mbrl.train("pendulum-mixed", "bc", learner={"form": "gaussian"}, **short)
        >>> values = mbrl.train("pendulum-mixed", "iql", **short)
        >>> best_of(clone, critic=values.path, candidates=4).act([1.0, 0.0, 0.0]).shape
        (1,)
    """
    if (reward_model is None) == (critic is None):
        raise ConfigError("Give one that ranks: a reward model (--reward-model) or a training (--critic).")
    if not (1 <= candidates <= 10_000 and 0 <= pessimism <= 1000):
        raise ConfigError(
            f"candidates={candidates} and pessimism={pessimism}: 1 to 10,000 and 0 to 1000 are legal."
        )
    stored = as_policy(policy).stored
    if critic is not None:
        workspace = open_workspace(store, SilentProgress())
        made, facts = best_by_critic(
            stored, Path(critic), workspace, candidates=candidates, pessimism=pessimism
        )
    else:
        path = reward_model.path if isinstance(reward_model, RewardModel) else Path(str(reward_model))
        made, facts = best_by_reward(stored, path, candidates=candidates, pessimism=pessimism)
    # Who it is follows from its parts: the same parts are the same policy, in this process or another.
    told = f"{stored.content}|{facts['ranked_by']}|{candidates}|{pessimism!r}"
    return Policy(StoredPolicy(made, facts, hashlib.blake2b(told.encode(), digest_size=16).hexdigest()))
