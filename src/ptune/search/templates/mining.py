"""Templates mined from a corpus (LPAQA, Jiang et al. 2020, section 3.1): the words between a
subject and its right answer, and windows around them, in sentences that have both."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ptune.errors import ConfigError
from ptune.reports.search_results import CandidateScore
from ptune.search.common.running_search import RunningSearch

MOST_WORDS = 10  # between subject and answer
WINDOW = 2  # words beside the two that a template may take in
LEAST = 2  # times that a template stands in the corpus, where some stand so often
MOST = 100  # templates that are candidates
WORD = re.compile(r"\w+")
Pairs = Mapping[str, Sequence[tuple[str, tuple[str, ...]]]]


def propose(search: RunningSearch, sentences: Iterable[str]) -> list[CandidateScore]:
    """The templates that connect train rows with their right answers in sentences, the most
    frequent first; hand-written ones before them.

    Args:
        sentences: of a corpus. Dev rows have no part in what is mined.

    Raises:
        ConfigError: the task's rows have several fields, or no sentence connects a row with its
            answer.
    """
    task = search.task
    if task.field is None:
        raise ConfigError(
            f"{task.name} asks rows of several fields, and templates are mined for one: a subject "
            "and its answer."
        )
    pairs = pairs_of([(str(row[task.field]), task.answers_of(row)) for row in task.all_train])
    counts = count(pairs, sentences)
    if not counts:
        raise ConfigError(
            f"No sentence of the corpus has the {task.field} of a train row of {task.name} and its "
            "right answer."
        )
    often = [text for text, times in counts.items() if times >= LEAST] or list(counts)
    order = sorted(often, key=lambda text: (-counts[text], text))[:MOST]
    search.report(
        f"{len(counts)} templates stand in the corpus, {len(often)} of them often enough."
    )
    field = "{" + task.field + "}"
    return [
        *(CandidateScore(template=text, source="manual") for text in task.patterns),
        *(
            CandidateScore(
                template=text.replace("[X]", field).replace("[Y]", "{mask}"),
                source=f"mined, {counts[text]} times",
            )
            for text in order
        ),
    ]


def pairs_of(rows: Iterable[tuple[str, Sequence[str]]]) -> Pairs:
    """Subjects with their answers, in lower case, by the first word of the subject."""
    answers: dict[str, dict[str, None]] = {}
    for subject, right in rows:
        answers.setdefault(subject.lower(), {}).update(dict.fromkeys(map(str.lower, right)))
    pairs: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for subject, known in answers.items():
        if first := WORD.match(subject):
            pairs.setdefault(first[0], []).append((subject, tuple(known)))
    return pairs


def count(pairs: Pairs, sentences: Iterable[str]) -> Counter[str]:
    """How often each template connects a subject with one of its answers, with [X] and [Y] in their
    places."""
    counts: Counter[str] = Counter()
    for sentence in sentences:
        lowered = sentence.lower()
        if len(lowered) == len(sentence):
            counts.update(set(_of_sentence(pairs, sentence, lowered)))
    return counts


def _of_sentence(pairs: Pairs, sentence: str, lowered: str) -> Iterator[str]:
    """The templates of one sentence."""
    for word in WORD.finditer(lowered):
        for subject, answers in pairs.get(word[0], ()):
            x = (word.start(), word.start() + len(subject))
            if not _stands(lowered, subject, x[0]):
                continue
            for answer in answers:
                for match in re.finditer(re.escape(answer), lowered):
                    y = match.span()
                    apart = y[0] >= x[1] or x[0] >= y[1]
                    if apart and _stands(lowered, answer, y[0]):
                        yield from templates_around(sentence, x, y)


def _stands(text: str, words: str, start: int) -> bool:
    """Whether words stand at a place of a text, as whole words."""
    end = start + len(words)
    if text[start:end] != words or not words:
        return False
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (_joins(before, words[0]) or _joins(after, words[-1]))


def _joins(letter: str, beside: str) -> bool:
    return letter.isalnum() and beside.isalnum()


def templates_around(
    sentence: str, subject: tuple[int, int], answer: tuple[int, int]
) -> Iterator[str]:
    """The templates that a sentence gives: the words between subject and answer, and with one or
    two words before the first or behind the second.

    Args:
        subject, answer: where they begin and end.
    """
    places = sorted([(subject, "[X]"), (answer, "[Y]")])
    (first, first_name), (second, second_name) = places
    middle = " ".join(sentence[first[1] : second[0]].split())
    if not WORD.search(middle) or len(middle.split()) > MOST_WORDS or not _is_clean(middle):
        return
    space = "" if sentence[second[0] - 1 : second[0]].strip() else " "
    joined = "" if sentence[first[1] : first[1] + 1].strip() else " "
    core = f"{first_name}{joined}{middle}{space}{second_name}"
    yield core
    before, after = sentence[: first[0]].split(), sentence[second[1] :].split()
    for size in range(1, WINDOW + 1):
        left, right = " ".join(before[-size:]), " ".join(after[:size])
        if len(before) >= size and _is_clean(left) and sentence[first[0] - 1].isspace():
            yield f"{left} {core}"
        if len(after) >= size and _is_clean(right):
            gap = " " if sentence[second[1] : second[1] + 1].isspace() else ""
            yield f"{core}{gap}{right}"


def _is_clean(text: str) -> bool:
    """Whether words may stand in a template: no digits, no signs of the template language."""
    return not re.search(r"[\d{}\[\]|]", text)
