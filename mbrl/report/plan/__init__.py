"""Figures and tables of planning."""
