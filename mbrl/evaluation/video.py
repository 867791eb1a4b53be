"""Films one evaluation episode."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError, MissingExtraError
from mbrl.envs.make import Env, render_frame


class Recorder:
    """A step hook that keeps the frames of episode 0.

    Args:
        path: where the film goes; its suffix, `.mp4` or `.gif`, says which format.

    Raises:
        ConfigError: the suffix is neither.
        MissingExtraError: the package that writes films is not installed.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in {".mp4", ".gif"}:
            raise ConfigError(f"A video is written as .mp4 or .gif, not as {path.name!r}.")
        self._path = path
        self._writer = _import_writer("imageio.v3")
        if path.suffix == ".mp4":
            _import_writer("imageio_ffmpeg")
        self._frames: list[NDArray[np.uint8]] = []
        self._frames_per_second = 30

    def __call__(self, index: int, env: Env) -> None:
        """Renders, if this is episode 0."""
        if index == 0:
            self._frames.append(render_frame(env))
            self._frames_per_second = int(env.metadata.get("render_fps", 30))

    def save(self) -> None:
        """Writes the film, one frame per step, at the simulator's own pace."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.suffix == ".gif":  # whose clock counts milliseconds for a frame
            options: dict[str, Any] = {"duration": 1000.0 / self._frames_per_second, "loop": 0}
        else:
            options = {"fps": self._frames_per_second}
        self._writer.imwrite(self._path, np.stack(self._frames), **options)


def _import_writer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(name.partition(".")[0], extra="video", purpose="Writing a video") from error
