"""Logged feedback of single decisions."""
