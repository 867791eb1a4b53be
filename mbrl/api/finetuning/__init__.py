"""Offline to online by batches: trials of a policy, versions of its log, and the training that goes on."""

from mbrl.api.finetuning.result import FinetuneResult
from mbrl.api.finetuning.rounds import finetune

__all__ = ["FinetuneResult", "finetune"]
