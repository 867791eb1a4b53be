"""Turns what pydantic says of a bad config into one paragraph: key, value, legal values, near miss."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from mbrl.core.errors import ConfigError
from mbrl.core.names import listed, suggest
from mbrl.run.documents import show

M = TypeVar("M", bound=BaseModel)

_SHOWN_PROBLEMS: Final = 10
_LONGEST_KEY: Final = 100


def validate(model: type[M], values: Mapping[str, Any], *, where: str, prefix: str = "") -> M:
    """Builds `model` from `values`.

    Args:
        model: a config class.
        values: keys and values as read.
        where: what is being read, for the message.
        prefix: dotted key of `values` within the whole config.

    Raises:
        ConfigError: unknown keys, wrong types, values out of range; every problem is named.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = explain(error, model, prefix)
        text = " ".join(problems[:_SHOWN_PROBLEMS])
        more = len(problems) - _SHOWN_PROBLEMS
        text += f" And {more} more." if more > 0 else ""
        remedy = (
            "" if "Legal " in text else " Remedy: correct what is named, or leave it out for its default."
        )
        raise ConfigError(f"{where}: {text}{remedy}") from error


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One sentence or two for each problem."""
    problems = [cast("dict[str, Any]", problem) for problem in error.errors(include_url=False)]
    wrong = {tuple(problem["loc"])[:depth] for problem in problems for depth in range(len(problem["loc"]))}
    # A tuple of which an entry is wrong counts as too short besides.
    return [
        _explain(problem, model, prefix)
        for problem in problems
        if problem["type"] != "too_short" or tuple(problem["loc"]) not in wrong
    ]


def _explain(problem: dict[str, Any], model: type[BaseModel], prefix: str) -> str:
    location: tuple[Any, ...] = tuple(problem["loc"])
    parts = (
        part if len(part) <= _LONGEST_KEY else f"{part[:_LONGEST_KEY]}..." for part in map(str, location)
    )
    key = ".".join([*([prefix] if prefix else []), *parts]) or "the config"
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        models = _models_at(model, location[:-1])
        legal = sorted({name for candidate in models for name in candidate.model_fields})
        hint = suggest(str(location[-1]), legal) or elsewhere(models, location)
        return f"Unknown key {key}. {hint}Legal keys here: {listed(legal)}."
    if kind == "missing":
        return f"{key} is missing."
    if kind == "literal_error":
        expected = str(problem["ctx"]["expected"]).replace(" or ", ", ")
        legal = [part.strip().strip("'") for part in expected.split(",")]
        hint = suggest(str(given), legal)
        return f"{key} = {show(given)} is not legal. {hint}Legal values: {', '.join(legal)}."
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    message = message.replace("should be", "must be", 1)
    value = "" if isinstance(given, (dict, BaseModel)) else f" = {show(given)}"
    return f"{key}{value}{' ' if message.startswith('must') else ': '}{message}."


def elsewhere(models: Sequence[type[BaseModel]], location: tuple[Any, ...]) -> str:
    """`Did you mean SECTION.KEY? `, for who forgot the section; empty where no section has the key.

    Args:
        models: that may stand where the key was found.
        location: of the key.
    """
    *above, name = map(str, location)
    homes = {
        ".".join([*above, section, name])
        for candidate in models
        for section, field in candidate.model_fields.items()
        for inner in _models_in(field.annotation)
        if name in inner.model_fields
    }
    return f"Did you mean {' or '.join(sorted(homes)[:3])}? " if homes else ""


def _models_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[type[BaseModel]]:
    """Which may stand at a place of a config."""
    models = [model]
    for part in location:
        inner = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        # a part that no model knows is an index or the tag of a union: the models stay
        models = [found for annotation in inner for found in _models_in(annotation)] if inner else models
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]
