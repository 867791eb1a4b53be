"""Model-based offline reinforcement learning: from logged episodes to a policy that can be trusted.

    import mbrl

    log = mbrl.load("pendulum-mixed")
    model = mbrl.fit(log)
    run = mbrl.train(log, "mopo", dynamics=model)
    action = run.policy.act(observation)

Names are imported when they are first used, so that `import mbrl` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbrl.api.auto import AutoResult as AutoResult
    from mbrl.api.auto import auto
    from mbrl.api.bags import BagResult as BagResult
    from mbrl.api.bags import topics
    from mbrl.api.catalogue import catalogue, registry, status
    from mbrl.api.comparison import ComparisonResult as ComparisonResult
    from mbrl.api.comparison import compare
    from mbrl.api.data import InspectionResult as InspectionResult
    from mbrl.api.data import collect, inspect, load, save, with_history
    from mbrl.api.deploying import DeployCheck as DeployCheck
    from mbrl.api.deploying import Export as Export
    from mbrl.api.deploying import deploy_check, export
    from mbrl.api.evaluation import EvaluationResult as EvaluationResult
    from mbrl.api.evaluation import evaluate
    from mbrl.api.importing import (
        GuessResult as GuessResult,
    )
    from mbrl.api.importing import (
        ImportResult as ImportResult,
    )
    from mbrl.api.importing import (
        guess_schema,
        import_log,
        relabel,
    )
    from mbrl.api.judging import OPEResult as OPEResult
    from mbrl.api.judging import ope
    from mbrl.api.model import Dynamics, fit
    from mbrl.api.planning import AuditResult as AuditResult
    from mbrl.api.planning import PlanResult as PlanResult
    from mbrl.api.planning import audit_plans as audit_plans
    from mbrl.api.planning import explain_plan as explain_plan
    from mbrl.api.planning import plan, planner
    from mbrl.api.policy import Policy
    from mbrl.api.selecting import SelectionResult as SelectionResult
    from mbrl.api.selecting import select
    from mbrl.api.training import Run, train
    from mbrl.core.errors import ConfigError, DataError, MbrlError
    from mbrl.data.dataset import Dataset

_HOMES = {
    "audit_plans": "mbrl.api.planning",
    "AuditResult": "mbrl.api.planning",
    "auto": "mbrl.api.auto",
    "AutoResult": "mbrl.api.auto",
    "BagResult": "mbrl.api.bags",
    "catalogue": "mbrl.api.catalogue",
    "collect": "mbrl.api.data",
    "compare": "mbrl.api.comparison",
    "ComparisonResult": "mbrl.api.comparison",
    "ConfigError": "mbrl.core.errors",
    "DataError": "mbrl.core.errors",
    "Dataset": "mbrl.data.dataset",
    "deploy_check": "mbrl.api.deploying",
    "DeployCheck": "mbrl.api.deploying",
    "Dynamics": "mbrl.api.model",
    "evaluate": "mbrl.api.evaluation",
    "EvaluationResult": "mbrl.api.evaluation",
    "export": "mbrl.api.deploying",
    "Export": "mbrl.api.deploying",
    "explain_plan": "mbrl.api.planning",
    "fit": "mbrl.api.model",
    "guess_schema": "mbrl.api.importing",
    "GuessResult": "mbrl.api.importing",
    "import_log": "mbrl.api.importing",
    "ImportResult": "mbrl.api.importing",
    "inspect": "mbrl.api.data",
    "InspectionResult": "mbrl.api.data",
    "load": "mbrl.api.data",
    "MbrlError": "mbrl.core.errors",
    "ope": "mbrl.api.judging",
    "OPEResult": "mbrl.api.judging",
    "plan": "mbrl.api.planning",
    "planner": "mbrl.api.planning",
    "PlanResult": "mbrl.api.planning",
    "Policy": "mbrl.api.policy",
    "registry": "mbrl.api.catalogue",
    "relabel": "mbrl.api.importing",
    "Run": "mbrl.api.training",
    "save": "mbrl.api.data",
    "select": "mbrl.api.selecting",
    "SelectionResult": "mbrl.api.selecting",
    "status": "mbrl.api.catalogue",
    "topics": "mbrl.api.bags",
    "train": "mbrl.api.training",
    "with_history": "mbrl.api.data",
}
"""Where each name lives."""

__all__ = [  # noqa: RUF022 - in the order of the work; the classes of results are there as well, by name
    "load", "save", "with_history", "guess_schema", "import_log", "relabel", "collect", "inspect", "topics",
    "auto", "fit", "train", "select", "evaluate", "ope", "planner", "plan", "compare", "catalogue",
    "registry", "status", "export", "deploy_check", "Dataset", "Policy", "Dynamics", "Run", "MbrlError",
    "ConfigError", "DataError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from mbrl.run.store import package_version

        return package_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'mbrl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *__all__})
