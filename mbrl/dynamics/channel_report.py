"""What a fit says of single channels, of rewards, and of the states that networks choose from."""

from pydantic import BaseModel, ConfigDict


class ReportPart(BaseModel):
    """A part of what a fit says about itself: read-only, and without entries that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ConstantChannel(ReportPart):
    """An observation dimension that counts as constant (`mbrl.data.normaliser.Moments`).

    Attributes:
        dimension: its index.
        mean: raw units.
        std: raw units; 0 where it never changes.
    """

    dimension: int
    mean: float
    std: float


class CoarseChannel(ReportPart):
    """An observation dimension that float32 resolves badly: a part of its changes is rounding.

    Attributes:
        dimension: its index.
        size: largest magnitude, raw units.
        change: standard deviation of its change in a step, raw units.
        resolution: step of float32 at `size`, raw units.
    """

    dimension: int
    size: float
    change: float
    resolution: float


class RareChoice(ReportPart):
    """A choice whose effect the training rows say little or nothing of.

    Attributes:
        name: of the choice.
        rows: training rows that took it.
    """

    name: str
    rows: int


class ChannelReport(ReportPart):
    """What of the observation's dimensions, and of the choices, bears on the fit.

    Attributes:
        names: of all dimensions.
        constant: dimensions that count as constant; no error and no interval of them enters a verdict.
        coarse: dimensions that float32 resolves badly.
        rare_choices: choices that fewer than 30 training rows took, none among them.
    """

    names: tuple[str, ...] = ()
    constant: tuple[ConstantChannel, ...] = ()
    coarse: tuple[CoarseChannel, ...] = ()
    rare_choices: tuple[RareChoice, ...] = ()

    def label(self, dimension: int) -> str:
        """Name of a dimension."""
        return self.names[dimension] if dimension < len(self.names) else str(dimension)


class RewardOutliers(ReportPart):
    """Rewards far beyond all others; the model is fitted as if they lay five ranges of these beyond them.

    Attributes:
        count: how many.
        episode: index of the episode of the farthest one.
        row: its step in that episode.
        value: its value, reward units.
        least: least reward that is none of them.
        largest: largest reward that is none of them.
    """

    count: int
    episode: int
    row: int
    value: float
    least: float
    largest: float


class RewardReport(ReportPart):
    """The learned reward on held-out rows.

    Attributes:
        rmse: reward units.
        rmse_normalised: standard deviations of the reward.
        mean: mean logged reward.
        share_zero: share of rows with reward exactly 0: above a half, read the error with care.
        outliers: absurd rewards in the whole log, or None.
    """

    rmse: float
    rmse_normalised: float
    mean: float
    share_zero: float
    outliers: RewardOutliers | None = None


class SuccessorReport(ReportPart):
    """How likely networks over states hold what followed; judged as `CalibrationReport` is.

    Attributes:
        rows: held-out rows of the judging half, thinned.
        states: that any step of the log enters.
        temperature: of all logits.
        nll: mean of `-log p(s')` over members and rows, nats.
        marginal_nll: the same where every state follows as often as training steps enter it.
    """

    rows: int
    states: int
    temperature: float
    nll: float
    marginal_nll: float
