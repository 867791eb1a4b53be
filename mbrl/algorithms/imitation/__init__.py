"""Recipes that imitate: expert episodes beside a mixed log."""
