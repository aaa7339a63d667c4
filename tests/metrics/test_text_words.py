"""Figures over texts in scripts without spaces, and in scripts that are not Latin."""

import pytest

from ptune.errors import ConfigError
from ptune.metrics import text_words
from ptune.metrics.texts import METRICS, score

PERFECT = {
    "zh": "今天天气很好，我们去公园散步。",
    "char": "วันนี้อากาศดีมาก เราไปเดินเล่น",
    "unicode": "Сегодня очень хорошая погода .",
    "13a": "The weather is very good today.",
}
NAMES = [name for name in METRICS if name not in ("meteor", "nist", "cider")]


@pytest.mark.parametrize("split", PERFECT)
def test_a_perfect_text_has_a_perfect_figure_in_any_script(split):
    text = PERFECT[split]
    assert text_words.split_for([[text]]) == split
    figures = score([text], [[text]], NAMES)
    assert figures.pop("ter") == 0
    assert all(value == pytest.approx(100) for value in figures.values()), figures
    assert score([text, "a"], [[text], ["b"]], ["cider"])["cider"] == pytest.approx(5)


def test_a_text_half_right_is_between():
    figures = score(["今天天气不错，我们去公园。"], [[PERFECT["zh"]]], NAMES)
    assert all(0 < value < 100 for value in figures.values())


def test_japanese_takes_characters_where_there_is_no_mecab(monkeypatch):
    text = "今日は天気がとてもいいです。"
    monkeypatch.setattr(text_words, "unavailable", lambda split: "no MeCab")
    assert text_words.split_for([[text]]) == "char"
    assert score([text], [[text]], ["bleu", "rouge-l"]) == pytest.approx(
        {"bleu": 100, "rouge-l": 100}
    )
    monkeypatch.setattr(text_words, "unavailable", lambda split: "")
    assert text_words.split_for([[text]]) == "ja-mecab"


def test_a_split_whose_package_is_missing_is_refused(monkeypatch):
    def missing(split):
        raise RuntimeError("Please install MeCab\nand more")

    monkeypatch.setattr(text_words, "splitter", missing)
    with pytest.raises(ConfigError, match=r"ja-mecab needs MeCab .*sacrebleu\[ja\]"):
        score(["a"], [["a"]], ["bleu"], "ja-mecab")


def test_what_was_split_unusually_is_told():
    assert text_words.sentence("13a") == ""
    assert "Chinese" in text_words.sentence("zh") and "zh" in text_words.sentence("zh")
