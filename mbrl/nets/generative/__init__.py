"""Policies whose actions a generative model of the log proposes."""
