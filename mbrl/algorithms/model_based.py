"""Model-based: any learner on any mixture of logged transitions and model rollouts.

Source: the common form of MBPO (Janner et al. 2019, arXiv:1906.08253), MOPO (Yu et al. 2020,
arXiv:2005.13239) and what followed them. `mopo`, `mbpo`, `combo`, `morel`, `ravl`, `mobrac` and
`mbrl_default` are presets of it with checks of their own.

Departures: no paper describes its defaults. The penalty is unit-free, rollouts are cut at the 0.99 quantile
of the uncertainty and stay within the trusted horizon, half of each batch is logged data.
"""

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.model_stream import ModelBasedRecipe


@RECIPES.register("model_based", "Any learner on logged data mixed with model rollouts, combined in yaml.")
class ModelBased(ModelBasedRecipe):
    """Any learner on logged data and imagination."""
