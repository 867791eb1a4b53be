"""Columns of choices in raw files: a stated vocabulary, unknown labels, what a guess proposes."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from mbrl.core.errors import DataError
from mbrl.data.importing.guess.write import guess_files
from mbrl.data.importing.importer import import_files
from mbrl.data.importing.schema import ImportSchema

DRUGS = ("none", "low dose", "high dose")
TAKEN = np.random.default_rng(0).integers(2, size=60)


def schema(**action: object) -> ImportSchema:
    return ImportSchema.model_validate(
        {
            "name": "clinic",
            "time": {"column": "hour"},
            "observations": ["pulse"],
            "actions": [{"column": "drug", **action}],
            "reward": "-abs(next_pulse - 75)",
        }
    )


def write(folder: Path, values: list[str]) -> Path:
    pulse = 80 + np.random.default_rng(1).normal(size=len(values)).cumsum()
    rows = [f"{hour},{pulse[hour]:.3f},{value}" for hour, value in enumerate(values)]
    path = folder / "stay1.csv"
    path.write_text("\n".join(["hour,pulse,drug", *rows]) + "\n")
    return path


def test_labels_become_the_choices_of_the_vocabulary(tmp_path: Path):
    path = write(tmp_path, [DRUGS[k] for k in TAKEN])
    data, report = import_files(schema(choices=DRUGS), [path])
    assert data.spec.choices == data.act_names == DRUGS  # the dose that nobody took is one of them
    assert data.transitions().action.argmax(1).tolist() == TAKEN[:-1].tolist()
    assert data.info.reward_rule == "(-abs((next_pulse - 75.0)))"
    assert ImportSchema.model_validate(yaml.safe_load(yaml.safe_dump(report.schema.model_dump(mode="json"))))


@pytest.mark.parametrize("choices", [("3", "5"), ("no", "yes"), 6])
def test_ids_are_names_or_places(tmp_path: Path, choices: object):
    ids = {("3", "5"): [3, 5], ("no", "yes"): [0, 1], 6: [0, 5]}[choices]
    path = write(tmp_path, [str(ids[k]) for k in TAKEN])
    data, _ = import_files(schema(choices=choices), [path])
    found = data.transitions().action.argmax(1)
    assert found.tolist() == [ids[k] if choices == 6 else k for k in TAKEN[:-1]]


def test_an_unknown_label_is_named_with_file_and_row(tmp_path: Path):
    values = [DRUGS[k] for k in TAKEN]
    values[10] = "hihg dose"
    path = write(tmp_path, values)
    with pytest.raises(
        DataError, match=r"'hihg dose' is none of the 3 choices.*Did you mean 'high dose'"
    ) as caught:
        import_files(schema(choices=DRUGS), [path])
    assert (caught.value.file, caught.value.field, caught.value.row) == (path, "drug", 12)


def test_a_choice_is_held_and_never_averaged(tmp_path: Path):
    path = write(tmp_path, [str(k) for k in TAKEN])
    slow = schema(choices=2).model_copy(update={"rate": 0.5})
    data, _ = import_files(slow, [path])
    assert data.transitions().action.argmax(1).tolist() == TAKEN[:-1:2].tolist()[: data.num_transitions]


@pytest.mark.parametrize(
    "action",
    [{"choices": ("a", "a")}, {"choices": 2, "low": 0.0, "high": 1.0}, {"choices": 2, "scale": 2.0}],
)
def test_choices_that_are_computed_or_named_twice_are_refused(action: dict[str, object]):
    with pytest.raises(ValueError, match="choice"):
        schema(**action)


def test_a_choice_is_the_only_action():
    with pytest.raises(ValueError, match="the only action channel"):
        ImportSchema.model_validate(
            {**schema().model_dump(), "actions": ["u", {"column": "drug", "choices": 2}]}
        )


def test_schemas_without_choices_are_written_as_before():
    assert "choices" not in schema().model_dump_json()
    assert '"choices":["none","low dose","high dose"]' in schema(choices=DRUGS).model_dump_json()


def test_a_guess_proposes_the_labels_that_it_saw(tmp_path: Path):
    found = guess_files([write(tmp_path, [DRUGS[k] for k in TAKEN])])
    (action,) = found.schema.actions
    assert (action.column, action.choices) == ("drug", ("low dose", "none"))
    assert "labels that were seen: add those that were not" in found.text
