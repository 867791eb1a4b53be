"""Success classifiers in the store: found again, resumed, and used wherever reward models are."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import mbrl
from mbrl.api.preferences import SuccessModel, best_of, fit_success, next_pairs, success_labels
from mbrl.core.errors import ConfigError, DataError
from mbrl.core.progress import SilentProgress
from mbrl.data.dataset import Dataset
from mbrl.preferences.segments import log_steps
from mbrl.preferences.success.fit import SuccessConfig
from mbrl.run.config import resolve
from mbrl.run.inputs import known_reward
from mbrl.run.preferences import reward as stage_module
from mbrl.run.preferences.success import LabelSource, fit_success_stage
from mbrl.run.stage import Workspace
from mbrl.run.store import RunStore
from mbrl.testing.samples import make_dataset

LOG = make_dataset(count=24)
LAST = [float(e.observations[-2, 0]) for e in LOG.episodes]
OUTCOMES = {k: bool(value > np.median(LAST)) for k, value in enumerate(LAST)}
LABELS = success_labels(LOG, OUTCOMES, annotator="anna")
SMALL = SuccessConfig(members=2, hidden=(8,), max_updates=30, look_interval=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SuccessModel:
    store = tmp_path_factory.mktemp("runs")
    return fit_success(LOG, LABELS, store=store, progress=False, **SMALL.model_dump())


def test_a_killed_stage_goes_on_to_the_same_file_and_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = LabelSource(LABELS)
    whole = fit_success_stage(LOG, source, SMALL, Workspace(RunStore(tmp_path / "a"), SilentProgress()))
    real = stage_module.fit_reward

    def killed(fit, state, *, on_look):
        def look(state) -> None:
            on_look(state)
            if state.updates == 20:
                raise KeyboardInterrupt

        return real(fit, state, on_look=look)

    workspace = Workspace(RunStore(tmp_path / "b"), SilentProgress())
    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "fit_reward", killed)
        with pytest.raises(KeyboardInterrupt):
            fit_success_stage(LOG, source, SMALL, workspace)
    again = fit_success_stage(LOG, source, SMALL, workspace)
    name = "reward.safetensors"
    assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert fit_success_stage(LOG, source, SMALL, workspace).path == again.path
    fewer = LabelSource(dataclasses.replace(LABELS, labels=LABELS.labels[:-1]))
    assert fit_success_stage(LOG, fewer, SMALL, workspace).path != again.path


def test_logged_and_imagined_steps_earn_the_same_lower_bound(model: SuccessModel) -> None:
    new = mbrl.relabel(LOG, reward_model=model, pessimism=0.5, offset=-1.0)
    assert new.info.derived_from == LOG.content_hash
    wanted = model.stored.model.reward(*log_steps(LOG), pessimism=0.5).numpy() - 1
    np.testing.assert_allclose(np.concatenate([e.rewards for e in new.episodes]), wanted, atol=1e-6)
    assert wanted.min() >= -1.6
    assert wanted.max() <= 0
    run = resolve(arguments={"algorithm": "mopo", "reward": str(model.stored.path)}).run
    rule = known_reward(run, new)
    assert rule is not None
    episode = new.episodes[3]
    obs = torch.tensor(episode.observations)
    found = rule(obs[:-1], torch.tensor(episode.actions), obs[1:])
    np.testing.assert_allclose(found.numpy(), episode.rewards, atol=1e-5)


def test_the_report_says_what_speaks_against_the_labels(model: SuccessModel) -> None:
    told = "\n".join(model.messages())
    assert "obs_0 alone tells all labels" in told
    assert "labelled; what the others earn is extrapolated" in told
    assert "held-out episodes of one class" in told
    assert SuccessModel.load(model.path).report == model.report
    assert "successes that it tells" in str(model)
    ends = sum(e.terminated and OUTCOMES[k] for k, e in enumerate(LOG.episodes))
    assert f"{ends} successes end their episode" in told


def test_a_column_is_read_and_what_is_rare_or_constant_is_said() -> None:
    def with_flags(flags: list[np.ndarray]) -> Dataset:
        pairs = zip(LOG.episodes, flags, strict=True)
        episodes = tuple(dataclasses.replace(e, infos={"next.success": f}) for e, f in pairs)
        return dataclasses.replace(LOG, episodes=episodes)

    rare = with_flags([np.arange(30) == (29 if k % 3 else 99) for k in range(24)])
    quick = {**SMALL.model_dump(), "max_updates": 10, "progress": False}
    found = fit_success(rare, column="next.success", **{**quick, "last_steps": 1})
    assert found.report.labels == {"success": 16, "failure": 24 * 30 - 16}
    constant = with_flags([np.full(30, k % 2 == 0) for k in range(24)])
    by_episode = fit_success(constant, column="next.success", **quick)
    assert by_episode.report.labelled_steps == 24
    assert any("label of episodes" in text for text in by_episode.messages())
    rarer = with_flags([np.arange(30) == (29 if k < 2 else 99) for k in range(24)])
    told = fit_success(rarer, column="next.success", **quick).messages()
    assert any("are success: the model may never" in text for text in told)


def test_what_cannot_be_is_refused_with_the_next_step(model: SuccessModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--labels"):
        fit_success(LOG)
    with pytest.raises(DataError, match="earlier=failure"):
        fit_success(LOG, success_labels(LOG, dict.fromkeys(range(24), True)), progress=False)
    with pytest.raises(ConfigError, match="success classifier, which answers no pairs"):
        next_pairs(LOG, model.path)
    clone = mbrl.train(LOG, "bc", learner={"form": "gaussian", "hidden": [8]}, updates=1, diagnostics=False,
                       store=tmp_path, progress=False)  # fmt: skip
    with pytest.raises(ConfigError, match="reads=steps"):
        best_of(clone, reward_model=model.path)
    changes = {"reads": "steps", "unit": "log_odds", "max_updates": 5, "members": 2}
    ranking = fit_success(LOG, LABELS, progress=False, **changes)
    best_of(clone, reward_model=ranking.path)
