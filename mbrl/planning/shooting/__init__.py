"""Trajectory optimisation: CEM, iCEM, MPPI."""
