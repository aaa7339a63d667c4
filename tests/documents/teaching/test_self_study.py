"""Study text that the LM writes: behind a text that is read once it goes on as behind the whole
text, and what is no text of its kind is left out."""

import pytest
import torch
from documents_kit import TEXT, lm_of

from ptune.documents.teaching import self_study, study
from ptune.documents.teaching.study import Study


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma", "opt"])
def test_rows_behind_one_text_go_on_as_each_whole_text_does(family):
    lm = lm_of(family)
    before = [*lm.tokens.before, *lm.tokens.start(TEXT[:50])]
    rows = [tuple(lm.tokens.follow(text)) for text in ("\nVienna lies on the", "\nRome", "\nParis")]
    assert len({len(row) for row in rows}) == 2
    together = lm.write_behind(before, rows, max_new_tokens=8)
    for row, written in zip(rows, together):
        ids = [*before, *row]
        for token in written:
            with torch.no_grad():
                scores = lm.model(torch.tensor([ids])).logits[0, -1]
            assert token == scores.argmax()
            ids.append(token)
        assert len(written) == 8


@pytest.mark.parametrize(
    "kind, text, expected",
    [
        ("question", " Where is it?\nAnswer: In Wien.\nQuestion: x", ("Where is it?", "In Wien.")),
        ("question", " Where is it?\n\nAnswer: In Wien.", None),
        ("question", "\nAnswer: In Wien.", None),
        ("question", " a\nb\nAnswer: c", None),
        ("summary", " It is a town.\n\nMore", "It is a town."),
        ("use", " \n ", None),
    ],
)
def test_what_is_no_text_of_its_kind_is_left_out(kind, text, expected):
    one = self_study.study_of("a", kind, text)
    if expected is None:
        assert one is None
    elif kind == "question":
        assert (one.question, one.answer, one.written) == (*expected, kind)
    else:
        assert (one.text, one.written) == (expected, kind)


def test_sources_have_their_shares():
    slices = [Study(document="a", text="x", start=0)] * 50
    given = [Study(document="a", question="q", answer="a")] * 3
    written = [Study(document="a", text="y", written="summary")] * 4
    chosen = study.in_shares([*slices, *given, *written], 0.2, 0.3)
    assert [chosen.count(some[0]) for some in (slices, given, written)] == [50, 20, 30]
    assert study.in_shares(slices, 0.2, 0.3) == slices
    assert len(study.in_shares([*slices, *written], 0.2, 0.5)) == 100
