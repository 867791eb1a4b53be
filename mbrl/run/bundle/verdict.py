"""What `mbrl ope` said of a policy, for its bundle."""

from pathlib import Path

from mbrl.core.errors import ConfigError
from mbrl.deploy.contract import VerdictPart
from mbrl.off_policy.judgement.report.documents import DeploymentReport, OPEReport
from mbrl.run.files import is_file, is_folder
from mbrl.run.judge.deployment import DEPLOYMENT_FILE
from mbrl.run.judge.ope import REPORT_FILE
from mbrl.run.policies import StoredPolicy
from mbrl.run.store import RunStore


def find_verdict(stored: StoredPolicy, store: RunStore, dataset_hash: str) -> VerdictPart | None:
    """The newest verdict on a policy and its log among the runs of a store; None where nobody asked.

    Args:
        stored: the policy.
        store: where evaluations lie.
        dataset_hash: of the log.
    """
    found: list[Path] = []
    for run, manifest in store.manifests():
        identity = manifest["identity"]
        is_it = identity.get("policy") == stored.content and identity.get("dataset") == dataset_hash
        if manifest["stage"] == "ope" and is_it and run.is_done:
            found.append(run.path / REPORT_FILE)
    if not found:
        return None
    newest = max(found, key=lambda path: (path.stat().st_mtime, str(path)))
    return _part(OPEReport.load(newest), newest)


def read_verdict(path: Path, stored: StoredPolicy) -> VerdictPart:
    """The verdict of a report of `mbrl ope`: a file, or the folder that it lies in.

    Of several candidates, the one that is called like the policy.

    Raises:
        ConfigError: there is none.
        DataError: the report cannot be read.
    """
    if is_folder(path):
        names = [name for name in (DEPLOYMENT_FILE, REPORT_FILE) if is_file(path / name)]
        if not names:
            raise ConfigError(
                f"{path} holds no report of mbrl ope. Remedy: name its folder, or the JSON in it."
            )
        path = path / names[0]
    if path.name == REPORT_FILE:
        return _part(OPEReport.load(path), path)
    report = DeploymentReport.load(path)
    if len(report.reports) == 1:
        return _part(report.reports[0], path)
    for one in report.reports:
        if one.candidate in (stored.title, stored.label):
            return _part(one, path)
    raise ConfigError(
        f"{path}: no candidate is called {stored.title!r}; there are {', '.join(report.candidates)}. "
        "Remedy: name the report of this policy."
    )


def _part(report: OPEReport, path: Path) -> VerdictPart:
    final = report.verdict.final
    return VerdictPart(
        verdict=final.verdict,
        reasons=tuple(final.reasons),
        baseline=report.baseline.policy,
        source=str(path),
    )
