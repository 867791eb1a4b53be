"""Dynamics of discrete states that are too many for a table: networks that say which state follows."""
