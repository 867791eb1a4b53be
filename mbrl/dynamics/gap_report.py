"""What a fit does not know: where it is unsure, which episodes it misses, what was never logged."""

from mbrl.dynamics.channel_report import ReportPart


class EpisodeError(ReportPart):
    """Errors one step ahead in a held-out episode, or in a held-out block of one.

    Attributes:
        episode: its number in the log.
        first_step: step of the episode that the block starts with.
        rows: steps judged.
        error: root mean square over steps and channels, deviations of the change.
        coverage: share of the coordinates inside the 90 % interval of the members' mixture.
        worst: dimension of the frame with the largest error.
    """

    episode: int
    first_step: int
    rows: int
    error: float
    coverage: float
    worst: int


class DoubtfulRange(ReportPart):
    """Values of a channel at which the model is unsure, and held-out errors are large.

    Attributes:
        channel: of `GapReport.channels`.
        low: lower end, raw units; None where the range is open.
        high: upper end, likewise.
        share: of the logged rows.
        doubt: median uncertainty there, over that of all rows.
        error: root mean square error of the held-out rows there, over that of all; None with too few.
    """

    channel: int
    low: float | None
    high: float | None
    share: float
    doubt: float
    error: float | None


class UnloggedAction(ReportPart):
    """An action that the log uses a part of: the model knows nothing of the rest.

    Attributes:
        channel: of `GapReport.channels`.
        low: least logged value but for 0.5 % of the rows, environment units.
        high: largest one, likewise.
        bound_low: least permitted value.
        bound_high: largest permitted value.
    """

    channel: int
    low: float
    high: float
    bound_low: float
    bound_high: float


class DoubtMap(ReportPart):
    """Uncertainty over the plane of the two channels along which it varies most.

    Attributes:
        channels: the two, of `GapReport.channels`; x first.
        x: centre of each cell that holds a row, raw units.
        y: likewise.
        count: logged rows.
        doubt: median uncertainty, over that of all rows.
        explained: share of the variance of the logarithm of the uncertainty between ranges of x, and of y.
    """

    channels: tuple[int, int]
    x: tuple[float, ...]
    y: tuple[float, ...]
    count: tuple[int, ...]
    doubt: tuple[float, ...]
    explained: tuple[float, float]


class GapReport(ReportPart):
    """What a fit does not know.

    Attributes:
        measure: of uncertainty, the one that ranks held-out errors best.
        channels: names of the newest frame's dimensions, then of continuous actions.
        episodes: held out, the worst first.
        ranges: the most doubtful first.
        unlogged: actions that are used in part.
        map: None with fewer than two channels that vary.
    """

    measure: str = ""
    channels: tuple[str, ...] = ()
    episodes: tuple[EpisodeError, ...] = ()
    ranges: tuple[DoubtfulRange, ...] = ()
    unlogged: tuple[UnloggedAction, ...] = ()
    map: DoubtMap | None = None

    def next_to_log(self) -> list[str]:
        """What further data should show, in words; empty where nothing stands out."""
        return [self._of_range(found) for found in self.ranges] + [
            f"Log {self.channels[found.channel]} beyond {found.low:.3g} to {found.high:.3g}, if the machine "
            f"permits: it may be {found.bound_low:.3g} to {found.bound_high:.3g}, and nothing is known of "
            "the rest."
            for found in self.unlogged
        ]

    def _of_range(self, found: DoubtfulRange) -> str:
        where = range_words(found.low, found.high)
        error = "" if found.error is None else f", held-out errors are {found.error:.2g} times as large"
        return (
            f"Log more with {self.channels[found.channel]} {where}: {_percent(found.share)} of the rows, "
            f"where the model is {found.doubt:.2g} times as unsure as usual{error}."
        )


def range_words(low: float | None, high: float | None) -> str:
    """`above 2`, `below 1`, `between 1 and 2`."""
    if low is None:
        return "anywhere" if high is None else f"below {high:.3g}"
    return f"above {low:.3g}" if high is None else f"between {low:.3g} and {high:.3g}"


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.{1 if share < 0.1 else 0}f} %"
