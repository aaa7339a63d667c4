import math
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import nltk
import pytest
from nltk.corpus.reader import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader
from nltk.translate.nist_score import corpus_nist

from ptune.errors import ConfigError, DataError
from ptune.metrics.texts import METRICS, check, score, score_all, unavailable

OFFLINE = [name for name in METRICS if name != "meteor"]
TEXTS = [
    "the cat sat on the mat near the door",
    "a dog barked at the tall man in the park",
    "rain fell on the town all day long and all night",
]
REFERENCES = [
    ["the cat sat on a mat by the door"],
    [
        "a dog barked at a tall man",
        "the dog in the park barked at the tall man",
        "at the man barked a dog in the park",
    ],
    ["it rained on the town all day long", "rain fell all day long and all night on the town"],
]


class WordNet:
    """The part of WordNet that METEOR asks for, with one pair of synonyms."""

    def ensure_loaded(self):
        pass

    def synsets(self, word):
        names = ("cat", "tom") if word in ("cat", "tom") else (word,)
        return [
            SimpleNamespace(
                lemmas=lambda: [SimpleNamespace(name=lambda name=name: name) for name in names]
            )
        ]


@pytest.fixture
def wordnet(monkeypatch):
    monkeypatch.setattr(nltk.corpus, "wordnet", WordNet())


@pytest.fixture
def no_wordnet(monkeypatch, tmp_path):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(
        nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, object())
    )
    return tmp_path


def score_of(name, text, *references):
    return score([text], [references], [name])[name]


def grams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def plain_bleu(texts, references):
    """BLEU-4 (Papineni et al. 2002) of texts whose words stand between spaces, with matches of
    every length."""
    length = closest = 0
    right, produced = [0] * 4, [0] * 4
    for text, text_references in zip(texts, references):
        words, others = text.split(), [reference.split() for reference in text_references]
        length += len(words)
        closest += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for n in range(1, 5):
            for gram, count in grams(words, n).items():
                produced[n - 1] += count
                right[n - 1] += min(count, max(grams(other, n)[gram] for other in others))
    return (
        100
        * min(1, math.exp(1 - closest / length))
        * math.prod(r / m for r, m in zip(right, produced)) ** 0.25
    )


def plain_rouge_l(texts, references):
    def common(a, b):
        if not a or not b:
            return 0
        return 1 + common(a[1:], b[1:]) if a[0] == b[0] else max(common(a[1:], b), common(a, b[1:]))

    best = [
        max(
            2 * common(text.split(), other.split()) / len(text.split() + other.split())
            for other in text_references
        )
        for text, text_references in zip(texts, references)
    ]
    return 100 * sum(best) / len(best)


def test_bleu_against_a_plain_one():
    assert score_of("bleu", "the cat sat on the mat", "the cat sat on a mat") == pytest.approx(
        100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    )
    assert score(TEXTS, REFERENCES, ["bleu"])["bleu"] == pytest.approx(
        plain_bleu(TEXTS, REFERENCES)
    )
    short = [" ".join(text.split()[:7]) for text in TEXTS]
    assert (
        score(short, REFERENCES, ["bleu"])["bleu"]
        == pytest.approx(plain_bleu(short, REFERENCES))
        != plain_bleu(TEXTS, REFERENCES)
    )
    assert score_of("bleu", "The cat sat on a mat", "the cat sat on a mat") < 100


def test_tokenised_texts_are_scored_without_advice(caplog):
    assert score(["it is in the centre ."] * 100, [["it is in the centre."]] * 100, ["bleu"])[
        "bleu"
    ] == pytest.approx(100)
    assert not caplog.records


def test_rouge_against_lins_examples_and_a_plain_one():
    reference = "Police killed the gunman."
    assert [
        score_of(f"rouge-{kind}", "police kill the gunman", reference) for kind in "12l"
    ] == pytest.approx([75, 100 / 3, 75])
    assert [
        score_of(f"rouge-{kind}", "the gunman kill police", reference) for kind in "12l"
    ] == pytest.approx([75, 100 / 3, 50])
    assert (
        score_of(
            "rouge-l", "the gunman kill police", reference, "nothing alike", "a gunman kills police"
        )
        == 50
    )
    assert score(TEXTS, REFERENCES, ["rouge-l"])["rouge-l"] == pytest.approx(
        plain_rouge_l(TEXTS, REFERENCES)
    )


def test_nist_by_hand_and_with_one_reference_as_nltk():
    several = score_of(
        "nist", "b b c", "a c", "a b b"
    )  # 5 words: 2 a, 2 b, 1 c; both b and the c count, each from another reference
    assert several == pytest.approx((2 * math.log2(5 / 2) + math.log2(5)) / 3 + math.log2(2) / 2)
    assert score_of("nist", "a b", "a c", "a b b") == pytest.approx(
        (math.log2(5 / 2) + math.log2(2)) * 0.5 ** (math.log(2 / 2.5) / math.log(1.5)) ** 2
    )
    assert score_of("nist", "a a", "a b", "a c") == 1 / 2  # no reference has two a
    longer = (
        (4 * math.log2(5) + math.log2(10)) / 5 + 1 / 4 + 1 / 3 + 1 / 2 + 1
    )  # n-grams ending in e are half as frequent as what they begin with
    assert score_of("nist", "a b c d e", "a b c d e", "a b c d f") == pytest.approx(longer)
    single = [text_references[-1] for text_references in REFERENCES]
    expected = corpus_nist(
        [[reference.split()] for reference in single], [text.split() for text in TEXTS]
    )
    assert score(TEXTS, [[reference] for reference in single], ["nist"])["nist"] == pytest.approx(
        expected
    )
    assert score_of("nist", "THE Cat, sat.", "the cat , sat .") == score_of(
        "nist", "the cat , sat .", "the cat , sat ."
    )


def test_cider_by_hand():
    def of_second(text):
        return 2 * score(["", text], [["a"], ["c d"]], ["cider"])["cider"] / 10

    assert score(["a b", "c x"], [["a b"], ["c d"]], ["cider"])["cider"] == pytest.approx(
        10 * (2 / 4 + 0.5 / 4) / 2
    )
    assert of_second("c d") == pytest.approx(2 / 4)
    assert of_second("c") == pytest.approx(0.5**0.5 / 4 * math.exp(-1 / 72))
    assert of_second("c c d") == pytest.approx(
        (2 / 10**0.5 + 0.5**0.5) / 4 * math.exp(-1 / 72)
    )  # of the two c one counts
    assert score(["a", "c"], [["a", "b"], ["c"]], ["cider"])["cider"] == pytest.approx(
        10 * (1 / 4 / 2 + 1 / 4) / 2
    )
    assert score(["the", "c"], [["the a"], ["the c"]], ["cider"])["cider"] == pytest.approx(
        10 * (1 / 4 * math.exp(-1 / 72)) / 2
    )  # every text has "the"
    assert score_of("cider", "a b c d", "a b c d") == 0


def test_ter_by_hand():
    assert score_of("ter", "b c d a", "a b c d") == 25  # one shift
    assert (
        score_of("ter", "a b c x", "a b c d", "a b c d e f") == 20
    )  # one edit, over the mean length
    assert score_of("ter", "A b", "a B") == 0


def test_chrf_by_hand():
    recall = (2 / 3 + 1 / 2) / 2
    assert score_of("chrf", "ab", "abc") == pytest.approx(100 * 5 * recall / (4 + recall))
    assert score_of("chrf", "ab", "abc", "xyz") == score_of("chrf", "ab", "abc")
    assert score_of("chrf", "a b", "ab") == 100


def test_meteor_by_hand(wordnet):
    expected = 100 * 0.75 / (0.9 * 1 + 0.1 * 0.75) * (1 - 0.5 * (1 / 3) ** 3)
    assert score_of("meteor", "The cat sat!", "the cat sat down.") == pytest.approx(expected)
    assert score_of("meteor", "the cat sat", "a dog", "the cat sat down") == pytest.approx(expected)
    assert score_of("meteor", "the cats sat", "the cat sat down") == pytest.approx(expected)
    assert score_of("meteor", "the tom sat", "the cat sat down") == pytest.approx(expected)
    assert score_of("meteor", "the tiger sat", "the cat sat down") < expected
    assert score_of("meteor", "", "the cat") == score_of("meteor", "!", "the cat") == 0


def test_without_wordnet_meteor_tells_what_is_lacking(no_wordnet):
    message = (
        "METEOR needs the data of WordNet, and NLTK finds none; fetch them with: python -m "
        "nltk.downloader wordnet"
    )
    assert unavailable(METRICS) == {"meteor": message} and unavailable(OFFLINE) == {}
    with pytest.raises(ConfigError) as caught:
        score(TEXTS, REFERENCES, ["bleu", "meteor"])
    assert str(caught.value) == message
    assert score_all(TEXTS, REFERENCES, list(METRICS)) == (
        score(TEXTS, REFERENCES, OFFLINE),
        {"meteor": message},
    )


def test_incomplete_wordnet_is_told_too(no_wordnet):
    (no_wordnet / "corpora" / "wordnet").mkdir(parents=True)
    assert "NLTK cannot read them" in unavailable(["meteor"])["meteor"]


def test_a_perfect_match_has_the_best_figures(wordnet):
    texts = ["one two three four five", "six seven eight nine ten"]
    best, left_out = score_all(texts, [["something else", text] for text in texts], list(METRICS))
    assert left_out == {}
    assert {
        name: value for name, value in best.items() if name not in ("nist", "meteor")
    } == pytest.approx(
        {
            "bleu": 100,
            "rouge-1": 100,
            "rouge-2": 100,
            "rouge-l": 100,
            "cider": 5,
            "ter": 0,
            "chrf": 100,
        }
    )
    assert best["meteor"] == pytest.approx(100 * (1 - 0.5 / 5**3))
    single = score(texts, [[text] for text in texts], ["nist", "cider"])
    assert single == pytest.approx({"nist": math.log2(10), "cider": 10})


@pytest.mark.parametrize("name", METRICS)
def test_more_matches_score_better(wordnet, name):
    worse = [text.replace("the", "her").replace("long", "short") for text in TEXTS]
    better = score(TEXTS, REFERENCES, [name])[name] - score(worse, REFERENCES, [name])[name]
    assert better < 0 if "LOWER is better" in METRICS[name] else better > 0


def test_the_order_of_references_does_not_matter_and_each_counts(wordnet):
    figures = score(TEXTS, REFERENCES, list(METRICS))
    assert (
        score(TEXTS, [text_references[::-1] for text_references in REFERENCES], list(METRICS))
        == figures
    )
    assert (
        score(TEXTS, [["", *text_references, " "] for text_references in REFERENCES], list(METRICS))
        == figures
    )
    unlike = [
        score(["ab", "cd"], [text_references, ["cd"]], ["chrf"])["chrf"]
        for text_references in (["xyz", "uvwxyz"], ["uvwxyz", "xyz"])
    ]
    assert unlike[0] == unlike[1]
    fewer = score(TEXTS, [text_references[:1] for text_references in REFERENCES], list(METRICS))
    assert all(fewer[name] != figures[name] for name in METRICS)


def test_empty_outputs_count_as_empty(wordnet):
    nothing = dict.fromkeys(METRICS, 0) | {"ter": 100}
    assert score(["", " "], [["a b c d e"], ["f", "g"]], list(METRICS)) == nothing
    assert score(["", TEXTS[1]], REFERENCES[:2], ["rouge-l"])["rouge-l"] == pytest.approx(
        score(TEXTS[1:2], REFERENCES[1:2], ["rouge-l"])["rouge-l"] / 2
    )
    assert (
        0
        < score(["", TEXTS[1]], REFERENCES[:2], ["bleu"])["bleu"]
        < score(TEXTS[1:2], REFERENCES[1:2], ["bleu"])["bleu"]
    )


@pytest.mark.parametrize(
    "texts, references, message",
    [
        ([], [], "no texts"),
        (["a"], [["a"], ["b"]], "1 texts and references for 2"),
        (["a", "b"], [["a"], []], "Text 2 has no reference"),
        (["a", "b"], [["", " "], ["b"]], "Text 1 has no reference"),
        (["a"], ["a"], "Text 1 has no reference; a list"),
    ],
)
def test_bad_corpora(texts, references, message):
    for compute in (score, score_all):
        with pytest.raises(DataError, match=message):
            compute(texts, references, ["bleu"])


def test_unknown_names():
    check(METRICS)
    for compute in (
        lambda names: score(["a"], [["a"]], names),
        lambda names: score_all(["a"], [["a"]], names),
        check,
    ):
        with pytest.raises(ConfigError, match="no metric 'rouge-3'. Did you mean 'rouge-"):
            compute(["bleu", "rouge-3"])


def test_the_libraries_wait_until_they_are_needed():
    code = (
        "import sys, ptune.metrics.texts; print(sorted({'nltk', 'sacrebleu', 'rouge_score'} & "
        "set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "[]\n"
    )
