"""RAVL: many diverse critics on unpenalised model rollouts.

Source: Sims et al. 2024 (arXiv:2402.12527). What fails in offline model-based learning is not the model but
the edge of what short rollouts reach: states that are met as bootstrap targets only, whose values nothing
corrects. The least of many critics, made to differ, is pessimistic exactly there.

Departures from the paper:
- termination is learned from the logs; a task's known rule is a choice;
- the horizon never exceeds the trusted one;
- smaller refreshes, sized for CPUs.
"""

from typing import ClassVar

from pydantic import model_validator

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.model_stream import ModelBasedRecipe, RealRatio, UnpenalisedConfig
from mbrl.learners.sac import SACConfig


class RAVLConfig(UnpenalisedConfig):
    """Mostly imagined batches for a soft actor-critic with diverse critics; see `UnpenalisedConfig`."""

    may_penalise: ClassVar[bool] = False
    real_ratio: RealRatio = 0.05

    @model_validator(mode="after")
    def _check_guard(self) -> "RAVLConfig":
        learner = self.learner.config
        # The pessimism is in the critics: one plain pair would leave the stream without any.
        if not isinstance(learner, SACConfig) or learner.diversity_coef == 0:
            raise ValueError(
                "RAVL is guarded by its critics alone: it needs the learner sac with many critics (10) and "
                "diversity_coef > 0 (1); recipe: model_based takes any learner"
            )
        return self


@RECIPES.register("ravl", "Many diverse critics on unpenalised model rollouts (Sims et al. 2024).")
class RAVL(ModelBasedRecipe):
    """Diverse critics on logged data and imagination."""

    Config = RAVLConfig
