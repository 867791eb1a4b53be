"""Installed distributions as an installer leaves them: modules beside a dist-info folder, nothing more."""

from collections.abc import Mapping
from pathlib import Path


def install(
    folder: Path,
    name: str,
    modules: Mapping[str, str],
    entry_points: Mapping[str, Mapping[str, str]],
    *,
    version: str = "1.2",
) -> Path:
    """Writes a distribution into `folder`, which then belongs on `sys.path`.

    Args:
        folder: where packages are looked for.
        name: of the distribution.
        modules: text by path, such as `my_package/__init__.py`.
        entry_points: values by group and name.
        version: of the distribution.
    """
    for path, text in modules.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    facts = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    sections = [
        "\n".join([f"[{group}]", *(f"{key} = {value}" for key, value in points.items())])
        for group, points in entry_points.items()
    ]
    (facts / "entry_points.txt").write_text("\n".join(sections) + "\n")
    return folder
