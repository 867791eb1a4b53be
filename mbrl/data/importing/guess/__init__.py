"""A first schema of files that nobody has described: from what their columns look like."""
