"""A short training of soft actor-critic, also as a program: `python -m tests.run.sac_run FOLDER`."""

import sys
from pathlib import Path

import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.rng import RngStreams
from mbrl.nets.normaliser import Normaliser
from mbrl.run.loop import LoopSettings, train
from tests.run.toy import SPACE, transitions

UPDATES = 200


def run_sac(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    recipe = RECIPES.get("model_free")
    learner = {"name": "sac", "hidden": [8, 8], "batch_size": 16}
    config = recipe.Config.model_validate({"learner": learner, "updates": UPDATES})
    training = recipe.build(config, RecipeContext(SPACE, Normaliser.identity(3), transitions()))
    settings = LoopSettings(updates=UPDATES, log_interval=7, checkpoint_interval=3)
    train(training, folder=folder, rng=RngStreams(0), settings=settings)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_sac(Path(sys.argv[1]))
