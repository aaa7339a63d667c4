"""What the wording of prompts has to do with their scores: how grammatical it is to the LM itself,
how long, and how like the hand-written one, as rank correlations over all that were tried."""

from collections.abc import Sequence

from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer

from ptune.reports.search_results import CandidateScore, Wordings
from ptune.search.common.running_search import RunningSearch
from ptune.search.common.token_scores import mean_log_probs, rows_of_text
from ptune.template.language import EncodedRow, Field, Mask, Template

LEAST = 8  # templates from which a correlation is computed
SAMPLED = 2  # train rows with which a template is read as a text


def correlations(search: RunningSearch, tried: Sequence[CandidateScore]) -> dict[str, float]:
    """Spearman's rank correlation of each property with the figure on train; none where there are
    too few templates, or all have the same figure. Perplexity is left out where the LM is an
    encoder-decoder or the budget ends before.

    Args:
        tried: the candidates with their scores on train.
    """
    first = {one.template: one for one in reversed(tried) if one.train is not None}
    scored = list(reversed(first.values()))
    figures = [one.train for one in scored]
    if len(scored) < LEAST or len(set(figures)) < 2:
        return {}
    templates = [Template.parse(one.template) for one in scored]
    tokens = search.task.lm.tokens
    words = [" ".join(_words(template)) for template in templates]
    values = {"length in tokens": [float(len(tokens.plain(text))) for text in words]}
    if search.task.patterns:
        manual = " ".join(_words(Template.parse(search.task.patterns[0])))
        values["likeness to the hand-written one"] = likeness(words, manual)
    if perplexities := _log_perplexities(search, templates):
        values["perplexity to the LM"] = perplexities
    return {
        name: float(spearmanr(of_all, figures).statistic)
        for name, of_all in values.items()
        if len(set(of_all)) > 1
    }


def _words(template: Template) -> list[str]:
    """The template's text, without its fields and the answer."""
    parts = [part for part in template.parts if not isinstance(part, Field | Mask)]
    return [part.text.strip() for part in parts if hasattr(part, "text")]


def likeness(texts: Sequence[str], other: str) -> list[float]:
    """How like each text is to another: the cosine of their letters in twos to fours (TF-IDF)."""
    table = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))
    vectors = table.fit_transform([*(text or "." for text in texts), other or "."])
    return (vectors[:-1] @ vectors[-1].T).toarray()[:, 0].tolist()


def _log_perplexities(search: RunningSearch, templates: Sequence[Template]) -> list[float]:
    """The log perplexity of each template, filled with train rows and their right words."""
    task, lm = search.task, search.task.lm
    if lm.kind == "encoder-decoder":
        return []
    texts = [text for template in templates for text in _as_texts(search, template)]
    calls = sum(len(rows_of_text(lm, text)[0]) for text in texts)
    if not search.budget.allows(calls):
        return []
    done = search.stage(
        "wordings",
        [[template.source for template in templates]],
        lambda _: Wordings(log_probs=mean_log_probs(lm, texts), calls=calls),
        form=Wordings,
    )[0]
    search.budget.spent += done.calls
    size = len(task.train[:SAMPLED])
    groups = [done.log_probs[i : i + size] for i in range(0, len(done.log_probs), size)]
    return [-sum(group) / len(group) for group in groups]


def _as_texts(search: RunningSearch, template: Template) -> list[EncodedRow]:
    """A template as whole texts: with the first train rows and their right words."""
    task, lm = search.task, search.task.lm
    texts = []
    for row in task.train[:SAMPLED]:
        word = lm.tokens.words([task.answers_of(row)[0]], template.place)[0]
        answer = [*word, None] if lm.kind == "causal" else word
        fitted = template.for_lm(lm.tokens, lm.kind)[0]
        texts.append(
            fitted.encode(row, lm.tokens, lm.kind, max_length=task.max_length, answer=answer)
        )
    return texts
