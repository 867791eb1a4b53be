"""What is known of successors before a network is asked: how common they are, where they lie, usual moves.

Logits of a step from s to state k, which networks correct by outputs `free`, `moved`, `shift` and `raw`:

    l_k = free_k + log n_k + [k = s + move_j] (moved_j + log(1 + q_j / (rest n_k)))
          - 1/2 sum_d (c_kd - m_d)^2 / v_d,    m = s + mean change + shift,   v = exp(raw) within bounds

with n_k the share of k among training successors, c_k its numbers, and move_j the most common changes of all
training steps, with shares q_j that leave `rest` of the steps. So a network that says 0 says what all steps
did, near the state; "one to the right" is learned once, and not for each state; and what numbers do not tell
is `free`.
"""

import dataclasses
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl.nets.normaliser import Normaliser
from mbrl.ops.gaussian import soft_clamp

MOST_COORDINATES: Final = 64
"""Numbers of an observation beyond which they are taken for one-hot vectors, and no coordinates."""

# Deviations of the Gaussian over states, in ranges of the codes: above it is flat, below float32 rounds its
# logits, which are differences of squares, by more than 0.05.
_WIDEST, _NARROWEST = 4.0, 1.0 / 2000.0
_LEAST_REST: Final = 1e-3  # of the steps, that no move explains: no state is beyond reach


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class States:
    """The states of a log, S of them, S' that its steps enter, and D moves between them.

    Attributes:
        codes: `[S, obs_dim]` float32, raw units.
        entered: `[S']` int64, those that any step of the log enters, ascending.
        log_share: `[S']` float32, logarithm of the share of training steps that do; one more counts for each.
        follows: `[S, D]` int64, where each move leads from a state, an index into `entered`; -1 for nowhere.
        log_moves: `[D]` float32, logarithm of the share of training steps that are this move.
    """

    codes: Float[Tensor, "S d"]
    entered: Int[Tensor, "k"]
    log_share: Float[Tensor, "k"]
    follows: Int[Tensor, "S m"]
    log_moves: Float[Tensor, "m"]


def coordinates(obs_dim: int) -> int:
    """How many numbers of an observation are read as such: all, or none."""
    return obs_dim if obs_dim <= MOST_COORDINATES else 0


class SuccessorBase(nn.Module):
    """The logits that networks correct.

    Args:
        states: what there is to choose from.
        targets: normaliser of `(s' - s, r)`, in whose units places are compared.
    """

    def __init__(self, states: States, targets: Normaliser) -> None:
        super().__init__()
        for field in dataclasses.fields(States):
            self.register_buffer(field.name, getattr(states, field.name))
        self.obs_dim = states.codes.shape[1]
        self.moves = len(states.log_moves)
        self._derive(states, targets)

    def _derive(self, states: States, targets: Normaliser) -> None:
        """Tensors that follow from the states: places in units of the change, and squares in float64."""
        codes, count = states.codes.double(), coordinates(self.obs_dim)
        centre = codes.mean(0)
        places = ((codes - centre) / targets.std.double()[:-1])[:, :count]
        span = (places.amax(0) - places.amin(0)).clamp_min(1e-3)
        arrived, share = places[states.entered], states.log_share.double()
        raw = codes[states.entered] - centre
        moves = states.log_moves.exp()
        rest = (1.0 - moves.sum()).clamp_min(_LEAST_REST)
        reach = states.log_share[states.follows.clamp_min(0)].exp()
        derived = {
            "centre": centre,
            "places": places.float(),
            "drift": (targets.mean / targets.std)[:count],
            "powers": torch.cat((arrived, arrived.square(), share[:, None]), -1).T.float().contiguous(),
            "log_variances": 2.0 * torch.stack((_NARROWEST * span, _WIDEST * span)).log().float(),
            "raw_powers": torch.cat((raw, raw.square()), -1),
            "move_logits": (moves / (rest * reach)).log1p(),
        }
        for name, value in derived.items():
            self.register_buffer(name, value, persistent=False)

    @property
    def states(self) -> States:
        """What there is to choose from."""
        return States(**{field.name: self.get_buffer(field.name) for field in dataclasses.fields(States)})

    def forward(
        self,
        free: Float[Tensor, "m b k"],
        state: Int[Tensor, "m b"],
        *,
        moved: Float[Tensor, "m b j"],
        shift: Float[Tensor, "m b d"],
        raw: Float[Tensor, "m b d"],
    ) -> Float[Tensor, "m b k"]:
        """Logits of every successor, up to what all of a row share; differentiable.

        Args:
            free: `[m, b, S']`.
            state: `[m, b]`, index of s.
            moved: `[m, b, D]`.
            shift: `[m, b, obs_dim]`, deviations of the change; none above `MOST_COORDINATES`.
            raw: likewise.
        """
        low, high = self.get_buffer("log_variances")[:, None, None]
        precision = torch.exp(-soft_clamp(raw, low, high))
        place = self.get_buffer("places")[state] + self.get_buffer("drift") + shift
        # -1/2 (c - m)^2 / v = c m / v - 1/2 c^2 / v - 1/2 m^2 / v, of which the last is the same for all c.
        weights = (precision * place, -0.5 * precision, torch.ones_like(free[..., :1]))
        powers = self.get_buffer("powers").expand(len(free), -1, -1)
        logits = torch.baddbmm(free, torch.cat(weights, -1), powers)
        follows = self.get_buffer("follows")[state]
        bonus = torch.where(follows >= 0, moved + self.get_buffer("move_logits")[state], 0.0)
        return logits.scatter_add(-1, follows.clamp_min(0), bonus)
