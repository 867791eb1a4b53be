"""Policies straight from preferences, without a reward model: no learner by itself."""
