"""The typed report of off-policy evaluation: what was measured, what follows, and its JSON."""
