"""Recipes: a learner on a stream of experience. One file each, found by the registry."""
