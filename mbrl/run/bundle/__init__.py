"""Bundles for deployment: written from a training and its log, opened, and held against a log."""
