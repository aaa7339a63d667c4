"""The templates and words by which a method asks a task."""

import itertools
from dataclasses import dataclass

from ptune.answers.readers.reader import Reader
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, TemplateError
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.reading import Reading
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.schema import Words
from ptune.template.language import Field, Soft, Template
from ptune.template.parts import with_soft_words
from ptune.training.methods import PET, Method

FOR_WORDS = ("p-tuning-v2+head", "prefix-tuning", "p-tuning", "prompt-tuning-adamw", "head")


@dataclass(frozen=True)
class Member:
    """One way to ask a task: a template, the labels' words, how far its seed is from the task's,
    and the hand-written pattern that the template is made of, where it is of one alone."""

    template: str
    words: Words
    seed: int = 0
    pattern: str = ""


def members(
    form: TaskForm, method: Method, lm: LanguageModel | Reading | None = None
) -> list[Member]:
    """How a method asks the task: by its template; where it has patterns, by all that the method
    makes of those, with every verbalizer; each as often as there are prompts of different seeds.

    Raises:
        ConfigError: the task has nothing for this method, or its verbalizers are of other labels.
    """
    answers = form.answers
    for words in answers.verbalizers:
        if tuple(words) != answers.names:
            raise ConfigError(
                f"A verbalizer of {form.name} has the labels {list(words)}, and the task has "
                f"{list(answers.names)}: give all, in that order."
            )
    verbalizers = [answers.labels, *answers.verbalizers]
    patterns = [""]
    if answers.word_labels and not form.template:
        templates = [_around_words(method, Field(answers.word_labels.field).shown)]
    elif not form.patterns:
        templates = [
            framed(method, form.template)
            if form.template and method.trains_words
            else form.template
        ]
    elif method.takes_pattern:
        patterns = list(form.patterns)
        templates = [framed(method, pattern) for pattern in patterns]
    else:
        templates, verbalizers = (
            [
                method.frame.replace("<template>", form.template).replace(
                    "<inputs>", inputs(form, lm)
                )
            ],
            [answers.labels],
        )
    if not all(templates):
        raise ConfigError(f"{form.name} has no template, which {method.name} needs.")
    choices = itertools.product(zip(templates, patterns), verbalizers, range(form.prompts))
    return [Member(template, words, seed, pattern) for (template, pattern), words, seed in choices]


def framed(method: Method, pattern: str) -> str:
    """The template that a method makes of a hand-written pattern.

    Raises:
        TemplateError: the pattern cannot be parsed.
    """
    if not method.trains_words:
        return method.frame.replace("<pattern>", pattern)
    return method.frame.replace("<soft pattern>", with_soft_words(Template.parse(pattern).parts))


def check_softened(method: Method, member: Member) -> None:
    """Refuse a pattern in which a method that trains its words finds none.

    Raises:
        TemplateError: it is such a pattern.
    """
    parts = Template.parse(member.template).parts
    if method.trains_words and not any(isinstance(part, Soft) for part in parts):
        raise TemplateError(
            f"The pattern {member.pattern!r} has no words that {method.name} could train."
        )


def _around_words(method: Method, words: str) -> str:
    """The template of a method whose rows are words with labels: its learned tokens before them."""
    frame = method.frame.replace("<template>", "{soft:3} <inputs> {soft:3}")
    frame = frame.replace("<soft pattern>", "<inputs>")
    return frame.replace("<pattern>", words).replace("<inputs>", words)


def parsed(form: TaskForm, template: str) -> Template:
    """A template of the task, in which a list of words is joined.

    Raises:
        TemplateError: it cannot be parsed, or lacks the field of the words.
    """
    whole = Template.parse(template)
    words = form.answers.word_labels
    return whole.joined(words.field) if words else whole


def asked(form: TaskForm, member: Member) -> Template:
    """The template of a member, with the task's rules on who sees whom.

    Raises:
        TemplateError: it cannot be parsed, or a rule names nothing in it.
    """
    return parsed(form, member.template).with_visibility(form.visibility)


def reader_of(form: TaskForm, method: Method) -> type[Reader]:
    """What reads the task's labels.

    Raises:
        ConfigError: the method reads whole rows, and the task labels words.
    """
    if not form.answers.are_read_at_tokens:
        return READERS[method.reader or form.reading.by]
    if method.reader not in (None, "head", "token-head"):
        raise ConfigError(
            f"{form.name} {_what(form)}, and {method.name} reads whole rows: take "
            f"{', '.join(FOR_WORDS)}."
        )
    return READERS["token-head"]


def check_trained(form: TaskForm, method: Method) -> None:
    """Refuse a method that trains no head, where single tokens are read by one, and one that learns
    no weights of words, where the labels are read by such.

    Raises:
        ConfigError: it is such a method.
    """
    if reader_of(form, method) is READERS["weighted-words"]:
        _check_weights(form, method)
    if form.answers.are_read_at_tokens and method.tune in ("nothing", "head"):
        raise ConfigError(
            f"{form.name} {_what(form)}, by a head that is trained, and {method.name} trains "
            f"none: take {', '.join(FOR_WORDS)}."
        )


def _check_weights(form: TaskForm, method: Method) -> None:
    """Refuse weights of words where nothing learns them, or another aggregate beside them.

    Raises:
        ConfigError: it is so.
    """
    what = f"reading.by: weighted-words learns the weights of the words of {form.name}"
    if method.tune in ("nothing", "head") or method.name in PET:
        raise ConfigError(
            f"{what}, and {method.name} trains no such weights: take a method that trains a "
            "prompt, or set tune: prompt, which learns the weights alone where the template has "
            "no soft tokens."
        )
    if form.reading.aggregate != "probability":
        raise ConfigError(
            f"{what}, and reading.aggregate: {form.reading.aggregate} is another way to put them "
            "together: leave one of the two out."
        )


def _what(form: TaskForm) -> str:
    if form.answers.word_labels:
        return "labels each word (tag)"
    return "answers with a part of a text (extract)"


def fields(form: TaskForm) -> list[Field]:
    """The fields of a row whose texts the task reads, in whichever of its templates.

    Raises:
        ConfigError, TemplateError: the task has no template, or one that cannot be parsed.
    """
    templates = [text for text in (form.template, *form.patterns, form.reading.domain) if text]
    if form.answers.word_labels and not form.template:
        templates.append(Field(form.answers.word_labels.field).shown)
    if not templates:
        raise ConfigError(f"{form.name} has neither a template nor patterns.")
    parts = itertools.chain.from_iterable(parsed(form, template).parts for template in templates)
    in_templates = [part for part in parts if isinstance(part, Field)]
    return list(dict.fromkeys([*in_templates, *map(Field, form.reading.swap or ())]))


def inputs(form: TaskForm, lm: LanguageModel | Reading | None = None) -> str:
    """A template with the fields of the task's first pattern alone: one text, or a pair, which an
    LM without a separator gets as two lines.

    Raises:
        ConfigError: the pattern has no field.
        TemplateError: the pattern cannot be parsed.
    """
    parts = Template.parse(form.patterns[0] if form.patterns else form.template).parts
    first = {part.name: part for part in reversed(parts) if isinstance(part, Field)}
    names = dict.fromkeys(part.name for part in parts if isinstance(part, Field))
    texts = [_whole(first[name]).shown for name in names]
    if not texts:
        raise ConfigError(
            f"The patterns of {form.name} take no field of the row, so a classifier would read "
            "nothing."
        )
    return ("\n" if lm and lm.tokens.between is None else "{sep}").join(
        [texts[0], " ".join(texts[1:])] if len(texts) > 1 else texts
    )


def _whole(field: Field) -> Field:
    """The field with nothing taken off but what does not fit; a list of texts is joined as
    before."""
    return Field(
        field.name,
        (*(filter_ for filter_ in field.filters if filter_[0] == "join"), ("shorten", "")),
    )
