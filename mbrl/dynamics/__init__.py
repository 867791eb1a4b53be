"""Fits an ensemble of one-step models, predicts with it, and says how far it can be trusted."""
