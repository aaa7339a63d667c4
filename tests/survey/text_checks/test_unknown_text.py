"""Texts that an LM cannot read are told before training."""

import pytest
import tiny

from ptune.errors import DataError
from ptune.survey.text_checks.unknown_text import check, is_visible
from ptune.template.tokenizer import Tokens

CHINESE = "\u5305\u88c5\u5f88\u597d"


@pytest.fixture(scope="module")
def tokens():
    return Tokens(tiny.tiny("bert")[1])


def test_what_is_unknown_is_refused_and_may_be_allowed(tokens):
    groups = [("The train rows", [CHINESE, "great film"])]
    with pytest.raises(
        DataError,
        match="The train rows: .*% of the pieces .* unknown .* Chinese "
        "characters.*bert-base-chinese.*--allow-unknown",
    ):
        check(groups, tokens, allow=False)
    assert "Chinese" in check(groups, tokens, allow=True)[0]
    few = check([("The dev rows", ["great film"] * 30 + [CHINESE[0]])], tokens, allow=False)
    assert len(few) == 1 and few[0].startswith("The dev rows: ") and "unknown" in few[0]
    assert check([("The dev rows", ["great film"] * 3)], tokens, allow=False) == []


def test_texts_without_a_visible_sign_are_counted(tokens):
    assert not is_visible(" \u200b\u00a0\ufe0f") and is_visible(" . ")
    with pytest.raises(
        DataError, match=r"The train rows: 1 of 3 texts are empty or have no visible sign \(row 3\)"
    ):
        check([("The train rows", ["great", "film", "\u200b"])], tokens, allow=False)
    texts = ["great"] * 500 + [""] * 7
    (said,) = check([("The dev rows", texts)], tokens, allow=False)
    assert said.endswith("have no visible sign (row 501, 502, 503, 504, 505, ...).")
