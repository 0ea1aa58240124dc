"""Figures over the labels of a chart's axis, and what only looks like them."""

from rag.chart_columns import chart_columns
from rag.rows import PlacedLine


def _line(middle: float, top: float, text: str, width: float = 20) -> PlacedLine:
    return PlacedLine(middle - width / 2, top, middle + width / 2, top + 10, text)


def _axis(*labels: str, top: float = 200) -> list[PlacedLine]:
    return [_line(50 + 60 * n, top, text) for n, text in enumerate(labels)]


def test_figures_go_behind_the_label_below_them():
    figures = [_line(170, 40, "15%"), _line(50, 90, "73% "), _line(110, 120, "33%")]
    title, ticks = _line(110, 10, "Which system?", 90), [_line(5, 200, "0%"), _line(5, 20, "100%")]
    texts, others = chart_columns([title, *figures, *_axis("Linux", "macOS", "Other"), *ticks])
    assert texts == ["Linux 73%", "macOS 33%", "Other 15%"]
    assert others == [title, *ticks]


def test_several_figures_of_a_label_keep_their_order_and_long_labels_are_whole():
    figures = [
        _line(60, 50, "38%"),
        _line(40, 70, "29%"),
        _line(100, 30, "n/a"),
        _line(120, 9, "7%"),
    ]
    more = [_line(50, 210, "of the time", 30), _line(110, 300, "Source: us", 40)]
    texts, others = chart_columns([*figures, *_axis("Most", "No"), *more])
    assert texts == ["Most of the time 29% 38%", "No n/a 7%"]
    assert others == [more[1]]


def test_years_are_labels_but_the_ticks_of_an_axis_are_not():
    figures = [_line(50, 90, "72,445"), _line(110, 60, "77,031")]
    assert chart_columns([*figures, *_axis("2021", "2022")])[0] == ["2021 72,445", "2022 77,031"]
    assert chart_columns([*figures, *_axis("1,000", "2,000")])[0] == []
    as_one = [PlacedLine(35, 90, 100, 100, "72,445 77,031")]
    near = [_line(50, 200, "2021"), _line(85, 200, "2022")]
    assert chart_columns([*as_one, *near])[0] == ["2021 72,445", "2022 77,031"]


def test_a_label_of_every_second_column_is_given_no_neighbour():
    figures = [_line(50 + 30 * n, 90 - n, f"{n}00") for n in range(4)]
    texts, others = chart_columns([*figures, *_axis("2020", "2022")])
    assert texts == ["2020 000", "2022 200"]
    assert [line.text for line in others] == ["100", "300"]
    off_centre = [_line(58 + 60 * n, 90, f"{n}00") for n in range(2)]
    assert chart_columns([*off_centre, *_axis("2020", "2022")])[0] == []


def test_heads_of_columns_are_no_chart():
    dates = [_line(50, 188, "28,"), _line(110, 188, "29,")]
    assert chart_columns([*dates, *_axis("2023", "2022")])[0] == []
    years = [_line(50, 188, "2023"), _line(110, 188, "2022")]
    assert chart_columns([*years, *_axis("Unaudited", "Audited")])[0] == []
    turned = PlacedLine(45, 200, 55, 300, "Percent of all")
    figures = [_line(50, 90, "410"), _line(110, 90, "380")]
    assert chart_columns([*figures, turned, _line(110, 200, "Costs")])[0] == []


def test_rows_of_a_table_are_no_columns_of_the_next_ones_head():
    table = [_line(10, 90, "North"), _line(50, 90, "410"), _line(110, 90, "380")]
    assert chart_columns([*table, *_axis("Sales", "Costs")])[0] == []


def test_words_between_a_figure_and_a_label_part_them():
    figures = [_line(50, 90, "410"), _line(110, 90, "380")]
    between = _line(80, 150, "Another chart", 120)
    assert chart_columns([*figures, between, *_axis("Sales", "Costs")])[0] == []
    assert chart_columns(_axis("Sales", "Costs"))[0] == []
