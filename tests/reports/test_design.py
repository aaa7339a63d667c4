"""What all pages share: what counts as best, the first sentence, plots, colours."""

import re

import pytest
from matplotlib.figure import Figure

from ptune.reports.pages import design
from ptune.reports.pages.design import Dot, DotRow, Score


def test_what_is_within_one_deviation_of_the_best_is_near_it():
    scores = [Score("a", 0.80, 0.02, 3), Score("b", 0.78, 0.1, 3), None, Score("c", 0.779, 0.1, 3)]
    assert design.near_best(scores) == [True, True, False, False]
    assert design.near_best(scores[1:], lower_is_better=True) == [True, False, True]
    assert design.near_best([Score("a", 0.8), Score("b", 0.7991)]) == [True, False]
    assert design.near_best([Score("a", 0.8), Score("b", 0.79996)]) == [True, True], "as shown"
    assert design.near_best([None, None]) == [False, False] and design.near_best([]) == []


@pytest.mark.parametrize(
    ("scores", "options", "text"),
    [
        ([Score("a", 0.5)], {}, "reaches accuracy 0.500."),
        (
            [Score("b", 0.25), Score("a", 0.5)],
            {},
            "is best: accuracy 0.500, 0.250 above b (0.250), from one seed.",
        ),
        (
            [Score("a", 0.5, 0.1, 2), Score("b", 0.45, 0.2, 2)],
            {"baseline": Score("Majority", 0.75)},
            "is best: accuracy 0.500 ± 0.100, 0.050 above b (0.450 ± 0.200), within one standard "
            "deviation; 0.250 below the baseline Majority (0.750).",
        ),
        (
            [Score("b", 40.0, 1.0, 2), Score("a", 38.0, 1.0, 2)],
            {"digits": 2, "lower_is_better": True},
            "is best: accuracy 38.00 ± 1.00, 2.00 below b (40.00 ± 1.00), more than one standard "
            "deviation.",
        ),
        (
            [Score("a", 0.5), Score("b", 0.5)],
            {},
            "is best: accuracy 0.500, level with b (0.500), from one seed.",
        ),
    ],
)
def test_the_first_sentence_says_what_is_best_and_by_how_much(scores, options, text):
    assert design.answer(scores, "accuracy", **options) == design.Answer("a", text)
    assert design.answer([], "accuracy") is None


def test_dots_stand_on_their_axis():
    rows = [DotRow("a", [Dot(0.2, 0.1)], "0.200"), DotRow("b", [Dot(0.6, title="P-tuning")])]
    plot = design.dot_plot(rows, "P@1")
    assert plot.ticks[0] <= 0.1 and plot.ticks[-1] >= 0.6
    assert plot.place(plot.ticks[0]) == 0 and plot.place(plot.ticks[-1]) == 100
    assert 0 < plot.place(0.2) < plot.place(0.6) <= 100
    assert plot.description == "P@1 as dots. a: 0.200; b: P-tuning 0.600."
    assert design.dot_plot([DotRow("a", [])], "P@1") is None
    alike = design.dot_plot([DotRow("a", [Dot(0.5)])], "P@1")
    row = DotRow("a", [Dot(0.5), Dot(0.5), Dot(0.5)])
    assert [row.shift(number) for number in range(3)] == [-6, 0, 6], "equal dots are all seen"
    assert 0 < alike.place(0.5) < 100, "one value alone has an axis too"


def test_a_drawing_takes_the_colours_of_the_page():
    drawing = Figure()
    axes = drawing.subplots()
    axes.plot([0, 1], [0, 1], color=design.COLOURS[1])
    axes.set_title("<b>title</b>")
    text = design.svg(drawing, 'a "line" & more')
    assert text.startswith('<svg role="img" aria-label="a &#34;line&#34; &amp; more"')
    assert "var(--c1)" in text and "currentColor" in text
    assert design.INK not in text and design.COLOURS[1] not in text
    assert "#ffffff" not in text, "a white ground would glare on a dark page"


def test_colours_have_contrast_in_light_and_dark():
    """Text has 4.5 to 1, as WCAG's level AA asks, and so have the colours of plots."""
    page = design.render("page.html")
    light, dark = re.findall(r":root \{(.*?)\}", page, re.S)[:2]
    for scheme in (light, dark):
        colours = dict(re.findall(r"--([\w]+): (#\w+)", scheme))
        assert set(colours) >= {
            "back",
            "ink",
            "quiet",
            "right",
            "wrong",
            *(f"c{n}" for n in range(6)),
        }
        for name in set(colours) - {"back", "line", "soft"}:
            assert contrast(colours[name], colours["back"]) >= 4.5, (name, colours[name])
    assert [dict(re.findall(r"--([\w]+): (#\w+)", light))[f"c{n}"] for n in range(6)] == list(
        design.COLOURS
    )


def contrast(colour, other):
    """The ratio of two colours' luminances by WCAG 2."""
    brighter, darker = sorted((luminance(colour), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def luminance(colour):
    digits = colour.removeprefix("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear))


def test_pages_have_both_schemes_and_print_and_load_nothing():
    page = design.render("page.html")
    assert "prefers-color-scheme: dark" in page and "@media print" in page
    assert "url(" not in page and "@import" not in page and "src=" not in page
