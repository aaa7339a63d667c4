"""Scripts: where a text may be cut, and how wide it is."""

from ptune.template.fields import cut
from ptune.writing_systems import script_of, splits_no_character, width


def letters(text):
    """Every character as a token."""
    return [(i, i + 1) for i in range(len(text))]


def test_a_chinese_text_keeps_as_many_tokens_as_fit():
    text = "报告 " + "今天天气很好我们去公园散步" * 10
    assert cut(text, letters(text), 40, None) == text[:40]
    assert cut(text, letters(text), 40, "start") == text[-40:]


def test_a_word_of_a_script_with_spaces_stays_whole():
    text = "the cat sat on the mat"
    assert cut(text, letters(text), 10, None) == "the cat"
    assert cut(text, letters(text), 10, "start") == "on the mat"
    assert cut("unbroken", letters("unbroken"), 3, None) == "unb"
    mixed = "今天用 Python 写代码"
    assert cut(mixed, letters(mixed), 7, None) == "今天用"


def test_a_letter_keeps_its_marks():
    text = "วันนี้"  # the tone mark stands behind its vowel sign and its consonant
    cuts = [cut(text, letters(text), limit, None) for limit in range(2, len(text) + 1)]
    assert all(splits_no_character(text, len(kept)) for kept in cuts)
    hindi = "हिन्दीहिन्दी"
    assert splits_no_character(hindi, len(cut(hindi, letters(hindi), 7, None)))


def test_scripts():
    assert script_of(["今天天气很好"]) == "han"
    assert script_of(["今日は天気がいい"]) == "japanese"
    assert script_of(["สวัสดี"]) == "unspaced"
    assert script_of(["Привет", "мир ok"]) == script_of(["مرحبا"]) == script_of(["안녕"]) == "other"
    assert script_of(["Élan vital", "1"]) == script_of([]) == "latin"


def test_width():
    assert width("ab") == 2 and width("今天") == 4 and width("é") == 1
