"""Figures of findings, and the episodes in which they stand."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mbrl.core.names import shared_letters
from mbrl.data.inspection.finding import Chart, DataFinding
from mbrl.data.inspection.record import Record
from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.plots import Bars, Line, Mark, draw_bars, draw_lines
from mbrl.report.kit.viewer import MAX_CHANNELS, MAX_EPISODES, ViewedEpisode, ViewedMark, Viewer
from mbrl.report.kit.wording import format_count

_MANY_MARKED = 40
_TONES = {"error": "bad", "warning": "caution", "note": "plain"}


def finding_pictures(findings: Sequence[DataFinding]) -> list[Picture]:
    """A figure of each finding that has one."""
    pictures: list[Picture] = []
    for number, finding in enumerate(findings):
        if finding.chart is not None:
            name = f"finding-{number}-{finding.kind.replace('_', '-')}"
            pictures.append(
                Picture(
                    name,
                    finding.chart.title,
                    draw_chart(finding.chart),
                    alt=finding.text,
                    note=finding.remedy,
                )
            )
    return pictures


def draw_chart(chart: Chart) -> Figure:
    """A chart in the style of all figures."""
    if chart.bars:
        groups = [Bars(curve.label, curve.y, k) for k, curve in enumerate(chart.curves)]
        return draw_bars(_shortened(chart.bars), groups, x_label=chart.x_label)
    lines = [Line(curve.label, curve.x, curve.y) for curve in chart.curves]
    return draw_lines(
        lines,
        x_label=chart.x_label,
        y_label=chart.y_label,
        across=[Mark(*mark) for mark in chart.across],
        upright=[Mark(*mark) for mark in chart.upright],
        is_log=chart.is_log,
        is_dots=chart.is_dots,
    )


def _shortened(names: Sequence[str], most: int = 26) -> list[str]:
    """Names without the beginning and the end that all share, where they are long."""
    if len(names) < 2 or max(map(len, names)) <= most:
        return list(names)
    start = shared_letters(names)
    stop = shared_letters([name[start:][::-1] for name in names])
    inner = [name[start : len(name) - stop] or name for name in names]
    return [name if len(name) <= most else f"...{name[3 - most :]}" for name in inner]


def viewer_section(record: Record, findings: Sequence[DataFinding]) -> Section:
    """Episodes against time, with the findings that have a place marked."""
    viewer = make_viewer(record, findings)
    shown, whole = len(viewer.episodes), len(record.traces)
    noun = "run" if record.is_raw else "episode"
    text = f"{'All' if shown == whole else f'{shown} of'} {format_count(whole, noun)}; "
    text += f"at most {viewer.points} points for each channel, the smallest and the largest value of every "
    text += "stretch. "
    text += "Marked are the findings that stand at a place; choose one to look closer."
    if len(record.channels) > len(viewer.channels):
        text += f" The first {len(viewer.channels)} of {len(record.channels)} columns are shown."
    return Section("Episodes against time", text=text, viewer=viewer)


def make_viewer(record: Record, findings: Sequence[DataFinding]) -> Viewer:
    """Episodes with marks first chosen, the rest evenly spread; all in their order."""
    chosen = _chosen(record, findings)
    number = {episode: k for k, episode in enumerate(chosen)}
    channels = record.channels[:MAX_CHANNELS]
    index = {channel.name: k for k, channel in enumerate(channels)}
    marks: list[ViewedMark] = []
    notes: list[tuple[str, str, str]] = []
    for finding in findings:
        places = [place for place in finding.places if place.episode in number]
        for place in places:
            at = -1 if place.channel is None else index.get(place.channel, -1)
            marks.append(ViewedMark(number[place.episode], place.start, place.stop, at, len(notes)))
        if places:
            notes.append((_TONES[finding.severity], finding.kind.replace("_", " "), finding.text))
    episodes = [
        ViewedEpisode(trace.name, trace.time, trace.values[:, : len(channels)])
        for trace in (record.traces[k] for k in chosen)
    ]
    return Viewer([(channel.name, channel.role) for channel in channels], episodes, marks, notes)


def _chosen(record: Record, findings: Sequence[DataFinding]) -> list[int]:
    count = len(record.traces)
    if count <= MAX_EPISODES:
        return list(range(count))
    marked = dict.fromkeys(place.episode for finding in findings for place in finding.places)
    chosen = set(list(marked)[:_MANY_MARKED])
    for episode in np.linspace(0, count - 1, MAX_EPISODES).astype(int).tolist():
        if len(chosen) < MAX_EPISODES:
            chosen.add(episode)
    return sorted(chosen)
