"""What no LM, or not this one, can be asked."""

from ptune.answers.extraction import Extraction
from ptune.answers.from_row import Choices, Span
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader import Reader
from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.rows import windows
from ptune.model.task import Task
from ptune.template.language import Field, PrefixPart, Soft, Template, Text

# methods for an encoder without a vocabulary head
WITHOUT_WORDS = ("contrastive", "regression", "head", "p-tuning-v2+head")


def check_task(task: Task, lm: LanguageModel) -> None:
    """Refuse a task whose settings contradict each other, or do not fit the LM.

    Raises:
        ConfigError: it is such a task.
    """
    _check_types(task)
    if isinstance(task.verbalizer, WordLabels | Extraction):
        _check_tokens(task, task.verbalizer, lm)
    if task.verbalizer is None and lm.kind == "masked":
        raise ConfigError(
            f"{task.name} asks for text, and a masked LM writes none: give it labels, or take a "
            "causal LM (builtin-causal needs no download) or an encoder-decoder."
        )
    _check_reader(task)
    _check_head(task, lm)
    if task.pooling == "mean":
        _check_pooling(task, lm)
    if task.layer is not None:
        _check_layer(task, lm)
    if task.windows != "none":
        _check_windows(task)
    if task.multi_label:
        _check_label_sets(task)
    if task.combine == "neighbours" and (task.verbalizer is None or task.neighbours < 1):
        raise ConfigError(
            f"{task.name} answers by the labels of its nearest rows (combine: neighbours): it "
            "needs labels, and one such row at least."
        )
    if task.loss == "vocabulary":
        _check_vocabulary_loss(task)
    if task.loss == "hinge":
        _check_hinge(task)
    if isinstance(task.verbalizer, Span) and (task.swap or task.domain):
        raise ConfigError(
            f"{task.name} spells a span, which has no scores of words for swap or a domain to "
            "change."
        )
    if lm.kind == "causal":
        _check_end(task)
    if task.template.visibility:
        _check_visibility(task, lm)


def _check_types(task: Task) -> None:
    """Refuse plain values where a template, a verbalizer or gates belong."""
    if not isinstance(task.template, Template):
        raise ConfigError(
            f"The template of {task.name} is a {type(task.template).__name__}: make it with "
            "Template.parse(...)."
        )
    if not isinstance(
        task.verbalizer, Verbalizer | Choices | Span | WordLabels | Extraction | None
    ):
        raise ConfigError(
            f"The verbalizer of {task.name} is a {type(task.verbalizer).__name__}: make it with "
            "Verbalizer.from_words({label: word, ...})."
        )
    if task.prefix.gates not in (False, True, "row"):
        raise ConfigError(
            f"The gates of {task.name}'s prefix may be False, True or 'row', and what is given is "
            f"{task.prefix.gates!r}."
        )


def _check_reader(task: Task) -> None:
    """Refuse a reader that the task has no labels for, or no place."""
    if not (isinstance(task.reader, type) and issubclass(task.reader, Reader)):
        raise ConfigError(
            f"The reader of {task.name} is {task.reader!r}, and should be a class: "
            f"ptune.READERS has one for each of {', '.join(READERS)}."
        )
    if task.reader.reads_tokens and not isinstance(task.verbalizer, WordLabels | Extraction):
        raise ConfigError(
            f"The reader of {task.name} ({task.reader.name}) reads every token by itself, and the "
            "row as a whole has its answer: take another, or say which field holds the words (tag) "
            "or the text of which the answer is a part (extract)."
        )
    if task.reader.scores_words:
        return
    if task.verbalizer is None or isinstance(task.verbalizer, Choices | Span):
        raise ConfigError(
            f"{task.name} has no labels of its own, so there is nothing for a reader "
            f"({task.reader.name}) to tell apart."
        )
    if task.reader.mask == "refused" and task.template.has_mask:
        raise ConfigError(
            f"{task.name} has a {{mask}}, and its reader ({task.reader.name}) reads the input's "
            "first token: leave the {mask} out."
        )
    if task.domain and task.loss != "vocabulary":
        raise ConfigError(
            f"{task.name} takes the domain's scores off those of words, and it reads by "
            f"{task.reader.name}."
        )


def _check_tokens(task: Task, answers: WordLabels | Extraction, lm: LanguageModel) -> None:
    """Refuse what does not go together with a label for each word, or with a part of a text.

    Raises:
        ConfigError: it is such a task.
    """
    labels_words = isinstance(answers, WordLabels)
    what = f"{task.name} {'labels each word' if labels_words else 'answers with a part of a text'}"
    unfitting = {
        "pooling": task.pooling != "first",
        "windows": task.windows != "none",
        "swap": task.swap,
        "a domain": task.domain,
        f'loss "{task.loss}"': task.loss != "labels",
        "multi_label": task.multi_label,
        f"combine {task.combine}": task.combine != "mean",
    }
    if names := [name for name, value in unfitting.items() if value]:
        raise ConfigError(f"{what}, which does not go with {names[0]}.")
    if not task.reader.reads_tokens:
        raise ConfigError(
            f'{what}, which a linear head reads: make it with reader=READERS["token-head"].'
        )
    if task.template.has_mask:
        raise ConfigError(
            f"{what}, and reads the tokens of that: leave {{mask}} out of its template."
        )
    if lm.kind == "encoder-decoder":
        raise ConfigError(
            f"{what}, and an encoder-decoder is read at its decoder: take a masked or a causal LM."
        )
    if isinstance(answers, Extraction):
        _check_extraction(task, answers)
    elif len(answers.labels) < 2 or len(set(answers.labels)) < len(answers.labels):
        raise ConfigError(f"{task.name} needs two labels at least, each of them once.")


def _check_extraction(task: Task, extraction: Extraction) -> None:
    """Refuse a template that does not have the text of which the answer is a part as it stands.

    Raises:
        ConfigError: it is one.
    """
    parts = [
        part
        for part in task.template.parts
        if isinstance(part, Field) and part.name == extraction.field
    ]
    if len(parts) != 1:
        raise ConfigError(
            f"The answer of {task.name} is a part of {extraction.field!r}, which its template "
            f"{task.template.source!r} should have once."
        )
    if changed := [name for name, _ in parts[0].filters if name != "shorten"]:
        raise ConfigError(
            f"The answer of {task.name} is a part of {extraction.field!r} as it stands in the row, "
            f"and the template changes that by {changed[0]}: leave it out."
        )
    if extraction.longest < 1:
        raise ConfigError(f"An answer of {task.name} has one token at least (longest).")


def _check_head(task: Task, lm: LanguageModel) -> None:
    """Refuse a task whose answer is read by a vocabulary head that the LM does not have."""
    if lm.has_head or not task.reader.binds_words:
        return
    raise ConfigError(
        f"{type(lm.model).__name__} is an encoder without a vocabulary head, so it says no words, "
        f"and the answer of {task.name} is read off words. Methods that read its hidden states "
        f"fit: {', '.join(WITHOUT_WORDS)}; or `ptune pretrain --from` trains such a head."
    )


def _check_windows(task: Task) -> None:
    """Refuse windows where the scores of several parts of a row cannot be put together.

    Raises:
        ConfigError: it is such a task, or none or several of its fields may be shortened.
    """
    verbalizer = task.verbalizer
    if not isinstance(verbalizer, Verbalizer) or task.loss == "vocabulary":
        raise ConfigError(
            f"{task.name} reads in windows, which goes with labels that are compared with each "
            'other: labels, and loss "labels".'
        )
    if task.reader.couples_rows or task.reader.starts_from_rows:
        raise ConfigError(
            f"{task.name} reads in windows, and its reader ({task.reader.name}) compares whole "
            "rows: take words, soft or a head, or leave windows out."
        )
    if task.swap or task.domain or verbalizer.order == "most-probable-first":
        raise ConfigError(
            f"{task.name} reads in windows, which goes with neither swap nor a domain nor the "
            "order most-probable-first."
        )
    windows.long_field(task)


def _check_label_sets(task: Task) -> None:
    """Refuse rows with several labels where the labels are not decided one by one.

    Raises:
        ConfigError: it is such a task.
    """
    if not isinstance(task.verbalizer, Verbalizer) or task.loss != "labels":
        raise ConfigError(
            f"{task.name} has rows with several labels (multi_label), which goes with labels of "
            'its own that are decided one by one: labels, and loss "labels".'
        )
    if task.verbalizer.aggregate == "vote":
        raise ConfigError(
            f"{task.name} has rows with several labels (multi_label), and votes of words are for "
            "one label of all: take another aggregate."
        )
    trains_prompt = any(isinstance(part, Soft | PrefixPart) for part in task.template.parts)
    if not task.reader.decides_apart or task.reader.couples_rows and trains_prompt:
        raise ConfigError(
            f"{task.name} has rows with several labels (multi_label), and its reader "
            f"({task.reader.name}{' behind a prompt' if task.reader.decides_apart else ''}) "
            "compares labels or rows with each other: read by words, soft or a head, or take "
            "method regression."
        )


def _check_pooling(task: Task, lm: LanguageModel) -> None:
    """Refuse the mean of a row's tokens where another place is read, or the rows have two parts."""
    if not task.reader.pools:
        raise ConfigError(
            f"{task.name} reads by {task.reader.name}, which stand at one place: pooling goes with "
            "a head, prototypes or a regression."
        )
    if task.template.has_mask:
        raise ConfigError(
            f"{task.name} has a {{mask}}, where its answer is read: leave it out to read the mean "
            "of all tokens, or leave pooling out."
        )
    if lm.kind == "encoder-decoder":
        raise ConfigError(
            f"{task.name} pools the mean of its tokens, and an encoder-decoder is read at its "
            "decoder: leave pooling out, or take a masked or causal LM."
        )


def _check_layer(task: Task, lm: LanguageModel) -> None:
    """Refuse a layer that the LM does not have, or that the task's reader does not read."""
    count = int(getattr(lm.model.config.get_text_config(), "num_hidden_layers", 0))
    if task.reader.binds_words or lm.kind == "encoder-decoder":
        raise ConfigError(
            f"{task.name} reads by {task.reader.name}"
            f"{', of a decoder' if lm.kind == 'encoder-decoder' else ''}, which stands on the last "
            "layer: a layer goes with a head, prototypes or a regression on a masked or causal LM."
        )
    if not 1 <= (task.layer or 0) <= count:
        raise ConfigError(
            f"{task.name} reads layer {task.layer}, and this LM has the layers 1 to {count}."
        )


def _check_vocabulary_loss(task: Task) -> None:
    """Refuse what the comparison with the whole vocabulary cannot teach."""
    if isinstance(task.verbalizer, Verbalizer):
        for label, words in zip(task.verbalizer.labels, task.verbalizer.words):
            if len(words) > 1:
                raise ConfigError(
                    f"{task.name} compares the answer with the whole vocabulary, which teaches one "
                    f"word for each label, and {label!r} has several: give it one, or set loss to "
                    '"labels".'
                )
    if not task.reader.scores_words or task.swap or task.domain:
        raise ConfigError(
            f"{task.name} compares the answer with the whole vocabulary, where neither a reader "
            'nor swap nor a domain has a say: set loss to "labels".'
        )


def _check_hinge(task: Task) -> None:
    """Refuse a margin where there is no right label to be ahead, or where rows are compared.

    Raises:
        ConfigError: it is such a task.
    """
    if not isinstance(task.verbalizer, Verbalizer | Choices) or task.reader.couples_rows:
        raise ConfigError(
            f"{task.name} has the loss hinge, by which the right label or choice is ahead of each "
            "other one: that goes with labels or choices that are read by words, soft or a head."
        )


def _check_end(task: Task) -> None:
    """Refuse a causal LM's prefix behind the last token, which is read, without a ``{mask}``."""
    parts = [part for part in task.template.parts if not (isinstance(part, Text) and part.is_blank)]
    if not task.template.has_mask and len(parts) > 1 and isinstance(parts[-1], PrefixPart):
        raise ConfigError(
            f"{task.name} ends with its {{prefix}}, which the last token before it, that is read, "
            "does not see: put it before some text."
        )


def _check_visibility(task: Task, lm: LanguageModel) -> None:
    """Refuse to hide tokens from others where the LM cannot, or where other scores are taken off.

    Raises:
        ConfigError: it is so, with the reason.
    """
    if not (able := lm.hides_tokens):
        raise ConfigError(
            f"{task.name} hides tokens from others (visibility), which {type(lm.model).__name__} "
            f"cannot: {able.note}. Leave visibility out, or take another LM (ptune doctor LM says "
            "what it can do)."
        )
    if task.prefix.reads_rows:
        raise ConfigError(
            f"{task.name} hides tokens from others (visibility), and the gates of its prefix read "
            "the text of all fields for whoever sees the prefix (prefix.gates: row): leave one of "
            "them out."
        )
    if task.domain:
        raise ConfigError(
            f"{task.name} hides tokens from others (visibility), and takes off the scores of a "
            "domain, another template of which the rules say nothing: leave one of them out."
        )
