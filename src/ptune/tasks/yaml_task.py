"""A task described by a YAML file: read, and made into what the model takes."""

import copy
import os
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from ptune.answers.from_row import Choices, Span
from ptune.answers.label_words import Verbalizer, allowed
from ptune.answers.readers.reader_table import READERS
from ptune.base import plain_files
from ptune.data import yaml_files
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model import calibration
from ptune.model.prompt_model import PrefixSettings, PromptModel, Row, Task
from ptune.prompts.bank import Prefix
from ptune.tasks.layouts.lama import read_vocabulary
from ptune.tasks.rows.splits import DATA_VARIABLE, SPLITS
from ptune.tasks.schema import AUTO, TaskConfig, Words
from ptune.tasks.yaml_faults import explained
from ptune.template.language import Field, Template
from ptune.training.methods import Method
from ptune.training.methods import method as method_of
from ptune.training.paper_settings import preset_method

NO_PRESET = "None"  # the option --preset as it is written for no preset
PATHS = ("vocabulary", "out", "continue_from")
NAMED = pathlib.Path(__file__).parent / "named"
WORDS = ("labels", "verbalizers", "relations", "relabel")  # keys under which everything is a text


def read(path: pathlib.Path, preset: str | None = None) -> TaskConfig:
    """A task's YAML file, or one of ours by its name (trec, boolq, ...); paths in a file are taken
    from its own folder, those in ours from the folder that is worked in.

    Args:
        preset: "code" takes what the file has under ``code``, as its own key ``preset`` does;
            "paper" and "None" do not take it, whatever the file says.

    Raises:
        ConfigError: the file is missing, is not YAML, or says what a task cannot be; the key is
            told.
    """
    if ours := not path.exists() and (NAMED / f"{path}.yaml").exists():
        path = NAMED / f"{path}.yaml"
    try:
        text = plain_files.read_text(path, "utf-8-sig")
    except OSError as error:
        ours_too = ", ".join(sorted(file.stem for file in NAMED.glob("*.yaml")))
        raise ConfigError(
            f"The task file {path} cannot be read: {error.strerror}. Tasks that come with ptune: "
            f"{ours_too}."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error
    raw = yaml_files.parse(text, path, WORDS)
    if not isinstance(raw, dict):
        what = "nothing" if raw is None else "a list" if isinstance(raw, list) else "a text"
        raise ConfigError(
            f"{path} should hold keys and values (name: ..., template: ...), and holds {what}."
        )
    try:
        config = TaskConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explained(error)}") from error
    config = _as_the_code(_with_chat(config, path), path, preset or config.preset)
    folder = pathlib.Path() if ours else path.parent
    files = {split: getattr(config.data, split) for split in SPLITS}
    data = config.data.model_copy(
        update={split: _placed(file, folder, path) for split, file in files.items() if file}
    )
    reading = config.reading.model_copy(
        update={"words": folder / config.reading.words} if config.reading.words else {}
    )
    lm = _expanded(config.lm, path)
    return config.model_copy(
        update={
            "data": data,
            "reading": reading,
            "lm": str(folder / lm) if _lies_in(folder, lm) else lm,
            **{
                name: folder / value
                for name in PATHS
                if (value := getattr(config, name)) and name in config.model_fields_set
            },
        }
    )


def _with_chat(config: TaskConfig, path: pathlib.Path) -> TaskConfig:
    """The task with its chat as a template with roles.

    Raises:
        ConfigError: it has a template as well, or a role that is no word.
    """
    if not config.chat:
        return config
    if config.template:
        raise ConfigError(
            f"{path} has both template and chat: the messages of chat are the template, so leave "
            "template out."
        )
    for message in config.chat:
        if not re.fullmatch(r"[\w-]+", message.role):
            raise ConfigError(
                f"{path}: the role {message.role!r} of a message in chat is no word; it is system, "
                "user or assistant."
            )
    written = "".join(f"{{role:{message.role}}}{message.text}" for message in config.chat)
    return config.model_copy(update={"template": written, "chat": ()})


def _as_the_code(config: TaskConfig, path: pathlib.Path, preset: str | None) -> TaskConfig:
    """The task as the paper's released code has it, where that is asked for.

    Raises:
        ConfigError: the file says nothing of such code.
    """
    if preset in (None, "paper", NO_PRESET):
        kept = "paper" if preset == "paper" else None
        return config.model_copy(update={"code": None, "preset": kept})
    if config.code is None:
        raise ConfigError(
            f"{path} says nothing under code, which preset: code would take: leave preset out. Of "
            "the tasks that come with ptune boolq, cb, copa, multirc, record, rte, wic and wsc "
            "do. To cut the fractions of iPET's growth as PET's code does, set pet.fractions to "
            "cut."
        )
    names = config.code.model_fields_set
    update = {name: getattr(config.code, name) for name in names}
    pet = config.pet
    if "fractions" not in pet.model_fields_set:
        pet = pet.model_copy(update={"fractions": "cut"})
    return config.model_copy(update={**update, "code": None, "preset": preset, "pet": pet})


def _placed(file: pathlib.Path, folder: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """A file of rows as the task's folder has it. Where PTUNE_DATA is not set the name stays as it
    is, since the command line may name another file; reading it is refused with the reason
    (``tasks.rows``)."""
    if DATA_VARIABLE in str(file) and "PTUNE_DATA" not in os.environ:
        return file
    return folder / _expanded(str(file), path)


def _lies_in(folder: pathlib.Path, lm: str) -> bool:
    """Whether an LM's name is a path from the task file's folder, and neither builtin nor a name on
    the hub."""
    return lm.startswith(".") or lm != "builtin" and (folder / lm).exists()


def _expanded(text: str, path: pathlib.Path) -> str:
    """A path with ${PTUNE_NAME} replaced by the environment's, or ${PTUNE_NAME:-this} where that is
    not set. Other variables of the environment are not for a task file to read.

    Raises:
        ConfigError: a name does not begin with PTUNE_, or is not set and has no default.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        if not name.startswith("PTUNE_"):
            raise ConfigError(
                f"{path} speaks of ${{{name}}}, and only variables whose name begins with PTUNE_ "
                "are filled in: "
                f"call it ${{PTUNE_{name}}}."
            )
        if (setting := os.environ.get(name, default)) is None:
            raise ConfigError(
                f"{path} speaks of ${{{name}}}, which is not set: export {name}=... first."
            )
        return setting

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)


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
    if not config.patterns:
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


def fields(config: TaskConfig) -> list[Field]:
    """The fields of a row whose texts the task reads, in whichever of its templates.

    Raises:
        ConfigError, TemplateError: the task has no template, or one that cannot be parsed.
    """
    templates = [
        text for text in (config.template, *config.patterns, config.reading.domain) if text
    ]
    if not templates:
        raise ConfigError(f"{config.name} has neither a template nor patterns.")
    parts = [
        part
        for template in dict.fromkeys(templates)
        for part in Template.parse(template).parts
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


def task_of(
    config: TaskConfig,
    lm: LanguageModel,
    member: Member,
    name: str | None = None,
    method: Method | None = None,
) -> Task:
    """One way to ask the task, as the model takes it.

    Args:
        name: what it adds to the task's name; with ``prompt_by``, the value of the rows that it
            takes.

    Raises:
        ConfigError: the task says what no LM, or not this one, can be asked.
    """
    template, method, reading = (
        Template.parse(member.template),
        method or shown_method(config, lm),
        config.reading,
    )
    prefix = PrefixSettings(
        method.hidden if config.prefix.hidden is None else config.prefix.hidden,
        config.prefix.init or method.prefix_init,
        config.prefix.attentions,
    )
    return Task(
        config.name if name is None else f"{config.name}/{name}",
        template,
        _verbalizer(config, lm, member, template, method),
        config.target,
        config.encoder or method.encoder,
        config.init or method.init,
        config.loss,
        (config.train.seed or 0) + member.seed,
        prefix,
        config.smoothing,
        config.target_length,
        config.decoding,
        config.combine,
        None if config.prompt_by is None else (config.prompt_by, str(name)),
        READERS[method.reader or reading.by],
        reading.swap,
        None if reading.domain is None else Template.parse(reading.domain),
        max_length=config.max_length,
        layout=config.data.layout,
        metrics=config.metrics,
        parts=config.parts,
        pooling=reading.pooling or method.pooling,
        layer=reading.layer,
        windows=reading.windows,
        multi_label=config.multi_label,
        threshold=reading.threshold,
    )


def _verbalizer(
    config: TaskConfig, lm: LanguageModel, member: Member, template: Template, method: Method
) -> Verbalizer | Choices | Span | None:
    given = {
        "labels": member.words,
        "vocabulary": config.vocabulary,
        "choices": config.choices,
        "span": config.span,
    }
    if len(both := [name for name, value in given.items() if value]) > 1:
        raise ConfigError(
            f"{config.name} has {' and '.join(both)}: the answer is one of labels (each with its "
            "words), of a vocabulary (a file of allowed "
            "answers), of choices in the row, or a span; without any of them it is text that the "
            "LM writes."
        )
    reading = config.reading
    if (
        READERS[reading.by].scores_words
        and not member.words
        and (reading.words or reading.refine or reading.aggregate == "logit")
    ):
        raise ConfigError(f"{config.name} has no label words to extend, thin out or aggregate.")
    if config.span:
        return Span(config.span)
    if config.choices:
        return Choices(config.choices, reading.order, reading.length)
    if config.vocabulary:
        return allowed(
            read_vocabulary(config.vocabulary, lm.tokens),
            lm.tokens,
            template.for_lm(lm.tokens, lm.kind)[0].place,
        )[0]
    if READERS[method.reader or reading.by].words_are_relations:
        return Verbalizer.from_words(_relations(config, member))
    if not member.words:
        return None
    words = _extended(member.words, reading.words) if reading.words else member.words
    return Verbalizer.from_words(words, reading.aggregate, reading.order, reading.length)


def _relations(config: TaskConfig, member: Member) -> Words:
    """The relations that stand for each label, where a next-sentence head reads."""
    if tuple(config.relations) not in ((), tuple(member.words)):
        raise ConfigError(
            f"The relations of {config.name} are for {list(config.relations)}, and its labels are "
            f"{list(member.words)}."
        )
    return config.relations or member.words


def _extended(words: Words, path: pathlib.Path) -> dict[str, list[str]]:
    """The labels' words and those of a list, a line for each label (KPT's form).

    Raises:
        ConfigError: the list cannot be read, or has other lines than there are labels.
    """
    try:
        lines = plain_files.read_text(path, "utf-8-sig").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The word list {path} cannot be read: {error}.") from error
    if len(lines) != len(words):
        raise ConfigError(
            f"{path} has {len(lines)} lines, and the task {len(words)} labels: a line for each, "
            "in that order, its words with commas between."
        )
    listed = {
        label: [words_of_label] if isinstance(words_of_label, str) else list(words_of_label)
        for label, words_of_label in words.items()
    }
    return {
        label: list(
            dict.fromkeys([*words_of_label, *filter(None, map(str.strip, line.split(",")))])
        )
        for (label, words_of_label), line in zip(listed.items(), lines)
    }


def add(
    model: PromptModel,
    config: TaskConfig,
    member: Member,
    rows: Sequence[Row],
    name: str | None = None,
    method: Method | None = None,
    begun: "Begun | None" = None,
) -> int:
    """Put one way to ask the task into a model: its words thinned out, its prompt initialised, its
    scores calibrated; return its number there.

    Args:
        rows: to learn from.
        begun: a prompt to begin from, instead of a new one.

    Raises:
        PtuneError: the task does not fit the LM or the prompt that it begins from; the model is
            then as before.
    """
    task = task_of(config, model.lm, member, name, method)
    reading = config.reading
    if reading.refine:
        trial = PromptModel(model.lm, max_length=model.max_length)
        words = calibration.refine(trial, trial.add(task, rows), rows)
        member = Member(
            member.template,
            {
                label: list(words_of_label)
                for label, words_of_label in zip(words.labels, words.words)
            },
            member.seed,
        )
        task = task_of(
            config.model_copy(update={"reading": reading.model_copy(update={"words": None})}),
            model.lm,
            member,
            name,
            method,
        )
    if begun is not None and config.encoder not in (None, begun.encoder):
        raise ConfigError(
            f"The prompt to go on from was trained with an encoder {begun.encoder!r}, and "
            f"{config.name} asks for {config.encoder!r}."
        )
    with model.as_before_if_it_fails():
        number = model.add(task, rows) if begun is None else begun.add(model, task, rows)
        calibration.calibrate(model, number, _calibration(config, task), rows)
    return number


def _calibration(config: TaskConfig, task: Task) -> calibration.Calibration:
    """What is taken off the words' scores. Where each word decides by itself whether a row has its
    label, that is at least its mean probability, so that the decision begins at even chances."""
    how = config.reading.calibration
    if config.multi_label and task.reader.scores_words and how == "none" and not task.domain:
        return "prior"
    return how


@dataclass(frozen=True)
class Begun:
    """A loaded prompt, with which another training begins."""

    model: PromptModel
    task: int

    @property
    def encoder(self) -> str:
        """The name of the encoder that makes its soft tokens: lstm, mlp or table."""
        return self.model.tasks[self.task].task.encoder

    def add(self, model: PromptModel, task: Task, rows: Sequence[Row]) -> int:
        """Add a task whose prompt begins as this one, under the same template.

        Raises:
            ConfigError: the task's template or encoder is another.
        """
        fitted = self.model.tasks[self.task]
        old, bank, prompt = fitted.task, self.model.bank, fitted.prompt
        if task.template.source != old.template.source:
            raise ConfigError(
                f"The prompt to go on from has the template {old.template.source!r}, and "
                f"{task.name} has "
                f"{task.template.source!r}: give the task that template, or none."
            )
        reader = None
        same = (task.reader, _labels(task)) == (old.reader, _labels(old))
        if same and task.reader.is_trained:
            reader = copy.deepcopy(self.model.reader(self.task))
        prefix = bank.prefixes[prompt] if prompt >= 0 else None
        made_by = copy.deepcopy(prefix.encoder) if isinstance(prefix, Prefix) else None
        soft = copy.deepcopy(bank.encoders[prompt]) if prompt >= 0 else None
        return model.add(
            replace(task, encoder=old.encoder, init=old.init, prefix=old.prefix),
            rows,
            soft,
            made_by,
            reader,
        )


def _labels(task: Task) -> tuple[str, ...]:
    return task.verbalizer.labels if isinstance(task.verbalizer, Verbalizer) else ()
