"""Preferences of people: answers about segments of a log, reward models, and policies that follow them."""

from mbrl.api.preferences.answers import (
    PreferenceResult,
    inspect_preferences,
    load_preferences,
    synthetic_preferences,
)
from mbrl.api.preferences.best import best_of
from mbrl.api.preferences.labels import label
from mbrl.api.preferences.rewards import PairQueue, RewardModel, fit_reward, next_pairs
from mbrl.api.preferences.success import SuccessModel, fit_success, success_labels

__all__ = [
    "PairQueue",
    "PreferenceResult",
    "RewardModel",
    "SuccessModel",
    "best_of",
    "fit_reward",
    "fit_success",
    "inspect_preferences",
    "label",
    "load_preferences",
    "next_pairs",
    "success_labels",
    "synthetic_preferences",
]
