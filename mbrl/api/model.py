"""Dynamics models: fitted to a log, and asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from mbrl.api.policy import Policy
from mbrl.api.progress import Listener
from mbrl.api.result import Result, jsonable
from mbrl.api.session import Log, at_work, log_arguments, named_overrides, open_log, open_workspace
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy as TensorPolicy
from mbrl.data.dataset import Dataset
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.prediction import RolloutPrediction, StepPrediction
from mbrl.dynamics.report import DynamicsReport
from mbrl.run.config import resolve
from mbrl.run.documents import Override
from mbrl.run.fit import fit_dynamics_stage, fit_judge_stage, load_dynamics
from mbrl.run.inputs import load_run_dataset
from mbrl.run.store import RunFolder, find_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mbrl.report.kit.html import Section
    from mbrl.report.kit.table import Table


class Dynamics(Result):
    """A calibrated ensemble of dynamics models that was fitted to a log.

    Attributes:
        path: folder of the fit.
        fitted: the model, its termination head and its thresholds, as tensors.
        judges: further fits that were asked for, which never train a policy.

    Example:
        >>> model = mbrl.fit("pendulum-mixed", max_updates=60, members=2, elites=1, progress=False)
        >>> model.rollout([1.0, 0.0, 0.0], [[0.5], [0.0]]).observation.shape
        (2, 3)
    """

    def __init__(self, folder: RunFolder, judges: "Sequence[Dynamics]" = ()) -> None:
        self._folder = folder
        self.path = folder.path
        self.judges = tuple(judges)
        self.fitted: FittedDynamics = load_dynamics(folder)

    @classmethod
    def load(cls, path: str | Path) -> "Dynamics":
        """The finished fit in a folder, whatever made it.

        Raises:
            ConfigError: there is none.
        """
        return cls(find_run(Path(path), stage="fit_dynamics"))

    @property
    def report(self) -> DynamicsReport:
        """How far it can be trusted: errors, calibration, horizon, warnings; typed."""
        return self.fitted.report

    @property
    def config(self) -> DynamicsConfig:
        """What it was fitted with."""
        return self.fitted.config

    @property
    def trusted_horizon(self) -> int:
        """Steps that roll-outs may be believed for; 0 says: do not roll out."""
        return self.fitted.trusted_horizon

    @property
    def digest(self) -> str:
        """Identity of the fit: of the config, the log and the seed that it is a function of."""
        return str(self._folder.manifest()["hash"])

    def predict(self, observation: ArrayLike, action: ArrayLike) -> StepPrediction:
        """One step ahead: mean and calibrated deviation of the next observation and the reward.

        Args:
            observation: `[obs_dim]` or `[n, obs_dim]`, raw units.
            action: `[act_dim]` or `[n, act_dim]`, environment units.

        Raises:
            DataError: shapes do not fit the model or one another, or a value is not finite.
        """
        return self.fitted.predict(observation, action)

    def rollout(
        self,
        observation: ArrayLike,
        actions: ArrayLike | Policy | TensorPolicy,
        *,
        horizon: int | None = None,
        particles: int = 100,
        level: float = 0.9,
        seed: int = 0,
    ) -> RolloutPrediction:
        """Several steps ahead, under given actions or a policy: means and intervals in raw units.

        Steps beyond `trusted_horizon` are predicted all the same.

        Args:
            observation: `[obs_dim]` or `[n, obs_dim]`, where to start.
            actions: `[h, act_dim]` or `[n, h, act_dim]`, or a policy.
            horizon: h, needed with a policy.
            particles: sampled futures of each start.
            level: of the central intervals, in (0, 1).
            seed: of the samples.

        Raises:
            DataError: shapes do not fit, or a value is not finite.
        """
        plan = actions.torch if isinstance(actions, Policy) else actions
        return self.fitted.rollout(
            observation, plan, horizon=horizon, particles=particles, level=level, seed=seed
        )

    def plot_open_loop(
        self,
        log: Dataset,
        *,
        episode: int = 0,
        start: int = 0,
        horizon: int | None = None,
        channels: Sequence[int | str] | None = None,
        seed: int = 0,
    ) -> "Figure":
        """What was logged beside what the model imagines under the logged actions, with its 90 % interval.

        Args:
            log: holds the episode.
            episode: index of it.
            start: step from which the model goes on by itself.
            horizon: steps; None for those that are left, 50 at most.
            channels: indices or names of observation dimensions; None for the first eight.
            seed: of the samples.

        Returns:
            A Matplotlib figure; a notebook shows it, `savefig` keeps it.

        Raises:
            ConfigError: there is no such episode, step or channel.
        """
        from mbrl.report.run.open_loop_plot import open_loop_figure

        picked = _channels(log, channels)
        if not 0 <= episode < len(log):
            raise ConfigError(f"The log has episodes 0 to {len(log) - 1}, not {episode}.")
        one = log.episodes[episode]
        if not 0 <= start < len(one):
            raise ConfigError(f"Episode {episode} has steps 0 to {len(one) - 1}, not {start}.")
        steps = min(horizon or 50, len(one) - start)
        forecast = self.rollout(one.observations[start], one.actions[start : start + steps], seed=seed)
        return open_loop_figure(
            one.observations[start : start + steps + 1], forecast, picked, trusted=self.trusted_horizon
        )

    def to_html(self, path: str | Path | None = None, *, log: Dataset | None = None) -> Path:
        """Writes the page of the fit.

        Args:
            path: of the page; `report.html` in the folder of the fit when None.
            log: adds a viewer of forecasts beside its episodes: those that the fit held out, where it is the
                log that was fitted to.

        Raises:
            DataError: the log has other sizes than the model.
        """
        from mbrl.api.run_page import imagined_views, write_run_page

        seed = int(self._folder.manifest()["seed"])
        more = [] if log is None else [imagined_views(self.fitted, log, seed=seed)]
        return write_run_page(self.path, None if path is None else Path(path), more=more)

    def to_dict(self) -> dict[str, Any]:
        """The summary, and the path."""
        judges = {"judges": [judge.to_dict() for judge in self.judges]} if self.judges else {}
        return jsonable({**self._folder.summary(), "path": str(self.path), **judges})

    def tables(self) -> "Sequence[Table]":
        """Errors, calibration, horizon."""
        from mbrl.report.run.dynamics_tables import dynamics_tables, judge_table

        if not self.judges:
            return dynamics_tables(self.report)
        return [*dynamics_tables(self.report), judge_table([judge.report for judge in self.judges])]

    def messages(self) -> Sequence[str]:
        """How far it may be trusted, what speaks against it, what to log next."""
        from mbrl.report.run.dynamics_tables import next_messages, trust_message, warning_messages

        report = self.report
        return [m.text for m in (trust_message(report), *warning_messages(report), *next_messages(report))]

    def sections(self) -> "Sequence[Section]":
        """The parts of the page, figures included."""
        from mbrl.report.run.dynamics_sections import dynamics_sections

        return dynamics_sections(self.report)

    def _headline(self) -> str:
        manifest = self._folder.manifest()
        error = self.report.one_step.nrmse
        return (
            f"{manifest['dataset']!r}, seed {manifest['seed']}, one-step NRMSE {error:.3g}, "
            f"trusted for {self.trusted_horizon} steps, {str(self.path)!r}"
        )


def fit(
    log: Log | None,
    dynamics: str | Path | Mapping[str, Any] | DynamicsConfig | None = None,
    *,
    judges: int = 0,
    config: str | Path | None = None,
    seed: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> Dynamics:
    """Fits a calibrated ensemble to a log, or finds the fit that was made before.

    Args:
        log: an open log, what `load` takes, or a list of these; None where `config` names one.
        dynamics: name in `configs/dynamics`, path of a yaml, the same as a mapping, or a config object.
        judges: further fits with seeds of their own and other episodes held out, which never train a policy;
            `train`, `select` and `ope` find them. Their updates are `judges.max_updates`.
        config: experiment: a name in `configs/experiments` or a yaml.
        seed: of every random stream [0].
        threads: of torch meanwhile [1].
        device: where members are trained: `cpu`, `cuda` or `cuda:N` [cpu].
        store: root of the run folders; None for a temporary one of this process.
        progress: a listener; False for none; None or True for bars in a notebook and at a terminal, lines
            elsewhere.
        overrides: changes of the run's config, `dotted.key=value` or path and value.
        changes: values of the fit's config by name, `max_updates=2_000`; checked likewise.

    Raises:
        ConfigError: a name, key or value is wrong.
        DataError: the log cannot be used, or is too short to hold anything out.

    Example:
        >>> import mbrl
        >>> log = mbrl.load("pendulum-mixed")
        >>> model = mbrl.fit(log, max_updates=60, hidden=[32], members=2, elites=1, progress=False)
        >>> step = model.predict(log.episodes[0].observations[0], log.episodes[0].actions[0])
        >>> step.observation.shape
        (3,)
    """
    workspace = open_workspace(store, progress)
    arguments: dict[str, Any] = {
        **log_arguments(log, workspace),
        "dynamics": _section(dynamics),
        "seed": seed,
        "threads": threads,
        "device": device,
    }
    if config is None:
        arguments["algorithm"] = "bc"  # a fit reads no algorithm, but a run's config has one
    settings = [*overrides, *named_overrides(changes, home="dynamics")]
    resolved = resolve(config, arguments=arguments, overrides=settings)
    with at_work(workspace, resolved.run) as workspace:
        data = open_log(log) or load_run_dataset(resolved.run, workspace)
        _, folder = fit_dynamics_stage(resolved, data, workspace)
        made = [fit_judge_stage(resolved, data, workspace, number=k)[1] for k in range(judges)]
    return Dynamics(folder, [Dynamics(judge) for judge in made])


def _section(dynamics: str | Path | Mapping[str, Any] | DynamicsConfig | None) -> Any:
    """As it stands in a run's config."""
    if isinstance(dynamics, DynamicsConfig):
        return dynamics.model_dump(mode="json")
    return str(dynamics) if isinstance(dynamics, Path) else dynamics


def _channels(log: Dataset, channels: Sequence[int | str] | None) -> list[tuple[int, str]]:
    """Index and name of each."""
    names = log.info.obs_names or tuple(f"observation {k}" for k in range(log.spec.obs_dim))
    picked: list[tuple[int, str]] = []
    for channel in channels if channels is not None else range(min(8, len(names))):
        index = names.index(channel) if isinstance(channel, str) and channel in names else channel
        if not isinstance(index, int) or not 0 <= index < len(names):
            raise ConfigError(
                f"There is no channel {channel!r}. Legal: 0 to {len(names) - 1}, {', '.join(names)}."
            )
        picked.append((index, names[index]))
    return picked
