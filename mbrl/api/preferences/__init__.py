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

__all__ = [
    "PairQueue",
    "PreferenceResult",
    "RewardModel",
    "best_of",
    "fit_reward",
    "inspect_preferences",
    "label",
    "load_preferences",
    "next_pairs",
    "synthetic_preferences",
]
