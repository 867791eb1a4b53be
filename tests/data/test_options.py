import pytest
from pydantic import ValidationError

from mbrl.data.options import LoadOptions


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"action_low": (0.0,)}, "together"),
        ({"action_low": (0.0,), "action_high": (1.0, 2.0)}, "1 entries"),
        ({"action_low": (1.0,), "action_high": (1.0,)}, "below"),
        ({"action_low": (float("-inf"),), "action_high": (1.0,)}, "finite"),
        ({"max_episode_steps": 0}, "greater"),
        ({"overlap": "both"}, "terminated"),
        ({"clip": True}, "Extra inputs"),
    ],
)
def test_refused(values: dict[str, object], words: str):
    with pytest.raises(ValidationError, match=words):
        LoadOptions.model_validate(values)


def test_defaults_repair_nothing():
    options = LoadOptions()
    choices = (options.overlap, options.actions, options.final_observation, options.bad_episodes)
    assert set(choices) == {"error"}
