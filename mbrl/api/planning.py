"""Planning in the model of a trained run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.model import Dynamics
from mbrl.api.policy import Policy
from mbrl.api.progress import Listener
from mbrl.api.result import Result, jsonable
from mbrl.api.session import named_overrides, open_workspace, torch_settings
from mbrl.api.training import Run
from mbrl.envs.specs import load_task
from mbrl.planning.policy import PlannerPolicy
from mbrl.run.config import stable_hash
from mbrl.run.documents import Override
from mbrl.run.files import write_json, write_text
from mbrl.run.plan.audit import AuditConfig, audit_stage, load_audit
from mbrl.run.plan.basis import PlanBasis, open_basis
from mbrl.run.plan.config import PlanConfig, load_plan_config
from mbrl.run.plan.explanation import explain_stage
from mbrl.run.plan.planning import make_planner, plan_stage
from mbrl.run.policies import StoredPolicy
from mbrl.run.records import PlanSummary
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder
from mbrl.run.validation import validate

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table


class PlanResult(Result):
    """A planner evaluated beside the policy that it plans on.

    Attributes:
        path: folder of the result.
        summary: returns, gain, times, calibration.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.path
        self.summary: Mapping[str, Any] = folder.summary(PlanSummary)

    def to_dict(self) -> dict[str, Any]:
        """The summary, and the path."""
        return jsonable({**self.summary, "path": str(self.path)})

    def tables(self) -> "Sequence[Table]":
        """The planner and the policy alone, side by side."""
        from mbrl.report.plan.tables import plan_table

        return [plan_table(self.summary)]

    def _headline(self) -> str:
        gain = self.summary["gain_interval"]
        return f"{self.summary['planner']!r} on {self.summary['algorithm']!r}, gain {gain['estimate']:.4g}"


class PlanExplanation(Result):
    """One plan with its reasons.

    Attributes:
        path: the figure; JSON, and for a tree search the tree, lie beside it.
        values: candidates, parts of their values, steps, nearest logged states, the tree.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self.values = path, values

    def to_dict(self) -> dict[str, Any]:
        """The explanation, and the path of its figure."""
        return jsonable({**self.values, "path": str(self.path)})

    def tables(self) -> "Sequence[Table]":
        """What was weighed."""
        from mbrl.report.plan.tables import candidate_table, trace_table

        return [candidate_table(self.values), trace_table(self.values)]

    def _headline(self) -> str:
        return f"{self.values['planner']!r} at state {self.values['state']!r}, {str(self.path)!r}"


class AuditResult(Result):
    """Estimated gains of actions held against true ones.

    Attributes:
        path: folder of the result.
        audit: all estimates, typed.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.path, self.audit = folder.path, load_audit(folder)

    def to_dict(self) -> dict[str, Any]:
        """The audit, and the path."""
        return jsonable({**self.audit.model_dump(mode="json"), "path": str(self.path)})

    def tables(self) -> "Sequence[Table]":
        """Every estimate, one row each."""
        from mbrl.report.plan.tables import audit_table

        return [audit_table(self.audit)]

    def messages(self) -> Sequence[str]:
        """What could be had at best."""
        best, spread = self.audit.best, self.audit.spread
        had = "" if best is None else f" The best candidates gain {best:.4g} on average."
        return [f"True gains have a deviation of {spread:.4g}.{had}"]

    def _headline(self) -> str:
        return f"{self.audit.policy!r}, {len(self.audit.rows)} estimates against {self.audit.truth}"


def planner(
    run: Run | str | Path,
    name: str | Path = "mppi",
    *,
    budget_ms: float | None = None,
    sims: int | None = None,
    dynamics: Dynamics | None = None,
    threads: int = 1,
    device: str = "cpu",
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> Policy:
    """A planner on top of a trained policy: a policy like any other.

    Its model, its critics and the cost of uncertainty are found in the run store, or made now.

    Args:
        run: a training on a log.
        name: name in `mbrl list planners`' configs, or path of a yaml.
        budget_ms: milliseconds of wall time for each call; None for the planner's own budget.
        sims: simulations or trajectories of a plan, likewise.
        dynamics: a fitted model to plan in; None takes the fit that the run's config names, or makes it.
        threads: of torch while it is made.
        device: where it plans, and critics are fitted: `cpu`, `cuda` or `cuda:N`.
        store: root of the run folders; None for that of the run.
        progress: see `fit`.
        overrides: changes of the planner's config, `dotted.key=value` or path and value.
        changes: the same by name, `pessimism=2`.

    Raises:
        ConfigError: a name, key or value is wrong, or the run was trained without a log.

    Example:
        >>> log = mbrl.load("pendulum-mixed").select(range(0, 70, 6))
        >>> tiny = {"max_updates": 20, "members": 2, "elites": 1, "hidden": [16]}
        >>> run = mbrl.train(log, "td3_bc", dynamics=tiny, updates=50, progress=False)
        >>> plan = mbrl.planner(run, "mppi", sims=20, gate={"by": "none"}, progress=False)
        >>> plan.act([1.0, 0.0, 0.0]).shape
        (1,)
    """
    config = _plan_config(name, budget_ms, sims, overrides, changes)
    basis, workspace = _basis(run, store, progress, dynamics, device)
    with torch_settings(threads, workspace.device):
        ready = make_planner(basis, config, workspace)
    policy = PlannerPolicy(ready.planner, basis.box, config.budget, is_warm=config.is_warm)
    facts = {**basis.stored.facts, "algorithm": f"{config.planner.name}-{basis.label}"}
    content = stable_hash({"plan": config.tree(), "policy": basis.policy_hash, "model": basis.dynamics_hash})
    return Policy(StoredPolicy(policy, facts, f"plan:{content}"))


def plan(
    run: Run | str | Path,
    planner: str | Path,
    *,
    budget_ms: float | None = None,
    sims: int | None = None,
    episodes: int | None = None,
    task: str | None = None,
    seed: int | None = None,
    dynamics: Dynamics | None = None,
    threads: int = 1,
    device: str = "cpu",
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> PlanResult:
    """Evaluates a planner on top of a trained policy, and that policy alone, from common starts.

    Args:
        run: a training on a log.
        planner: as `name` of `planner`.
        budget_ms: as there.
        sims: as there.
        episodes: full episodes in the simulator; None for those of the run's config.
        task: replaces the one that the policy was trained for.
        seed: of starts and noise; None for that of the run's config.
        dynamics: as `planner`.
        threads: of torch.
        device: as `planner`.
        store: as there.
        progress: see `fit`.
        overrides: as there.
        changes: as there.

    Raises:
        ConfigError: as `planner`; or the task has no simulator.

    Example:
        >>> log = mbrl.load("pendulum-mixed").select(range(0, 70, 6))
        >>> tiny = {"max_updates": 20, "members": 2, "elites": 1, "hidden": [16]}
        >>> run = mbrl.train(log, "td3_bc", dynamics=tiny, updates=50, progress=False)
        >>> cheap = {"sims": 8, "certificate_states": 10, "gate": {"by": "none"}}
        >>> found = mbrl.plan(run, "mppi", episodes=1, progress=False, **cheap)
        >>> found.summary["planner"]
        'mppi'
    """
    config = _plan_config(planner, budget_ms, sims, overrides, changes)
    basis, workspace = _basis(run, store, progress, dynamics, device)
    with torch_settings(threads, workspace.device):
        spec = None if task is None else load_task(task)
        folder = plan_stage(basis, config, workspace, task=spec, episodes=episodes, seed=seed)
    return PlanResult(folder)


def audit_plans(
    run: Run | str | Path,
    planner: str | Path = "rollout",
    *,
    logged: bool = False,
    task: str | None = None,
    dynamics: Dynamics | None = None,
    threads: int = 1,
    device: str = "cpu",
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **asked: Any,
) -> AuditResult:
    """Holds estimated gains of actions near a policy's against what they truly gain.

    Critics, and roll-outs of several lengths in the model with the critic or nothing after them, are asked
    what each candidate gains over the policy's own action. The truth is the simulator's, from states of the
    policy's own road, where the task has one; else what logged actions returned beyond neighbouring states.

    Args:
        run: a training on a log.
        planner: whose critics, uncertainty and end of episodes are taken.
        logged: take logged returns even where there is a simulator.
        task: replaces the one that the policy was trained for.
        dynamics: as `planner`.
        threads: of torch.
        device: as `planner`.
        store: as there.
        progress: see `fit`.
        overrides: changes of the planner's config.
        asked: fields of `mbrl.run.plan.audit.AuditConfig`, `states=100`, `horizons=(1, 25, 200)`.

    Raises:
        ConfigError: as `planner`; or the task is unknown.
    """
    config = _plan_config(planner, None, None, overrides, {})
    audit = validate(AuditConfig, asked, where="Options of an audit")
    basis, workspace = _basis(run, store, progress, dynamics, device)
    with torch_settings(threads, workspace.device):
        spec = basis.task if task is None else load_task(task)
        has_simulator = not logged and spec is not None and spec.env_id is not None
        folder = audit_stage(basis, config, audit, workspace, task=spec if has_simulator else None)
    return AuditResult(folder)


def explain_plan(
    run: Run | str | Path,
    planner: str | Path,
    state: str,
    *,
    budget_ms: float | None = None,
    sims: int | None = None,
    dynamics: Dynamics | None = None,
    threads: int = 1,
    device: str = "cpu",
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> PlanExplanation:
    """One plan with its reasons: a figure, JSON, and the tree of a tree search, in the folder of the run.

    Args:
        run: a training on a log.
        planner: as `name` of `planner`.
        state: number of a logged step, or the coordinates of a state with commas between.
        budget_ms: as `planner`.
        sims: as there.
        dynamics: as `planner`.
        threads: of torch.
        device: as `planner`.
        store: as there.
        progress: see `fit`.
        overrides: as there.
        changes: as there.

    Example:
        >>> log = mbrl.load("pendulum-mixed").select(range(0, 70, 6))
        >>> tiny = {"max_updates": 20, "members": 2, "elites": 1, "hidden": [16]}
        >>> run = mbrl.train(log, "td3_bc", dynamics=tiny, updates=50, progress=False)
        >>> found = mbrl.explain_plan(run, "mppi", "100", sims=20, gate={"by": "none"}, progress=False)
        >>> found.path.suffix
        '.png'
    """
    from mbrl.planning.explain.search_tree import to_dot
    from mbrl.report.kit.style import save_png
    from mbrl.report.plan.plots import plan_figure, tree_figure

    config = _plan_config(planner, budget_ms, sims, overrides, changes)
    basis, workspace = _basis(run, store, progress, dynamics, device)
    with torch_settings(threads, workspace.device):
        values = jsonable(explain_stage(basis, state, config, workspace))
    name = f"{config.planner.name}-{stable_hash({'config': config.tree(), 'state': state})[:8]}"
    folder = basis.run.path / "explanations"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{name}.json", values)
    save_png(plan_figure(values), folder / f"{name}.png")
    if values["tree"] is not None:
        save_png(tree_figure(values["tree"]), folder / f"{name}-tree.png")
        write_text(folder / f"{name}.dot", to_dot(values["tree"]))
    return PlanExplanation(folder / f"{name}.png", values)


def _plan_config(
    planner: str | Path,
    budget_ms: float | None,
    sims: int | None,
    overrides: Sequence[Override],
    changes: Mapping[str, Any],
) -> PlanConfig:
    arguments = {"milliseconds": budget_ms, "sims": sims}
    settings = [*overrides, *named_overrides(changes, home=None)]
    return load_plan_config(str(planner), arguments=arguments, overrides=settings)


def _basis(
    run: Run | str | Path,
    store: str | Path | None,
    progress: Listener,
    dynamics: Dynamics | None,
    device: str,
) -> tuple[PlanBasis, Workspace]:
    path = run.path if isinstance(run, Run) else Path(run)
    workspace = open_workspace(store or path.resolve().parents[1], progress, device)
    log = run.log if isinstance(run, Run) else None
    fitted = None if dynamics is None else (dynamics.fitted, dynamics.digest)
    return open_basis(path, workspace, dataset=log, fitted=fitted), workspace
