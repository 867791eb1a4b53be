"""COMBO: a conservative learner on logged transitions mixed with unpenalised model rollouts.

Source: Yu et al. 2021 (arXiv:2102.08363), eq. 2: values are lowered on imagined state-actions and raised
on logged ones, so that no estimate of the model's uncertainty is needed. The term itself is the learner's
(`cql`): its log-sum-exp runs over all states of a batch or over the imagined ones, its data term over logged
rows only.

Departures from the paper:
- imagined actions come from the policy; the paper's uniform roll-out policy is not offered;
- termination is learned from the logs; a task's known rule is a choice;
- the horizon never exceeds the trusted one.
"""

from typing import ClassVar

from pydantic import model_validator

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.model_stream import ModelBasedRecipe, UnpenalisedConfig


class COMBOConfig(UnpenalisedConfig):
    """Half of each batch is logged data; the learner has to be conservative. See `UnpenalisedConfig`."""

    may_penalise: ClassVar[bool] = False

    @model_validator(mode="after")
    def _check_pessimism(self) -> "COMBOConfig":
        # Nothing in this stream is penalised: without a conservative learner it is MBPO under another name.
        if self.real_ratio < 1 and not self.learner.config.is_conservative:
            raise ValueError(
                "COMBO leaves imagined rewards as they are and relies on a learner that is conservative on "
                f"model rows, which {self.learner.name!r} with these settings is not: use the learner cql "
                "(over choices discrete_cql) with conservative_weight > 0, or penalise the rewards with the "
                "recipe mopo"
            )
        return self


@RECIPES.register("combo", "A conservative learner on unpenalised model rollouts (Yu et al. 2021).")
class COMBO(ModelBasedRecipe):
    """A conservative learner on logged data and imagination."""

    Config = COMBOConfig
