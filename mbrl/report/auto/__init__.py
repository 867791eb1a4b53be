"""The page of `mbrl auto`."""
