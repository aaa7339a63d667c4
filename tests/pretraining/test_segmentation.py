"""Whole words in scripts without spaces, and a Chinese LM from its text to a trained prompt."""

import json
import sys
import types

import pytest

from ptune.cli import main
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.pretraining import segmentation
from ptune.template.language import Template

LINES = [
    "今天天气很好，我们去公园散步。",
    "这部电影非常好看，我很喜欢。",
    "这部电影真的难看，我不喜欢。",
    "昨天下雨了，公园里没有人。",
]


def test_each_character_is_a_word():
    line = "我 love 北京。"
    offsets = [(0, 1), (2, 6), (7, 8), (8, 9), (9, 10)]
    assert (
        segmentation.unspaced_starts(
            line, offsets, [True, True, True, False, False], segmentation.characters
        )
        == [True] * 5
    )
    pieces = [(0, 1), (0, 1), (0, 1), (1, 2)]  # a character of several byte tokens, and another
    assert segmentation.unspaced_starts(
        "北京", pieces, [True, False, False, False], segmentation.characters
    ) == [True, False, False, True]


def test_words_are_those_of_a_segmenter(monkeypatch):
    def tokenize(text):
        yield from (("北京", 0, 2), ("大学", 2, 4))

    monkeypatch.setitem(sys.modules, "jieba", types.SimpleNamespace(tokenize=tokenize))
    segment = segmentation.segmenter("jieba")
    offsets = [(i, i + 1) for i in range(4)]
    words = segmentation.unspaced_starts("北京大学", offsets, [True] * 4, segment)
    assert words == [True, False, True, False]


def test_a_segmenter_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(ConfigError, match=r"pip install 'ptune\[chinese\]'"):
        segmentation.segmenter("jieba")


def test_a_chinese_lm_is_pretrained_and_prompted(tmp_path, monkeypatch, capsys):
    """Label words of several characters, a shortened text and a template in Chinese."""
    monkeypatch.chdir(tmp_path)
    text = "\n".join(LINES * 8) + "\n\n" + "\n".join(reversed(LINES * 8)) + "\n"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    sizes = ["--hidden-size", "32", "--layers", "1", "--heads", "2", "--length", "32"]
    small = ["--vocabulary-size", "120", "--steps", "2", "--batch-tokens", "64", "--held-out", "0"]
    main.main(["pretrain", "--texts", "text.txt", "--out", "lm", *sizes, *small])
    lm = LanguageModel.load("lm")
    assert len(lm.tokens.plain("公园")) == 2

    row = {"评论": "好看" * 60}
    template = Template.parse("{评论|shorten}这部电影{mask}。")
    encoded = template.encode(row, lm.tokens, "masked", max_length=32, answer=(None, None))
    assert len(encoded.ids) == 32 and encoded.cut > 80

    rows = [{"评论": LINES[1], "label": "好"}, {"评论": LINES[2], "label": "差"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows * 2)
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    task = """
name: 评论
template: "{soft:2}{评论|shorten}这部电影{mask}。"
labels: {好: 非常好看, 差: 真的难看}
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
lm: ./lm
max_length: 24
train: {epochs: 1, steps: 2}
out: out
"""
    (tmp_path / "task.yaml").write_text(task, encoding="utf-8")
    main.main(["train", "task.yaml"])
    assert "评论" in capsys.readouterr().out
    main.main(["predict", "out", "--data", "rows.jsonl"])
