"""MOPO: a learner on logged transitions mixed with penalised model rollouts.

Sources: Yu et al. 2020 (arXiv:2005.13239); Janner et al. 2019 (arXiv:1906.08253) for the rollouts.

Departures from the paper:
- the penalty is unit-free: the measure divided by its 0.95 quantile on held-out data, times the deviation
  of the logged rewards, so that `penalty.coef` means the same on every robot; `penalty.units: raw` with
  `measure: max_aleatoric` is the paper's form, over the members that a fit keeps;
- the default measure is the disagreement of the elites (`ens_std`), not the largest predicted deviation;
- rollouts stop where the uncertainty passes its 0.99 quantile on the data;
- termination is learned from the logs; a task's known rule is a choice;
- the default learner has five critics with LayerNorm and half of each batch is logged data.
"""

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.model_stream import ModelBasedConfig, ModelBasedRecipe


class MOPOConfig(ModelBasedConfig):
    """Penalised model rollouts: the common defaults as they are."""


@RECIPES.register("mopo", "Logged data mixed with uncertainty-penalised model rollouts (Yu et al. 2020).")
class MOPO(ModelBasedRecipe):
    """Any learner on logged data and penalised imagination."""

    Config = MOPOConfig
