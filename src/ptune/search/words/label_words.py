"""Words for the labels of a task: candidates by three methods from one run of the LM for each
pattern."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ptune.answers.label_words import Verbalizer
from ptune.errors import ConfigError
from ptune.model.prompt_model import PromptModel
from ptune.reports.search_results import CandidateScore
from ptune.search.common import candidates as scoring
from ptune.search.common.running_search import RunningSearch
from ptune.search.words import scores
from ptune.search.words.classifier import best_of_classifier
from ptune.tasks.layouts.lama import whole_words
from ptune.tasks.schema import Words

ASSIGNED = 20  # assignments of LM-BFF that are candidates


@dataclass(frozen=True)
class WordScores:
    """What the LM says of every word at the answer's place of one pattern.

    Attributes:
        words: the words, each another one for this LM.
        log_probs: of the words for each train row [B, W].
        right: the number of each row's label [B].
    """

    pattern: str
    words: Sequence[str]
    log_probs: torch.Tensor
    right: torch.Tensor


def propose(search: RunningSearch, words: Sequence[str] | None, each: int) -> list[CandidateScore]:
    """Words for the labels with every pattern: those of PETAL, of AutoPrompt's classifier, and the
    best assignments of LM-BFF; and the task's own words first, so that a search is never worse on
    dev than these.

    Args:
        words: those that may stand for a label; every whole word of the LM by default.
        each: words of a label at most.

    Raises:
        ConfigError: the task has no labels, or no pattern that this LM can read; or the budget is
            too small.
    """
    task = search.task
    if not task.words:
        raise ConfigError(f"{task.name} has no labels for which words could be searched.")
    manual = [CandidateScore(template=pattern, source="manual") for pattern in task.patterns]
    manual = [one.model_copy(update={"words": dict(task.words)}) for one in manual]
    readable = [one for one in manual if scoring.cost(task, one, task.train)]
    if not readable:
        raise ConfigError(
            f"{task.name} has no pattern without soft tokens that this LM can read, in which words "
            "for its labels could be searched: give it patterns."
        )
    groups = _by_words(search, [one.template for one in readable], words)
    proposed = [one for group in groups for one in _of_group(search, group, each)]
    return [*readable, *proposed]


def _by_words(
    search: RunningSearch, patterns: Sequence[str], words: Sequence[str] | None
) -> list[list[WordScores]]:
    """The scores of words for each pattern, those over the same words together: a word may be one
    token at the start of a text and several behind other text."""
    groups: dict[tuple[str, ...], list[WordScores]] = {}
    for pattern in patterns:
        one = word_scores(search, pattern, words)
        groups.setdefault(tuple(one.words), []).append(one)
    return list(groups.values())


def word_scores(search: RunningSearch, pattern: str, words: Sequence[str] | None) -> WordScores:
    """Run the LM once on the train rows, and read every word at the answer's place."""
    task = search.task
    model = PromptModel(task.lm, max_length=task.max_length)
    asked = CandidateScore(template=pattern, words=dict(task.words))
    number = task.add(model, asked)
    place = model.tasks[number].template.place
    listed = whole_words(task.lm.tokens) if words is None else list(words)
    if words is None:
        ids = task.lm.tokens.words(listed, place)
        listed = [word for word, pieces in zip(listed, ids) if len(pieces) == 1]
    verbalizer = _different(search, listed, place)
    labels = list(task.words)
    plain = replace(model.tasks[number].task, verbalizer=verbalizer, target="")
    read = PromptModel(task.lm, max_length=task.max_length)
    fills = len(read.encode(read.add(plain), task.train[:1], labelled=False)[0].fills)
    calls = fills * len(task.train)
    if not search.budget.allows(calls, search.reserved(asked)):
        raise ConfigError(
            f"--budget {search.budget.limit} is too small: the words of one pattern need {calls} "
            f"rows, after {search.budget.spent}, and the scores on dev {search.reserved(asked)}."
        )
    search.budget.spent += calls
    log_probs = read.word_scores(task.train, 0).float()
    right = torch.tensor([example.label for example in model.encode(number, task.train)])
    assert len(labels) > int(right.max())
    return WordScores(pattern, verbalizer.labels, log_probs, right)


def _different(search: RunningSearch, words: Sequence[str], place: str) -> Verbalizer:
    """The words that this LM knows, each once by its tokens.

    Raises:
        ConfigError: there are too few.
    """
    tokens = search.task.lm.tokens
    unknown, special = tokens.tokenizer.unk_token_id, set(tokens.tokenizer.all_special_ids)
    by_ids: dict[tuple[int, ...], str] = {}
    for word, ids in zip(words, tokens.words(words, place)):  # type: ignore[arg-type]
        if ids and unknown not in ids and special.isdisjoint(ids):
            by_ids.setdefault(tuple(ids), word)
    if len(by_ids) < len(search.task.words):
        raise ConfigError(
            f"Of {len(words)} words this LM knows {len(by_ids)}, and {search.task.name} has "
            f"{len(search.task.words)} labels: give more with --words."
        )
    listed = tuple(by_ids.values())
    return Verbalizer(listed, tuple((word,) for word in listed), length="sum")


def _of_group(
    search: RunningSearch, group: Sequence[WordScores], each: int
) -> list[CandidateScore]:
    """The candidates of patterns that are read by the same words."""
    words, right = group[0].words, group[0].right
    log_probs = [one.log_probs for one in group]
    labels = list(search.task.words)
    for number, label in enumerate(labels):
        if not (right == number).any():
            raise ConfigError(f"No train row has the label {label!r}, for which words are wanted.")
    ratios = [scores.best_ratios(log_probs, right, n, each) for n in range(len(labels))]
    sets = [
        (_first(ratios, size), f"likelihood ratio, {_counted(size)} a label")
        for size in range(1, each + 1)
    ]
    classifier = best_of_classifier(search, [one.pattern for one in group], words, each)
    if classifier is not None:
        sets += [
            (_first(classifier, size), f"classifier, {_counted(size)} a label")
            for size in range(1, each + 1)
        ]
    limit = scores.words_each(len(labels))
    likely = [scores.best_conditional(log_probs, right, n, limit) for n in range(len(labels))]
    sets += [
        ([[word] for word in one], f"conditional probabilities, {number}")
        for number, one in enumerate(scores.best_assignments(log_probs, right, likely, ASSIGNED), 1)
    ]
    chosen = [(_named(labels, words, one), source) for one, source in sets if _apart(one)]
    return [
        CandidateScore(template=one.pattern, words=named, source=source)
        for named, source in chosen
        for one in group
    ]


def _counted(size: int) -> str:
    return "1 word" if size == 1 else f"{size} words"


def _first(ranked: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """The best words of each label; a word that is among those of several labels goes to the one
    that ranks it higher, and the others take their next."""
    places: dict[int, int] = {}
    for words in ranked:
        for place, word in enumerate(words):
            places[word] = min(place, places.get(word, place))
    kept = [[word for place, word in enumerate(words) if places[word] == place] for words in ranked]
    return [words[:size] for words in kept]


def _apart(words: Sequence[Sequence[int]]) -> bool:
    """Whether every label has a word, and no two the same."""
    flat = [word for of_label in words for word in of_label]
    return all(words) and len(set(flat)) == len(flat)


def _named(labels: Sequence[str], words: Sequence[str], numbers: Sequence[Sequence[int]]) -> Words:
    """The words of each label: a text where it is one, else a list."""
    listed = [[words[number] for number in of_label] for of_label in numbers]
    return {label: one[0] if len(one) == 1 else one for label, one in zip(labels, listed)}
