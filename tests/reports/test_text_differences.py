"""Written texts beside references, with the differences marked."""

from ptune.reports.pages.parts.text_differences import differences


def marked(text, *references):
    marks = {"same": "{}", "added": "+{}+", "missing": "-{}-"}
    return "".join(marks[piece.kind].format(piece.text) for piece in differences(text, references))


def test_words_that_differ_from_the_nearest_reference():
    near, far = "The Eagle is a cheap pub .", "A restaurant named Eagle"
    assert marked("the Eagle is an old pub.", far, near) == "the Eagle is +an old +-a cheap -pub."
    assert marked("The Eagle is a pub.", near) == "The Eagle is a -cheap -pub."
    assert marked("The Eagle", far) == "+The +-A restaurant named -Eagle"


def test_a_text_without_a_reference_is_one_piece():
    assert marked("a b") == "a b" and marked(" ", "a") == " "


def test_nothing_of_a_text_is_lost():
    text = "  Two\nlines, and-marks:  (x) 5.2% é\n"
    pieces = differences(text, ["Other lines"])
    assert "".join(piece.text for piece in pieces if piece.kind != "missing") == text
