"""What judges said of the policies of a training, start by start: comparisons of trainings pair them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from mbrl.off_policy.value.judged import JudgedValue
from mbrl.run.artifacts import load_artifact, save_artifact

JUDGED_FILE: Final = "judged.safetensors"
"""In a training's folder, where judges took its result."""

_VERSION: Final = 1
_KINDS: Final[Mapping[str, tuple[torch.dtype, str]]] = {
    "returns": (torch.float64, "pmn"),
    "is_known": (torch.bool, "pmn"),
    "lengths": (torch.int64, "pmn"),
    "terminated": (torch.bool, "pmn"),
    "judge": (torch.int64, "m"),
    "clipped": (torch.float64, "p"),
}
"""Type and axes of each tensor: policies p, members m, starts n."""


class JudgedIdentity(BaseModel):
    """What is the same wherever answers may be compared start by start.

    Attributes:
        fits: digests of the judges' identities.
        judges: how they were asked, as their config says.
        samples: whether by draws.
        horizon: most steps of an episode.
        termination: who ended it.
        reward: who said what a step earns: `rule` or `learned`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fits: tuple[str, ...]
    judges: dict[str, Any]
    samples: bool
    horizon: int
    termination: str
    reward: str


def save_judged(path: Path, judged: Sequence[JudgedValue], *, identity: JudgedIdentity) -> None:
    """Writes all that was said, policy by policy.

    Args:
        path: of the file.
        judged: by the same members from the same starts.
        identity: of judges and question: what is said under another one is not paired with it.
    """
    returns = np.stack([value.returns for value in judged])
    arrays = {
        "returns": np.nan_to_num(returns, nan=0.0, posinf=0.0, neginf=0.0),
        "is_known": np.isfinite(returns),
        "lengths": np.stack([value.lengths for value in judged]),
        "terminated": np.stack([value.terminated for value in judged]),
        "judge": judged[0].judge,
        "clipped": np.array([value.clipped for value in judged]),
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    save_artifact(path, tensors, {"judged": identity.model_dump(mode="json")}, version=_VERSION)


def load_judged(path: Path) -> tuple[list[JudgedValue], JudgedIdentity]:
    """Inverse of `save_judged`: values and identity.

    Raises:
        FileError: the file is missing or damaged.
    """
    artifact = load_artifact(path, version=_VERSION, what="judged")
    identity = artifact.entry("judged", JudgedIdentity)
    sizes: dict[str, int] = {}
    for name, (dtype, axes) in _KINDS.items():
        tensor = artifact.tensors.get(name)
        if tensor is None or tensor.dtype != dtype or tensor.dim() != len(axes):
            raise artifact.error(f"it should be {dtype} with {len(axes)} dimensions", field=name)
        for axis, size in zip(axes, tensor.shape, strict=True):
            if size == 0 or sizes.setdefault(axis, size) != size:
                raise artifact.error(f"its shape {list(tensor.shape)} does not fit the others", field=name)
    return [_value(artifact.tensors, k) for k in range(sizes["p"])], identity


def _value(tensors: Mapping[str, Tensor], k: int) -> JudgedValue:
    returns = torch.where(tensors["is_known"][k], tensors["returns"][k], torch.nan)
    return JudgedValue(
        returns.numpy(),
        tensors["judge"].numpy(),
        tensors["lengths"][k].numpy(),
        tensors["terminated"][k].numpy(),
        float(tensors["clipped"][k]),
    )
