"""CPL and DPO over finitely many choices: the same losses on the log-probabilities of a softmax.

Sources and departures are those of `cpl` and `dpo`; masks of the log forbid choices in clone, policy and
reference alike.
"""

from typing import ClassVar

from mbrl.learners.base import LEARNERS, LearnerConfig
from mbrl.learners.contrastive.cpl import CPLConfig, CPLUpdate
from mbrl.learners.contrastive.dpo import DPOConfig, DPOUpdate


class DiscreteCPLConfig(CPLConfig):
    """Contrastive preference learning over choices; the settings of CPL."""

    acts_on_choices: ClassVar[bool] = True


@LEARNERS.register("discrete_cpl", "CPL over choices: contrastive preference learning of a softmax policy.")
class DiscreteCPL(CPLUpdate):
    """The CPL learner of a softmax policy."""

    Config: ClassVar[type[LearnerConfig]] = DiscreteCPLConfig


class DiscreteDPOConfig(DPOConfig):
    """Direct preference optimisation over choices; the settings of DPO."""

    acts_on_choices: ClassVar[bool] = True


@LEARNERS.register("discrete_dpo", "DPO over choices: a softmax policy against a reference clone.")
class DiscreteDPO(DPOUpdate):
    """The DPO learner of a softmax policy."""

    Config: ClassVar[type[LearnerConfig]] = DiscreteDPOConfig
