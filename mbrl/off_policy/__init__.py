"""Off-policy evaluation: what logs can say about a policy."""
