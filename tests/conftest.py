import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests import runtime_types

torch.set_num_threads(1)
runtime_types.install()  # before anything of the package is imported

# Slowness on a loaded machine is no failure, and every run tries the same examples.
settings.register_profile(
    "mbrl", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("mbrl")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared robot logs and simulator datasets; skips when it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MBRL_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no shared datasets at {folder}")
    return folder


@pytest.fixture(scope="module")
def short_log_fits() -> Iterator[None]:
    """Fits of who acted in a log, for tests that ask for other things: they take seconds, tested elsewhere.

    Of the density that ratios need, and of the support that checkpoints and candidates are looked at with.
    """
    from mbrl.off_policy.judgement import support_map
    from mbrl.off_policy.log.behaviour_fit import BehaviourConfig

    with pytest.MonkeyPatch.context() as patch:
        short = functools.partial(BehaviourConfig, updates=20, folds=2)
        patch.setattr("mbrl.off_policy.log.behaviour.BehaviourConfig", short)
        patch.setattr("mbrl.shift.support._UPDATES", 20)
        support_map._HALVES.forget()
        yield
    support_map._HALVES.forget()


@pytest.fixture(autouse=True)
def _annotations_are_checked_anew():
    runtime_types.forget()


@pytest.fixture(autouse=True)
def _global_rng_is_untouched():
    """No code of the project may read or change torch's global random state."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), "the test changed torch's global random state"


@pytest.fixture(autouse=True)
def _denormals_are_kept():
    """A command inside a test flushes denormals, as a training should; the next test must not."""
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)
