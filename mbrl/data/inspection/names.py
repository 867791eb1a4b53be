"""How findings call files."""

import os


def short_names(paths: list[str]) -> list[str]:
    """Paths without the folders that all of them lie in, and without a last name that all share."""
    if len(paths) < 2 or not all("/" in path for path in paths):
        return [path.rsplit("/", 1)[-1] for path in paths]
    shared = os.path.commonpath([path.rsplit("/", 1)[0] for path in paths])
    short = [path.removeprefix(shared).lstrip("/") for path in paths]
    ends = {path.rsplit("/", 1)[-1] for path in short}
    if len(ends) == 1 and all("/" in path for path in short):
        return [path.rsplit("/", 1)[0] for path in short]
    return short
