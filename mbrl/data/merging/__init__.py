"""Several datasets as one: what they must have in common, and which row came from which."""
