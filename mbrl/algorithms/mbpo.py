"""MBPO, offline: model rollouts without a penalty; the edge-of-reach baseline, never a default.

Source: Janner et al. 2019 (arXiv:1906.08253).

Departures from the paper:
- no data is ever collected: the ensemble is fitted once;
- the horizon does not grow along the training, and never exceeds the trusted one;
- termination is learned from the logs; a task's known rule is a choice.
"""

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.model_stream import ModelBasedRecipe, RealRatio, UnpenalisedConfig


class MBPOConfig(UnpenalisedConfig):
    """Mostly imagined batches; see `UnpenalisedConfig`."""

    real_ratio: RealRatio = 0.05


@RECIPES.register("mbpo", "MOPO without penalty and truncation: the edge-of-reach baseline (Janner 2019).")
class MBPO(ModelBasedRecipe):
    """Any learner on the unpenalised stream."""

    Config = MBPOConfig
