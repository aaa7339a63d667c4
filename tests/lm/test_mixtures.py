"""No row changes another: rows of any tasks in one batch answer as each of them alone, in every
family, by both routes of prefixes, read by every kind of verbalizer. `pytest
--hypothesis-profile=thorough` draws many more mixtures."""

import functools

import pytest
import tiny
import torch
from family_checks import FAR
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from more_families import BY_LENGTH, MORE, more_families  # noqa: F401 (the last is a fixture)

from ptune.answers.extraction import Extraction
from ptune.answers.from_row import Choices, Span
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import VisibilityRule
from ptune.template.language import Template

FAMILIES = [*tiny.FAMILIES, *MORE, *BY_LENGTH]
THOROUGH = settings.get_current_profile_name() == "thorough"
TEXT = "Vienna lies on the Danube , in the east of Austria ; its people speak German".split()
ONE = Verbalizer.from_words({"a": ["Yes", "great"], "b": "No", "c": "Maybe"})
SEVERAL = Verbalizer.from_words(
    {"a": ["great", "positive film"], "b": "terrible city", "c": "Maybe"}
)
STEPWISE = Verbalizer(SEVERAL.labels, SEVERAL.words, order="most-probable-first")
FIRST = Verbalizer(SEVERAL.labels, SEVERAL.words, order="left-to-right")
VOTES = Verbalizer(SEVERAL.labels, SEVERAL.words, aggregate="vote")
CHOICES = Choices(("choices",))
PART = Extraction("text")
WORD_LABELS = WordLabels("words", ("O", "B-a", "I-a"), "all")
TEMPLATES = {
    "words": ("{text} ? {mask}", ONE),
    "soft": ("{soft:3} {text} {soft:1} {mask}", SEVERAL),
    "prefix": ("{prefix:3} {text} is {mask}", ONE),
    "long prefix": ("{prefix:9} {text} {mask}", SEVERAL),
    "infix": ("{text} {prefix:2} ? it is {mask}", SEVERAL),
    "both": ("{prefix:1} {text} {soft:2} {mask}", CHOICES),
    "choices": ("The {text} ? {mask}", CHOICES),
    "stepwise": ("{prefix:2} {text} is {mask}", STEPWISE),
    "from the left": ("{soft:2} {text} is {mask}", FIRST),
    "soft words": ("{prefix:2} {text} {mask}", ONE),
    "prototypes": ("{soft:1} {text} {mask}", ONE),
    "head": ("{prefix:4} {text} ?", ONE),
    "pooled": ("{prefix:3} {soft:1} {text}", ONE),
    "words with labels": ("{prefix:2} {soft:1} {words} .", WORD_LABELS),
    "part of a text": ("{soft:2} {span} : {text} .", PART),
    "span": ("{prefix:1} {text} {mask}", Span("span")),
    "text": ("{prefix:2} {text} is {mask}", None),
    "weighted words": ("{text} is it {mask}", SEVERAL),
    "votes": ("{soft:1} {text} is it {mask}", VOTES),
    "gates": ("{prefix:3} {text} is {mask}", SEVERAL),
    "gates of an infix": ("{text} {prefix:2} ? it is {mask}", ONE),
    "gates of a text": ("{prefix:2} {soft:1} {text} is {mask}", None),
    "gates of words": ("{prefix:2} {words} .", WORD_LABELS),
    "hidden": ("{prefix:2} {soft:2} {text} {soft:3@s} is it {mask}", SEVERAL),
}
HIDDEN = [
    VisibilityRule(hide=("soft", "prefix"), from_="text"),
    VisibilityRule(hide="text", from_="soft@s"),
]
READER_OF = {
    "weighted words": "weighted-words",
    "soft words": "soft",
    "prototypes": "prototypes",
    "head": "head",
    "pooled": "head",
    "words with labels": "token-head",
    "gates of words": "token-head",
    "part of a text": "token-head",
}


@functools.cache
def build(family: str) -> PromptModel:
    """A bank of prompts of every kind that the family takes, with wide values."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    for name, (text, verbalizer) in TEMPLATES.items():
        if (
            verbalizer in (STEPWISE, FIRST) or isinstance(verbalizer, Span)
        ) and model.lm.kind != "masked":
            verbalizer = SEVERAL
        if verbalizer is None and model.lm.kind == "masked":
            continue
        reads_tokens = READER_OF.get(name) == "token-head"
        if (name == "pooled" or reads_tokens) and model.lm.kind == "encoder-decoder":
            continue
        if model.lm.kind == "encoder-decoder" and "infix" in name:
            text = "{prefix:2} {text} ? it is {mask}"
        if model.lm.kind == "causal" and name == "head":
            text = "{prefix:4} {text} ? it is"
        reads_twice = model.lm.kind == "encoder-decoder" and not model.lm.tokens.sentinel
        hides = name == "hidden" and model.lm.hides_tokens and not reads_twice
        model.add(
            Task(
                name,
                Template.parse(text).with_visibility(HIDDEN if hides else ()),
                verbalizer,
                "label",
                encoder="table",
                prefix=PrefixSettings(0, gates="row" if "gates" in name else False),
                reader=READERS[READER_OF.get(name, "words")],
                pooling="mean" if name == "pooled" else "first",
            )
        )
    for number, parameter in enumerate(model.bank.parameters()):
        torch.nn.init.normal_(parameter, 0, 0.7, generator=torch.Generator().manual_seed(number))
    return model


@st.composite
def mixtures(draw) -> list[tuple[int, int, int]]:
    """One to eight rows: the number of a template, where in the text the row begins, and how many
    words it has."""
    row = st.tuples(st.integers(0, len(TEMPLATES) - 1), st.integers(0, 5), st.integers(1, 9))
    return draw(st.lists(row, min_size=1, max_size=8))


def encoded(model: PromptModel, mixture):
    examples = []
    for number, start, count in mixture:
        words = TEXT[start : start + count]
        row = {
            "text": " ".join(words),
            "words": words,
            "choices": ["great", " ".join(words[:2])],
            "span": words[0],
            "label": "a",
        }
        task = number % len(model.tasks)
        if model.tasks[task].verbalizer is None:
            row["label"] = words[-1]
        elif isinstance(model.tasks[task].verbalizer, Choices):
            row["label"] = "0"
        elif isinstance(model.tasks[task].verbalizer, Span):
            row["label"] = "true"
        elif isinstance(model.tasks[task].verbalizer, Extraction):
            row["label"] = words[0]
        elif isinstance(model.tasks[task].verbalizer, WordLabels):
            row["label"] = ["O"] * len(words)
        examples += model.encode(task, [row])
    return examples


def answers(model: PromptModel, examples) -> list[torch.Tensor]:
    """The label scores of all examples as one batch; of texts, their losses."""
    chosen = [example for example in examples if example.has_labels]
    texts = [example for example in examples if not example.has_labels]
    scores = iter(model.scores(chosen, rows=1000) if chosen else [])
    losses = iter(model.text_losses(texts) if texts else [])
    return [
        next(scores) if example.has_labels else torch.tensor([next(losses)]) for example in examples
    ]


@pytest.mark.parametrize("family", FAMILIES)
@settings(
    max_examples=500 if THOROUGH else 4,
    deadline=None,
    derandomize=not THOROUGH,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mixture=mixtures())
def test_rows_in_a_mixture_are_the_rows_alone(family, mixture):
    model = build(family)
    examples = encoded(model, mixture)
    together = answers(model, examples)
    for example, actual in zip(examples, together):
        (expected,) = answers(model, [example])
        torch.testing.assert_close(actual, expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_kind_of_row_beside_every_other(family):
    """One short row of each template beside one long row of each, so that each kind is padded once
    and pads once."""
    model = build(family)
    mixture = [
        (number, number % 3, 1 if number % 2 == long else 9)
        for long in (0, 1)
        for number in range(len(TEMPLATES))
    ]
    examples = encoded(model, mixture)
    losses = model.losses(examples)
    together = answers(model, examples)
    assert (
        torch.stack(
            [scores.flatten()[:2].diff() for scores in together if scores.numel() > 1]
        ).std()
        > FAR
    ), "all answers are alike"
    for example, actual, loss in zip(examples, together, losses):
        (expected,) = answers(model, [example])
        torch.testing.assert_close(actual, expected, atol=2e-4, rtol=2e-4)
        if not model.tasks[example.task].task.reader.couples_rows:  # its loss is of a batch
            torch.testing.assert_close(loss, model.losses([example])[0], atol=5e-4, rtol=5e-4)
