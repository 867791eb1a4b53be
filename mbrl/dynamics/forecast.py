"""Forecasts of several steps: particles, as far as held-out episodes believe them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

MARGIN = 0.1
"""How far beyond the range of the log imagined states may go, in widths of it."""


class Forecast(nn.Module):
    """Turns the particles of an ensemble into a forecast that is honest at every horizon.

    An open-loop unstable machine amplifies any error until particles say nothing of where it is. Two things
    keep what is said of it honest:

    - Particles stay in the box that the log spans, widened by `MARGIN` and up to the state they began in.
    - Their mean m and the ends of their interval are corrected as ensemble forecasts of the weather are
      (Gneiting et al. 2005), with the log's mean c as the climate, for each step and dimension:

          forecast = c + share (m - c)
          end      = forecast + width (end of the particles - m)

      The share in [0, 1] makes the squared error on held-out episodes least, so that a forecast is no worse
      than c there; the width makes 90 % of them fall inside the 90 % interval. Where nothing can be known any
      more, the forecast is the mean and the spread of the log.

    Args:
        center: `[k]`, mean of the training rows: observations, then the reward, raw units.
        share: `[h, k]` in [0, 1], by step; later steps have the last one.
        width: `[h, k]`, > 0, likewise.
        low: `[obs_dim]`, least of the training observations less the margin.
        high: `[obs_dim]`, largest of them with the margin.
    """

    center: Tensor
    share: Tensor
    width: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        center: Float[Tensor, "k"],
        share: Float[Tensor, "h k"],
        width: Float[Tensor, "h k"],
        *,
        low: Float[Tensor, "obs_dim"],
        high: Float[Tensor, "obs_dim"],
    ) -> None:
        super().__init__()
        parts = {"center": center, "share": share, "width": width, "low": low, "high": high}
        for name, value in parts.items():
            self.register_buffer(name, value.detach().to(torch.float32).clone())

    @classmethod
    def plain(cls, obs_dim: int) -> "Forecast":
        """Leaves particles as they are."""
        ones = torch.ones(1, obs_dim + 1)
        unbounded = torch.full((obs_dim,), torch.inf)
        return cls(torch.zeros(obs_dim + 1), ones, ones, low=-unbounded, high=unbounded)

    @staticmethod
    def tensor_shapes(steps: int, obs_dim: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the state dict."""
        return {
            "center": (obs_dim + 1,),
            "share": (steps, obs_dim + 1),
            "width": (steps, obs_dim + 1),
            "low": (obs_dim,),
            "high": (obs_dim,),
        }

    def bounds(self, start: Float[Tensor, "s obs_dim"]) -> tuple[Tensor, Tensor]:
        """Least and largest values that the futures of each start may take, `[s, obs_dim]` each."""
        return torch.minimum(start, self.low), torch.maximum(start, self.high)

    def correct(
        self, step: int, mean: Tensor, low: Tensor, high: Tensor
    ) -> tuple[Float[Tensor, "s k"], Float[Tensor, "s k"], Float[Tensor, "s k"]]:
        """Mean and ends of the interval of the forecast.

        Args:
            step: from 0, the first step after the start.
            mean: `[s, k]` of the particles: observations, then the reward, raw units.
            low: `[s, k]` lower end of their interval.
            high: `[s, k]` upper end.
        """
        row = min(step, len(self.share) - 1)
        share, width = self.share[row], self.width[row]
        # m + (1 - share) (c - m): exactly m where all of it is believed.
        forecast = torch.lerp(mean, self.center.expand_as(mean), 1.0 - share)
        # The ends of skewed particles may both lie on one side of their mean.
        below, above = (low - mean).clamp_max(0.0), (high - mean).clamp_min(0.0)
        return forecast, forecast + width * below, forecast + width * above
