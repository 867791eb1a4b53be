"""The pages of one dataset and one run."""
