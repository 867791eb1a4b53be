"""Facts about tasks: sizes, bounds, limits, reference scores and known termination rules."""

import hashlib
import reprlib
from pathlib import Path
from typing import Annotated, Any, Final, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from mbrl.core.assets import configs_dir
from mbrl.core.choices import MAX_CHOICES, stated_names
from mbrl.core.errors import ConfigError
from mbrl.core.names import suggest
from mbrl.core.types import SpaceSpec
from mbrl.envs.documents import parse_yaml

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
_SHOWN_PROBLEMS: Final = 5
EnvOption = bool | int | float | str
Bound = tuple[FiniteFloat | None, FiniteFloat | None]


def _check_bound(bound: Bound, what: str) -> None:
    low, high = bound
    if low is None and high is None:
        raise ValueError(f"{what}: give a lower bound, an upper bound, or both")
    if low is not None and high is not None and low >= high:
        raise ValueError(f"{what}: the lower bound {low} must lie below the upper bound {high}")


class AbsoluteLimit(BaseModel):
    """Alive only while `|s_d|` lies below `limit` in every dimension `d >= from_dim`.

    Attributes:
        limit: the limit, observation units.
        from_dim: first dimension that the limit holds for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[FiniteFloat, Field(gt=0)]
    from_dim: NonNegativeInt = 0


class Monomial(BaseModel):
    """`coefficient * prod_d s_d` over `dims`.

    Attributes:
        coefficient: the factor.
        dims: dimensions of the observation that are multiplied; a repeated one is a power.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coefficient: FiniteFloat
    dims: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=8)]


class PolynomialBound(BaseModel):
    """Alive only while a polynomial of the observation lies within bounds (a height made of sines, say).

    Attributes:
        terms: monomials to be summed.
        bound: lower and upper bound of the sum; null where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    terms: Annotated[tuple[Monomial, ...], Field(min_length=1)]
    bound: Bound

    @model_validator(mode="after")
    def _bound_is_usable(self) -> "PolynomialBound":
        _check_bound(self.bound, "polynomial bound")
        return self


class TerminationRule(BaseModel):
    """When the successor of a step is terminal; all conditions must hold for it to be alive.

    A successor with a NaN or an infinity in any dimension is always terminal, so the empty rule says: never
    terminates otherwise.

    Attributes:
        is_inclusive: whether a value that equals a bound is alive, as in the simulator's own test.
        bounds: lower and upper bound by dimension of the observation; null where there is none.
        abs_below: one limit on the absolute value of many dimensions, or null.
        polynomials: bounds on polynomials of the observation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_inclusive: bool = False
    bounds: dict[NonNegativeInt, Bound] = Field(default_factory=dict[int, Bound])
    abs_below: AbsoluteLimit | None = None
    polynomials: tuple[PolynomialBound, ...] = ()

    @field_validator("bounds")
    @classmethod
    def _bounds_are_usable(cls, bounds: dict[int, Bound]) -> dict[int, Bound]:
        for dim, bound in bounds.items():
            _check_bound(bound, f"bounds of dimension {dim}")
        return bounds

    def dims(self) -> tuple[int, ...]:
        """Every dimension that the rule names."""
        terms = [term for polynomial in self.polynomials for term in polynomial.terms]
        named = [*self.bounds, *(dim for term in terms for dim in term.dims)]
        return (*named, self.abs_below.from_dim) if self.abs_below else tuple(named)


_SET_ELSEWHERE: Final = frozenset({"id", "max_episode_steps", "render_mode", "disable_env_checker"})
"""Arguments of `gymnasium.make` that are no keyword arguments of a simulator's constructor."""


class TaskSpec(BaseModel):
    """What is known of a task; a task without a simulator has `env_id: null`.

    Attributes:
        name: the public id.
        description: one line for people.
        env_id: Gymnasium id (`Hopper-v5`, or `module:Id-v0` to import a module first), or null.
        env_kwargs: keyword arguments of the simulator's constructor.
        obs_dim: size of an observation vector.
        act_dim: size of an action vector.
        act_low: lower action bound per dimension, environment units.
        act_high: upper action bound per dimension, environment units.
        choices: names of the choices where actions are discrete, in the simulator's order, or their number;
            size and bounds of an action follow from them. Null for continuous actions.
        max_episode_steps: steps after which an episode is truncated, or null for the simulator's own limit.
        ref_min_score: return that counts as 0 when scores are normalised, or null.
        ref_max_score: return that counts as 100 when scores are normalised, or null.
        ref_source: where the reference scores come from; required with them.
        termination: the known termination rule, or null if it cannot be told from an observation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    description: str = ""
    env_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    env_kwargs: dict[str, EnvOption] = Field(default_factory=dict[str, EnvOption])
    obs_dim: PositiveInt
    act_dim: PositiveInt
    act_low: tuple[FiniteFloat, ...]
    act_high: tuple[FiniteFloat, ...]
    choices: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_CHOICES)] | None = None
    max_episode_steps: PositiveInt | None = None
    ref_min_score: FiniteFloat | None = None
    ref_max_score: FiniteFloat | None = None
    ref_source: str = ""
    termination: TerminationRule | None = None

    @model_validator(mode="before")
    @classmethod
    def _size_follows_from_choices(cls, values: Any) -> Any:
        if not isinstance(values, dict) or cast("dict[str, Any]", values).get("choices") is None:
            return cast("object", values)
        fields = dict(cast("dict[str, Any]", values))
        names = stated_names(fields["choices"])
        space = SpaceSpec.discrete(1, names)
        sizes = {"act_dim": space.act_dim, "act_low": space.act_low, "act_high": space.act_high}
        return {**sizes, **fields, "choices": names}

    @model_validator(mode="after")
    def _fields_agree(self) -> "TaskSpec":
        _ = self.space  # raises where sizes and bounds contradict each other
        taken = sorted(_SET_ELSEWHERE & self.env_kwargs.keys())
        if taken:
            raise ValueError(
                f"env_kwargs.{taken[0]} is set by whoever makes the simulator; a time limit is the task's "
                "own max_episode_steps"
            )
        if (self.ref_min_score is None) != (self.ref_max_score is None):
            raise ValueError("give both ref_min_score and ref_max_score, or neither")
        if self.ref_min_score is not None and self.ref_max_score is not None:
            if self.ref_min_score >= self.ref_max_score:
                raise ValueError(f"ref_min_score {self.ref_min_score} must lie below {self.ref_max_score}")
            if not self.ref_source:
                raise ValueError("reference scores need a ref_source")
        if self.termination is not None:
            beyond = [dim for dim in self.termination.dims() if dim >= self.obs_dim]
            if beyond:
                raise ValueError(f"termination names dimensions {beyond}, observations have {self.obs_dim}")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_choices(self, handler: Any) -> dict[str, Any]:
        """Tasks of continuous actions are written, and hashed, as if there were no other kind."""
        fields: dict[str, Any] = handler(self)
        follow = ("choices",) if self.choices is None else ("act_dim", "act_low", "act_high")
        return {name: value for name, value in fields.items() if name not in follow}

    @property
    def content_hash(self) -> str:
        """Hex digest (blake2b) of everything that the task says."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=16).hexdigest()

    @property
    def space(self) -> SpaceSpec:
        """Sizes and bounds: all that learners and models may know of the task."""
        return SpaceSpec(
            obs_dim=self.obs_dim,
            act_dim=self.act_dim,
            act_low=self.act_low,
            act_high=self.act_high,
            choices=self.choices,
        )


def list_tasks() -> tuple[str, ...]:
    """Names of the shipped tasks, sorted."""
    return tuple(sorted(path.stem for path in (configs_dir() / "tasks").glob("*.yaml")))


def load_task(name_or_path: str | Path) -> TaskSpec:
    """Reads a shipped task by its exact name, or a user's yaml by its path.

    Args:
        name_or_path: `hopper`, or a path that ends in `.yaml` or `.yml`.

    Raises:
        ConfigError: the name is unknown (the message lists the legal ones), or the file cannot be used.
    """
    if Path(name_or_path).suffix in {".yaml", ".yml"}:
        return _read_task(Path(name_or_path))
    if str(name_or_path) not in list_tasks():
        raise ConfigError(
            f"Unknown task {reprlib.repr(str(name_or_path))}. {suggest(str(name_or_path), list_tasks())}"
            f"Legal names: {', '.join(list_tasks())}; "
            "or the path of a task's .yaml file."
        )
    return _read_task(configs_dir() / "tasks" / f"{name_or_path}.yaml")


def load_named_task(
    name: str, *, source: str, env_id: str | None = None, content_hash: str | None = None
) -> TaskSpec:
    """The shipped task that a dataset or a policy names, if it is the one that they mean.

    A file may name a task, but never another file to be read, nor a module to be imported: that is for the
    user to say, with `--task`.

    Args:
        name: as the file has it.
        source: what names it, for messages.
        env_id: id of the simulator that the file states besides, or None.
        content_hash: of the task that the file means, or None where it means a shipped one.

    Raises:
        ConfigError: no shipped task has the name, or it is another task of the same name.
    """
    remedy = "Remedy: give --task with the path of its yaml, or with the name of a shipped task."
    shown = reprlib.repr(name)
    if name not in list_tasks():
        raise ConfigError(
            f"{source} names the task {shown}, which is none of the shipped ones "
            f"({', '.join(list_tasks())}); task files and modules are not taken from data. {remedy}"
        )
    task = load_task(name)
    is_other_env = env_id is not None and env_id != task.env_id
    if is_other_env or (content_hash is not None and content_hash != task.content_hash):
        raise ConfigError(
            f"{source} names the task {shown}, but means another one than the shipped task of that name"
            f"{f' (its simulator is {reprlib.repr(env_id)}, not {task.env_id!r})' if is_other_env else ''}. "
            f"{remedy}"
        )
    return task


def refuse_import(name: str | None, *, source: str) -> None:
    """Refuses a task file that a document names where its simulator is in a module that would be imported.

    Documents are shared: reading one must not run code. The user may, with `--task`, or in Python.

    Args:
        name: of a task, or path of its yaml; None where none is named.
        source: the document, for the message.

    Raises:
        ConfigError: the task's `env_id` has a module part, or the task cannot be read.
    """
    env_id = None if name is None else load_task(name).env_id
    if env_id is not None and ":" in env_id:
        raise ConfigError(
            f"{source} names the task {reprlib.repr(name)}, whose simulator {reprlib.repr(env_id)} is in a "
            "module that would be imported; documents may not do that. Remedy: give the task's yaml with "
            "--task, or let its package register the id (entry points of gymnasium.envs), without the module."
        )


def own_task_hash(task: TaskSpec) -> str | None:
    """Hash of a task of the user's own, to be noted beside its name; None for a shipped one."""
    is_shipped = task.name in list_tasks() and load_task(task.name) == task
    return None if is_shipped else task.content_hash


def find_task(env_id: str) -> TaskSpec | None:
    """The shipped task whose `env_id` equals `env_id` exactly, or None; never a partial match."""
    return next((task for task in map(load_task, list_tasks()) if task.env_id == env_id), None)


def _read_task(path: Path) -> TaskSpec:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Task file {path} cannot be read: {error}. Remedy: name a yaml like those in configs/tasks."
        ) from error
    values = parse_yaml(text, where=f"Task file {path}")
    try:
        return TaskSpec.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'task'} = {reprlib.repr(e['input'])}: {e['msg']}"
            if e["loc"]
            else str(e["msg"])
            for e in error.errors()[:_SHOWN_PROBLEMS]
        )
        legal = ", ".join(TaskSpec.model_fields)
        raise ConfigError(f"Task file {path}: {problems}. Legal keys: {legal}.") from error
