"""Imagination: fixed-shape rollouts of a policy in a dynamics model."""
