"""Figures over generated texts, each with several references: BLEU, NIST, METEOR, ROUGE, CIDEr, TER
and chrF.

BLEU, chrF and TER are sacrebleu's, ROUGE is rouge-score's and METEOR is NLTK's. NIST and CIDEr-D
are written here from their papers: NLTK's NIST takes one reference for each n-gram order, where
NIST's script mteval-v13a counts against all of them, and divides by zero where no output has five
words; the usual CIDEr comes with a tokeniser in Java.

Texts are split into words as the script of the references asks for (``text_words``); what stands
below of words is said of texts in Latin letters.

E2E's own script ignores case in BLEU, splits words for ROUGE-L and CIDEr with Stanford's tokeniser,
weighs recall higher in ROUGE-L and calls METEOR 1.5; published figures therefore differ from these
by more than their last digit.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ptune.errors import ConfigError, DataError, nearest
from ptune.metrics import text_words

Grams = Counter[tuple[str, ...]]
METRICS = {
    "bleu": "BLEU-4 of the corpus in percent, higher is better (sacrebleu: 13a tokens, cased, "
    "exponential smoothing).",
    "nist": "NIST-5 of the corpus, from 0, higher is better (Doddington 2002, counted as "
    "mteval-v13a does: 13a tokens, lower case).",
    "meteor": "METEOR in percent, mean over texts, higher is better (NLTK with WordNet: 13a words "
    "without punctuation, lower case, the best reference).",
    "rouge-1": "F1 of single words in percent, mean over texts, higher is better (rouge-score: "
    "runs of a-z and 0-9, lower case, the best reference).",
    "rouge-2": "F1 of word pairs in percent, mean over texts, higher is better (rouge-score: as "
    "rouge-1).",
    "rouge-l": "F1 of the longest common subsequence in percent, mean over texts, higher is "
    "better (rouge-score: as rouge-1).",
    "cider": "CIDEr-D, 0 to 10, mean over texts, higher is better (Vedantam et al. 2015: 13a "
    "words without punctuation, lower case, mean over "
    "references); 0 for a single text, since its document frequencies are over the texts scored.",
    "ter": "Translation edit rate of the corpus in percent, from 0, LOWER is better (sacrebleu: "
    "words between spaces, case ignored).",
    "chrf": "chrF2 of the corpus in percent, higher is better (sacrebleu: 1 to 6 characters "
    "without spaces, cased, the best reference; where none shares a character with the text, the "
    "first in the order of the alphabet, so that the order of references changes nothing).",
}


def check(names: Iterable[str]) -> None:
    """A ConfigError where a name is none of ``METRICS``."""
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"There is no metric {name!r}. {nearest(name, METRICS)}")


def unavailable(names: Collection[str]) -> dict[str, str]:
    """Of the named metrics, those that cannot be computed on this machine, and why."""
    return {"meteor": lack} if "meteor" in names and (lack := _lacking_wordnet()) else {}


def score(
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    names: Sequence[str],
    split: str = "auto",
) -> dict[str, float]:
    """The figures of a corpus under each name of ``METRICS``.

    Args:
        texts: [N] the outputs; an empty one counts as a text of no words.
        references: [N] for each output its references, one or more; their order does not matter,
            and blank ones do not count.
        split: how texts are split into words, one of ``text_words.ABOUT``; "auto" goes by the
            script of the references.

    Raises:
        ConfigError: an unknown metric, or one whose data are not on this machine.
        DataError: no texts, or a text without a reference: its number is told.
    """
    check(names)
    if lacks := unavailable(names):
        raise ConfigError(" ".join(lacks.values()))
    return _compute(texts, references, names, split)


def score_all(
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    names: Sequence[str],
    split: str = "auto",
) -> tuple[dict[str, float], dict[str, str]]:
    """As ``score``, but a metric whose data are not on this machine is left out: the figures, and
    for each one left out, why."""
    check(names)
    left_out = unavailable(names)
    kept = [name for name in names if name not in left_out]
    return _compute(texts, references, kept, split), left_out


def _compute(
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    names: Sequence[str],
    split: str,
) -> dict[str, float]:
    if not texts:
        raise DataError("There are no texts to score.")
    if len(texts) != len(references):
        raise DataError(f"There are {len(texts)} texts and references for {len(references)}.")
    kept = [
        []
        if isinstance(text_references, str)
        else sorted(reference for reference in text_references if reference.strip())
        for text_references in references
    ]
    if [] in kept:
        raise DataError(
            f"Text {kept.index([]) + 1} has no reference; a list of one or more texts is expected."
        )
    if split == "auto":
        split = text_words.split_for(kept)
    elif lack := text_words.unavailable(split):
        raise ConfigError(lack)
    return {name: SCORERS[name](texts, kept, split) for name in names}


def _sacrebleu(
    texts: Sequence[str], references: Sequence[Sequence[str]], kind: str, **options: Any
) -> float:
    """A figure of sacrebleu's class ``kind`` with these options."""
    from sacrebleu import metrics

    count = max(map(len, references))
    streams = [
        [text_references[i] if i < len(text_references) else None for text_references in references]
        for i in range(count)
    ]
    return float(getattr(metrics, kind)(**options).corpus_score(texts, streams).score)


def _bleu(texts: Sequence[str], references: Sequence[Sequence[str]], split: str) -> float:
    # force: no advice on texts that are tokenised already, as E2E's are
    tokens = "13a" if split == "unicode" else split
    return _sacrebleu(texts, references, "BLEU", force=True, tokenize=tokens)


def _ter(texts: Sequence[str], references: Sequence[Sequence[str]], split: str) -> float:
    has_spaces = split in ("13a", "unicode", "ko-mecab")
    options = {} if has_spaces else {"normalized": True, "asian_support": True}
    return _sacrebleu(texts, references, "TER", **options)


def _chrf(texts: Sequence[str], references: Sequence[Sequence[str]], split: str) -> float:
    return _sacrebleu(texts, references, "CHRF")


@dataclass(frozen=True)
class _Words:
    """A tokenizer as rouge-score calls it."""

    split: str

    def tokenize(self, text: str) -> list[str]:
        return text_words.words(text, self.split)


def _rouge(
    texts: Sequence[str], references: Sequence[Sequence[str]], split: str, kind: str
) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], tokenizer=None if split == "13a" else _Words(split))
    return (
        100
        * sum(
            scorer.score_multi(text_references, text)[kind].fmeasure
            for text, text_references in zip(texts, references)
        )
        / len(texts)
    )


def _meteor(texts: Sequence[str], references: Sequence[Sequence[str]], split: str) -> float:
    from nltk.corpus import wordnet
    from nltk.translate.meteor_score import meteor_score

    words = [
        (
            text_words.words(text, split),
            [text_words.words(reference, split) for reference in text_references],
        )
        for text, text_references in zip(texts, references)
    ]
    return (
        100
        * sum(
            meteor_score(text_references, text, wordnet=wordnet) for text, text_references in words
        )
        / len(texts)
    )


def _lacking_wordnet() -> str:
    try:
        from nltk.corpus import wordnet

        wordnet.ensure_loaded()
    except ImportError:
        return "METEOR is NLTK's, which is not installed: pip install 'ptune[meteor]'"
    except (LookupError, OSError) as error:
        which = "finds none" if isinstance(error, LookupError) else f"cannot read them ({error})"
        return (
            f"METEOR needs the data of WordNet, and NLTK {which}; fetch them with: python -m "
            "nltk.downloader wordnet"
        )
    return ""


def _nist(texts: Sequence[str], references: Sequence[Sequence[str]], split: str) -> float:
    """The mean information of the n-grams that a reference shares, summed over n = 1..5, times a
    penalty for short outputs."""
    outputs = [_grams(_tokens(text, split), 5) for text in texts]
    corpus = [
        [_grams(_tokens(reference, split), 5) for reference in text_references]
        for text_references in references
    ]
    counts = Grams()
    for text_references in corpus:
        for reference in text_references:
            counts.update(reference)
    counts[()] = _length(counts)
    gained, produced = dict.fromkeys(range(1, 6), 0.0), dict.fromkeys(range(1, 6), 0)
    for output, text_references in zip(outputs, corpus):
        clipped_counts = functools.reduce(Counter.__or__, text_references)
        for gram, count in output.items():
            produced[len(gram)] += count
            if gram in clipped_counts:
                gained[len(gram)] += min(count, clipped_counts[gram]) * math.log2(
                    counts[gram[:-1]] / counts[gram]
                )
    ratio = produced[1] / sum(
        sum(map(_length, text_references)) / len(text_references) for text_references in corpus
    )
    penalty = 0.5 ** (math.log(min(ratio, 1)) / math.log(1.5)) ** 2 if ratio else 0.0
    return penalty * sum(gained[n] / produced[n] for n in produced if produced[n])


def _cider(texts: Sequence[str], references: Sequence[Sequence[str]], split: str) -> float:
    """CIDEr-D, the form that the COCO and E2E scripts report as CIDEr: cosines of tf-idf over
    n-grams of n = 1..4, with counts clipped to the reference's and a Gaussian penalty (sigma 6
    words) on a difference in length, averaged over n and the references, times 10."""
    corpus = [
        [_grams(text_words.words(reference, split), 4) for reference in text_references]
        for text_references in references
    ]
    having = Counter(gram for text_references in corpus for gram in set().union(*text_references))
    weights = {gram: math.log(len(texts) / count) for gram, count in having.items()}
    total = 0.0
    for text, text_references in zip(texts, corpus):
        output = _grams(text_words.words(text, split), 4)
        total += sum(
            _likeness(output, reference, weights, math.log(len(texts)))
            for reference in text_references
        ) / len(text_references)
    return 10 * total / len(texts)


def _likeness(
    output: Grams, reference: Grams, weights: dict[tuple[str, ...], float], rare: float
) -> float:
    """The CIDEr-D of an output and one reference, 0 to 1; rare is the weight of n-grams that no
    reference has."""
    total = 0.0
    for n in range(1, 5):
        output_weights, reference_weights = (
            {
                gram: count * weights.get(gram, rare)
                for gram, count in grams.items()
                if len(gram) == n
            }
            for grams in (output, reference)
        )
        product = sum(
            min(output_weights[gram], weight) * weight
            for gram, weight in reference_weights.items()
            if gram in output_weights
        )
        total += (
            product
            / (math.hypot(*output_weights.values()) * math.hypot(*reference_weights.values()))
            if product
            else 0.0
        )
    return total / 4 * math.exp(-((_length(output) - _length(reference)) ** 2) / (2 * 6**2))


def _grams(words: Sequence[str], longest: int) -> Grams:
    return Counter(
        tuple(words[i : i + n]) for n in range(1, longest + 1) for i in range(len(words) - n + 1)
    )


def _length(grams: Grams) -> int:
    return sum(count for gram, count in grams.items() if len(gram) == 1)


def _tokens(text: str, split: str) -> list[str]:
    """The tokens of a text in lower case, punctuation among them."""
    return text_words.splitter(split)(text.lower()).split()


SCORERS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]], str], float]] = {
    "bleu": _bleu,
    "nist": _nist,
    "meteor": _meteor,
    "rouge-1": functools.partial(_rouge, kind="rouge1"),
    "rouge-2": functools.partial(_rouge, kind="rouge2"),
    "rouge-l": functools.partial(_rouge, kind="rougeL"),
    "cider": _cider,
    "ter": _ter,
    "chrf": _chrf,
}
