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
    assert texts == ["Linux\t73%", "macOS\t33%", "Other\t15%"]
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
    assert texts == ["Most of the time\t29%\t38%", "No\tn/a\t7%"]
    assert others == [more[1]]


def test_years_are_labels_but_the_ticks_of_an_axis_are_not():
    figures = [_line(50, 90, "72,445"), _line(110, 60, "77,031")]
    assert chart_columns([*figures, *_axis("2021", "2022")])[0] == ["2021\t72,445", "2022\t77,031"]
    assert chart_columns([*figures, *_axis("1,000", "2,000")])[0] == []
    as_one = [PlacedLine(35, 90, 100, 100, "72,445 77,031")]
    near = [_line(50, 200, "2021"), _line(85, 200, "2022")]
    assert chart_columns([*as_one, *near])[0] == ["2021\t72,445", "2022\t77,031"]


def test_a_label_of_every_second_column_is_given_no_neighbour():
    figures = [_line(50 + 30 * n, 90 - n, f"{n}00") for n in range(4)]
    texts, others = chart_columns([*figures, *_axis("2020", "2022")])
    assert texts == ["2020\t000", "2022\t200"]
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


def test_figures_go_behind_the_name_right_above_them():
    ages = [*_axis("10代", "20代", "65歳以上", top=100), *_axis("6", "23", "40", top=115)]
    title = _line(50, 80, "年代")
    assert chart_columns([title, *ages]) == (["10代\t6", "20代\t23", "65歳以上\t40"], [title])
    two = [*_axis("港", "新宿", top=100), PlacedLine(30, 115, 130, 125, "1267 (1211) 2858 (2806)")]
    below = [
        *_axis("渋谷", "中野", top=130),
        PlacedLine(30, 145, 130, 155, "1033 (922) 1133 (1068)"),
    ]
    assert chart_columns([*below, *two])[0] == [
        "港\t1267\t(1211)",
        "新宿\t2858\t(2806)",
        "渋谷\t1033\t(922)",
        "中野\t1133\t(1068)",
    ]


def test_names_over_other_figures_keep_them_apart():
    names, figures = _axis("Sales", "Costs", top=100), _axis("410", "380", top=115)
    assert chart_columns([*names, *figures])[0] == ["Sales\t410", "Costs\t380"]
    for more in (
        [_line(10, 115, "North")],  # a row of a table, with a label
        _axis("12", "14", top=130),  # and one without
        [_line(170, 115, "9")],  # more figures than names
    ):
        assert chart_columns([*names, *figures, *more])[0] == []
    over = _axis("12", "14", top=85)  # as in a chart
    assert chart_columns([*over, *names, *figures])[0] == ["Sales\t12", "Costs\t14"]
    others = [*_axis("East", "West", top=70), *over, _line(170, 85, "16")]  # of one more name
    assert chart_columns([*others, *names, *figures])[0] == ["Sales\t410", "Costs\t380"]
    assert chart_columns([*others, *names])[0] == []
    far = [_line(70 + 60 * n, 115, text) for n, text in enumerate(("410", "380"))]
    assert chart_columns([*names, *far])[0] == ["Sales\t410", "Costs\t380"]
    far = [_line(85 + 60 * n, 115, text) for n, text in enumerate(("410", "380"))]
    assert chart_columns([*names, *far])[0] == []
    assert chart_columns([*names, *_axis("（1）", "（2）", top=115)])[0] == []
