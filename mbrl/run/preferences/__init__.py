"""Stages of preferences: reward models that are fitted to answers, rewards that they give, pages that ask."""
