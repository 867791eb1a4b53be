"""Scripts as modules: they are no package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_script(name: str) -> ModuleType:
    """The module of `scripts/NAME.py`, not run; `measure/judge` lies in a folder."""
    path = ROOT / "scripts" / f"{name}.py"
    name = f"scripts_{name.replace('/', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up while it is made.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
