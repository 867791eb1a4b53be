"""Networks, initialised from a generator; one that wants normalised inputs holds its own normaliser."""
