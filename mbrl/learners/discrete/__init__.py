"""Learners over finitely many choices, one file each; actions are one-hot vectors, masks are respected."""
