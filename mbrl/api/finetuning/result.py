"""What a finetuning leaves: rounds of trials and trainings, and what to test next."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mbrl.api.result import Result, jsonable
from mbrl.api.training import Run
from mbrl.data.open import open_dataset
from mbrl.run.finetune.rounds import Round
from mbrl.run.finetune.versions import lineage_of

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table


class FinetuneResult(Result):
    """Rounds of trials and trainings.

    Attributes:
        rounds: in order; at least one.
        run: the training after the last batch, whose policy is the result.
        plan: what the next trials should show, sentences; None where nobody asked.
    """

    def __init__(self, rounds: Sequence[Round], plan: Sequence[str] | None) -> None:
        self.rounds = tuple(rounds)
        self.version = open_dataset(rounds[-1].version)
        self.run = Run(rounds[-1].run, self.version)
        self.plan = None if plan is None else tuple(plan)
        lineage = lineage_of(self.version)
        assert lineage is not None
        self.lineage = lineage

    @property
    def left(self) -> int:
        """Trials of the budget that are not used."""
        return self.lineage.budget - self.lineage.episodes

    def to_dict(self) -> dict[str, Any]:
        """Rounds with the hashes of their versions, the budget, and the plan."""
        rounds = [
            {**one.batch.model_dump(mode="json"), "log": str(one.version), "run": str(one.run.path)}
            for one in self.rounds
        ]
        used = {"budget": self.lineage.budget, "used": self.lineage.episodes}
        return jsonable({"rounds": rounds, **used, "plan": self.plan, "path": str(self.run.path)})

    def tables(self) -> "Sequence[Table]":
        """A row for each round."""
        from mbrl.report.kit.table import Table

        rows = [
            (
                one.batch.version,
                one.batch.episodes,
                one.batch.steps,
                one.batch.mean_return,
                one.batch.appended_to[:8],
                one.batch.content_hash[:8],
                one.run.path.name,
            )
            for one in self.rounds
        ]
        heads = ("version", "trials", "steps", "their mean return", "made of", "hash", "training after")
        return [Table("rounds", heads, rows)]

    def messages(self) -> Sequence[str]:
        """The budget, the plan, and how to go on."""
        found = [f"{self.lineage.episodes} of {self.lineage.budget} trials are used."]
        if self.plan is not None:
            found += self.plan or ["No range stands out in which a model of this log is unsure."]
        if not self.rounds[-1].batch.in_simulator and self.left:
            found.append(
                f"Next: mbrl export {self.run.path} --out BUNDLE, run it on the machine, then mbrl finetune "
                f"{self.run.path} --trials ITS_LOG --schema BUNDLE/log-schema.yaml."
            )
        return found

    def _headline(self) -> str:
        return f"version {self.lineage.version}, {len(self.rounds)} rounds, {str(self.run.path)!r}"
