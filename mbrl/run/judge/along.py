"""Policies that a training keeps along its way, and the choice among them when it is over."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.run.config import ResolvedConfig, RunConfig
from mbrl.run.files import make_folder, write_bytes
from mbrl.run.judge.exploitation import find_exploitation
from mbrl.run.judge.judged_file import JUDGED_FILE, save_judged
from mbrl.run.judge.judges import judges_identity, judges_question, open_judges
from mbrl.run.judge.question import asked_estimand
from mbrl.run.judge.rule import RuleName, kept_steps
from mbrl.run.judge.selection import Candidate, Selection, select_by_judges, select_by_values
from mbrl.run.judge.value_fits import KeptFits
from mbrl.run.policies import LAST_POLICY_FILE, POLICY_FILE, load_policy, save_policy
from mbrl.run.stage import StageWork, Workspace

KEPT_FOLDER: Final = "kept"
"""Below a training's folder: the policies among which it chose."""


def rule_of(config: RunConfig) -> RuleName:
    """Which rule takes a training's result.

    Raises:
        ConfigError: a training without a log, or a log without judges, is to be judged.
    """
    recipe, rule = RECIPES.get(config.recipe), config.select.rule
    if recipe.is_online:
        if rule not in {None, "last"}:
            raise ConfigError(f"{config.recipe!r} has no log to select={rule} by. Remedy: select=last.")
        return "last"
    if rule is None and recipe.imitates:
        return "last"  # judges value policies by the rewards that imitation is not to see
    if rule is None:
        return "judge" if recipe.needs_dynamics and config.judges.count > 0 else "last"
    if rule == "judge" and config.judges.count == 0:
        raise ConfigError("select=judge needs judges. Remedy: judges.count=2, or select=last.")
    return rule


def selection_identity(config: RunConfig) -> dict[str, Any]:
    """What the choice among a training's policies depends on besides the training; empty for the last."""
    rule = rule_of(config)
    if rule == "last":
        return {}
    if rule == "judge":
        return {"select": {"rule": rule, "kept": config.select.kept, **judges_identity(config)}}
    return {"select": {**config.select.model_dump(mode="json"), "rule": rule}}


def check_selection(config: RunConfig, dataset: Dataset) -> None:
    """Refuses a choice that the log cannot make, before the training instead of after it.

    Raises:
        MbrlError: see `judges_question` and `asked_horizon`.
    """
    rule = rule_of(config)
    if rule == "judge":
        judges_question(config, dataset)
    elif rule == "fqe":
        dataset.require_rewards("A selection by value")
        asked_estimand(dataset, discount=config.select.discount, steps=config.select.horizon)


@dataclasses.dataclass(frozen=True, slots=True)
class KeptPolicies:
    """The policies of one training that may be chosen.

    Attributes:
        folder: of their files.
        steps: updates after which they are kept; empty where the last one is the result. 0 is the policy that
            a training starts from, where it starts from one.
        facts: that their files carry.
    """

    folder: Path
    steps: tuple[int, ...]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, config: RunConfig, run: Path, facts: Mapping[str, Any]) -> "KeptPolicies":
        """Of a training in a folder."""
        steps: tuple[int, ...] = ()
        if rule_of(config) != "last":
            starts = {0} if config.warm_start is not None else set[int]()
            starts |= {config.algorithm.start_updates} - {0}
            steps = tuple(sorted({*starts, *kept_steps(config.algorithm.updates, config.select.kept)}))
        return cls(run / KEPT_FOLDER, steps, facts)

    def path(self, step: int) -> Path:
        """Of the policy after so many updates."""
        return self.folder / f"step-{step:09d}.safetensors"

    def keep(self, step: int, policy: Callable[[], Policy]) -> None:
        """Stores it, if it is one of those that are kept."""
        if step in self.steps:
            make_folder(self.folder)
            save_policy(self.path(step), policy(), {**self.facts, "updates": step})

    def missing(self, most: int) -> list[int]:
        """Of those up to an update, the ones that are not there."""
        return [step for step in self.steps if step <= most and not self.path(step).is_file()]

    def candidates(self) -> list[Candidate]:
        """Those that are there, in order."""
        there = [(step, path) for step in self.steps if (path := self.path(step)).is_file()]
        return [Candidate({"updates": step}, path, load_policy(path).policy) for step, path in there]


def select_along(
    resolved: ResolvedConfig,
    dataset: Dataset,
    kept: KeptPolicies,
    work: StageWork,
    workspace: Workspace,
    own: Callable[[], FittedDynamics] | None,
) -> dict[str, Any]:
    """Chooses among the kept policies, and puts the chosen one in the place of the result.

    Args:
        resolved: config of the training.
        dataset: its log.
        kept: its policies; the last one's file is there.
        work: of its stage.
        workspace: where judges are.
        own: the model that it was trained in; None for model-free ones.

    Returns:
        What the summary says of it: see `Selection`, and `Exploitation`.
    """
    config = resolved.run
    candidates, name = kept.candidates(), rule_of(config)
    lost = kept.missing(config.algorithm.updates)
    if lost:
        work.progress.message(
            f"{len(lost)} of {len(kept.steps)} kept policies are gone from {kept.folder}, that of update "
            f"{lost[0]:,} first: the choice is among the others."
        )
    exploitation: dict[str, Any] | None = None
    if name == "judge":
        begin = time.perf_counter()
        judges = open_judges(resolved, dataset, workspace)
        work.began += time.perf_counter() - begin  # fits are stages of their own
        for text in judges.warnings():
            work.progress.message(text)
        # Where judges can say nothing of any policy, the one that somebody trusted before stays.
        unless = 0 if 0 in kept.steps else len(candidates) - 1
        selection, judged = select_by_judges(candidates, judges, work.progress, otherwise=unless)
        save_judged(work.path / JUDGED_FILE, judged, identity=judges.identity())
        if own is not None:
            policies = [candidate.policy for candidate in candidates]
            found = find_exploitation(judges, own(), policies, judged, selection.chosen, work.progress)
            exploitation = found.to_json()
    else:
        fits = KeptFits(work.path / "selection", work.key.digest, work.progress, device=workspace.device)
        selection = select_by_values(
            candidates, dataset, config.select, rng=RngStreams(config.seed), kept=fits
        )
        fits.drop()
    write_bytes(work.path / LAST_POLICY_FILE, candidates[-1].path.read_bytes())
    write_bytes(work.path / POLICY_FILE, candidates[selection.chosen].path.read_bytes())
    return {"selection": _relative(selection, work.path), "exploitation": exploitation}


def _relative(selection: Selection, folder: Path) -> dict[str, Any]:
    """As plain values; paths of the run's own files count from its folder, which may be moved."""
    values = selection.to_json()
    for contestant in values["contestants"]:
        contestant["path"] = str(Path(contestant["path"]).relative_to(folder))
    return values
