"""Turns what pydantic says of a bad config into one paragraph: key, value, legal values, near miss."""

from collections.abc import Mapping
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
        legal = _legal_keys(model, location[:-1])
        return f"Unknown key {key}. {suggest(str(location[-1]), legal)}Legal keys here: {listed(legal)}."
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


def _legal_keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    models = [model]
    for part in location:
        inner = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        # a part that no model knows is an index or the tag of a union: the models stay
        models = [found for annotation in inner for found in _models_in(annotation)] if inner else models
    return sorted({name for candidate in models for name in candidate.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]
