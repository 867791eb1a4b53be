"""Networks with generator-seeded initialisation; a net that wants normalised inputs holds its own normaliser."""
