"""Dynamics of few states and few actions: counts with a Dirichlet prior, in the place of networks."""
