"""The page and tables of a deployment report."""
