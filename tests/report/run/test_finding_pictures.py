import numpy as np

from mbrl.data.inspection.finding import Chart, Curve, DataFinding, Place
from mbrl.data.inspection.record import Channel, Record, Trace
from mbrl.report.kit.viewer import MAX_EPISODES
from mbrl.report.run.finding_pictures import draw_chart, finding_pictures, make_viewer, viewer_section


def record(traces: int) -> Record:
    channels = (Channel("x", "observation"), Channel("u", "action"))
    made = [Trace(f"run {k}", "", np.arange(9.0), np.full((9, 2), float(k))) for k in range(traces)]
    return Record("toy", channels, tuple(made), 1.0, is_raw=True)


def finding(*places: Place) -> DataFinding:
    curve = Curve(label="a", x=(0.0, 1.0), y=(1.0, 3.0))
    chart = Chart(title="Title", x_label="s", y_label="m", curves=(curve,), upright=(("here", 0.5),))
    return DataFinding(
        severity="warning", text="A gap.", remedy="max_gap: 1.", kind="gaps", places=places, chart=chart
    )


def test_every_chart_becomes_a_picture_with_its_remedy():
    (picture,) = finding_pictures([finding(), DataFinding(severity="note", text="t", remedy="r")])
    assert (picture.title, picture.alt, picture.note) == ("Title", "A gap.", "max_gap: 1.")
    assert [line.get_ydata().tolist() for line in picture.figure.axes[0].lines[:1]] == [[1.0, 3.0]]


def test_bars_are_named_without_what_all_share():
    names = tuple(f"a/very/long/folder/of/runs/{k}/trajectory.csv" for k in "abc")
    chart = Chart(title="t", x_label="ms", bars=names, curves=(Curve(label="", x=(), y=(1.0, 2.0, 3.0)),))
    axes = draw_chart(chart).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert sorted(bar.get_width() for bar in axes.patches) == [1.0, 2.0, 3.0]


def test_marks_stand_in_the_episodes_that_are_listed():
    place = Place(episode=97, start=2.0, stop=3.0, channel="u")
    viewer = make_viewer(record(200), [finding(place)])
    assert len(viewer.episodes) == MAX_EPISODES
    (mark,) = viewer.marks
    assert viewer.episodes[mark.episode].name == "run 97"
    assert (mark.start, mark.stop, mark.channel) == (2.0, 3.0, 1)
    assert viewer.notes == [("caution", "gaps", "A gap.")]


def test_the_text_says_how_much_is_shown():
    assert viewer_section(record(3), []).text.startswith("All 3 runs; at most 1200 points")
    assert viewer_section(record(200), []).text.startswith("60 of 200 runs;")
