"""The templates and words by which a method asks a task."""

from dataclasses import dataclass

from ptune.answers.extraction import LONGEST, Extraction
from ptune.answers.readers.reader import Reader
from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.tasks.schema import AUTO, TaskConfig, Words
from ptune.template.language import Field, Template
from ptune.training.methods import Method
from ptune.training.methods import method as method_of
from ptune.training.paper_settings import preset_method

FOR_WORDS = ("p-tuning-v2+head", "prefix-tuning", "p-tuning", "prompt-tuning-adamw", "head")


@dataclass(frozen=True)
class Member:
    """One way to ask a task: a template, the labels' words, and how far its seed is from the
    task's."""

    template: str
    words: Words
    seed: int = 0


def shown_method(config: TaskConfig, lm: LanguageModel | None) -> Method:
    """The task's method; where one is to be chosen, one that this LM takes, to show how the task is
    asked."""
    if config.method != AUTO:
        return preset_method(config.method, config.preset)
    return method_of("p-tuning" if lm is None or lm.has_head else "regression")


def members(
    config: TaskConfig, method: Method | None = None, lm: LanguageModel | None = None
) -> list[Member]:
    """How a method asks the task: by its template; where it has patterns, by all that the method
    makes of those, with every verbalizer; each as often as there are prompts of different seeds.

    Raises:
        ConfigError: the task has nothing for this method, or its verbalizers are of other labels.
    """
    method = method or shown_method(config, lm)
    for words in config.verbalizers:
        if tuple(words) != tuple(config.labels):
            raise ConfigError(
                f"A verbalizer of {config.name} has the labels {list(words)}, and the task has "
                f"{list(config.labels)}: give all, in that order."
            )
    verbalizers = [config.labels, *config.verbalizers]
    if config.tag and not config.template:
        templates = [_around_words(method, Field(config.tag).shown)]
    elif not config.patterns:
        templates = [config.template]
    elif "<pattern>" in method.frame:
        templates = [method.frame.replace("<pattern>", pattern) for pattern in config.patterns]
    else:
        templates, verbalizers = (
            [
                method.frame.replace("<template>", config.template).replace(
                    "<inputs>", inputs(config, lm)
                )
            ],
            [config.labels],
        )
    if not all(templates):
        raise ConfigError(f"{config.name} has no template, which {method.name} needs.")
    return [
        Member(template, words, seed)
        for template in templates
        for words in verbalizers
        for seed in range(config.prompts)
    ]


def _around_words(method: Method, words: str) -> str:
    """The template of a method whose rows are words with labels: its learned tokens before them."""
    frame = method.frame.replace("<template>", "{soft:3} <inputs> {soft:3}")
    return frame.replace("<pattern>", words).replace("<inputs>", words)


def parsed(config: TaskConfig, template: str) -> Template:
    """A template of the task, in which a list of words is joined.

    Raises:
        TemplateError: it cannot be parsed, or lacks the field of the words.
    """
    whole = Template.parse(template)
    return whole.joined(config.tag) if config.tag else whole


def reader_of(config: TaskConfig, method: Method) -> type[Reader]:
    """What reads the task's labels.

    Raises:
        ConfigError: the method reads whole rows, and the task labels words.
    """
    if not (config.tag or config.extract):
        return READERS[method.reader or config.reading.by]
    if method.reader not in (None, "head", "token-head"):
        raise ConfigError(
            f"{config.name} {_what(config)}, and {method.name} reads whole rows: take "
            f"{', '.join(FOR_WORDS)}."
        )
    return READERS["token-head"]


def check_trained(config: TaskConfig, method: Method) -> None:
    """Refuse a method that trains no head, where single tokens are read by one.

    Raises:
        ConfigError: it is such a method.
    """
    if (config.tag or config.extract) and method.tune in ("nothing", "head"):
        raise ConfigError(
            f"{config.name} {_what(config)}, by a head that is trained, and {method.name} trains "
            f"none: take {', '.join(FOR_WORDS)}."
        )


def _what(config: TaskConfig) -> str:
    return "labels each word (tag)" if config.tag else "answers with a part of a text (extract)"


def extraction(config: TaskConfig) -> Extraction | None:
    """The text of which a task's answers are parts; None where they are something else."""
    if config.extract is None:
        return None
    reading = config.reading
    return Extraction(config.extract, reading.longest or LONGEST, reading.no_answer)


def word_labels(config: TaskConfig) -> WordLabels | None:
    """The labels of the words of a task's rows; None where rows have their labels as a whole."""
    if config.tag is None:
        return None
    reading = config.reading
    return WordLabels(config.tag, tuple(config.labels), reading.pieces, reading.scheme)


def fields(config: TaskConfig) -> list[Field]:
    """The fields of a row whose texts the task reads, in whichever of its templates.

    Raises:
        ConfigError, TemplateError: the task has no template, or one that cannot be parsed.
    """
    templates = [
        text for text in (config.template, *config.patterns, config.reading.domain) if text
    ]
    if config.tag and not config.template:
        templates.append(Field(config.tag).shown)
    if not templates:
        raise ConfigError(f"{config.name} has neither a template nor patterns.")
    parts = [
        part
        for template in dict.fromkeys(templates)
        for part in parsed(config, template).parts
        if isinstance(part, Field)
    ]
    return list(dict.fromkeys([*parts, *map(Field, config.reading.swap or ())]))


def inputs(config: TaskConfig, lm: LanguageModel | None = None) -> str:
    """A template with the fields of the task's first pattern alone: one text, or a pair, which an
    LM without a separator gets as two lines.

    Raises:
        ConfigError: the pattern has no field.
        TemplateError: the pattern cannot be parsed.
    """
    parts = Template.parse(config.patterns[0] if config.patterns else config.template).parts
    first = {part.name: part for part in reversed(parts) if isinstance(part, Field)}
    names = dict.fromkeys(part.name for part in parts if isinstance(part, Field))
    texts = [_whole(first[name]).shown for name in names]
    if not texts:
        raise ConfigError(
            f"The patterns of {config.name} take no field of the row, so a classifier would read "
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
