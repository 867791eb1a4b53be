"""Values of finitely many choices: one network for all of them, in several members, by quantiles if asked."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl.nets.stack import StackedMLP


class ChoiceCritics(nn.Module):
    """`e` networks from a normalised observation to a value of each of `n` choices.

    A dueling network puts a value and advantages together, `Q(a) = V + A(a) - mean_a' A(a')` (Wang et al.
    2016, eq. 9); both come from one last hidden layer. With quantiles each value is a distribution of equally
    likely returns, and what `forward` tells is its mean (Dabney et al. 2018).

    Args:
        members: e.
        obs_dim: size of an observation.
        choices: n.
        hidden: widths of the hidden layers.
        generator: source of the initial weights.
        layer_norm: LayerNorm in the hidden layers.
        dueling: whether value and advantages are told apart.
        quantiles: q; 1 is a plain value.
    """

    def __init__(
        self,
        members: int,
        obs_dim: int,
        choices: int,
        hidden: Sequence[int],
        *,
        generator: torch.Generator,
        layer_norm: bool = False,
        dueling: bool = False,
        quantiles: int = 1,
    ) -> None:
        super().__init__()
        self.choices, self.dueling, self.quantile_count = choices, dueling, quantiles
        outputs = _outputs(choices, dueling=dueling, quantiles=quantiles)
        self.net = StackedMLP(members, obs_dim, hidden, outputs, generator=generator, layer_norm=layer_norm)

    @staticmethod
    def tensor_shapes(
        members: int,
        obs_dim: int,
        choices: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = False,
        dueling: bool = False,
        quantiles: int = 1,
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the state dict of networks of these sizes, by name, without making them."""
        outputs = _outputs(choices, dueling=dueling, quantiles=quantiles)
        return {"net.flat": StackedMLP.flat_shape(members, obs_dim, hidden, outputs, layer_norm=layer_norm)}

    def forward(self, obs_n: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "e b n"]:
        """`[e, b, n]`, return units."""
        return self.quantiles(obs_n).mean(-1)

    def quantiles(self, obs_n: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "e b n q"]:
        """`[e, b, n, q]`, the returns that are equally likely, in no order."""
        heads = self.net(obs_n).unflatten(-1, (-1, self.quantile_count))
        if not self.dueling:
            return heads
        value, advantage = heads[..., :1, :], heads[..., 1:, :]
        # The mean is taken out: V and A are else known up to a constant only, and learn against each other.
        return value + advantage - advantage.mean(-2, keepdim=True)


def _outputs(choices: int, *, dueling: bool, quantiles: int) -> int:
    return (choices + dueling) * quantiles
