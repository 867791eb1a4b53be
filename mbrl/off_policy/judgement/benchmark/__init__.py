"""Estimators and verdicts held against policies whose value is known."""
