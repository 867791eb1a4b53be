"""Learners that draw from a generative clone of the log and take the best: BCQ, BFN."""
