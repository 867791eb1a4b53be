"""Containers, seams, random streams, registries and errors; torch and numpy only."""
