"""The estimators of a policy's value, found by the registry."""
