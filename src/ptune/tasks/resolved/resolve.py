"""The door: a task's configuration is resolved here, once, into plain values; what cannot go
together is refused before rows are read or an LM is loaded. No function behind it takes a whole
configuration."""

from collections.abc import Collection
from dataclasses import replace

from ptune.answers.extraction import LONGEST, Extraction
from ptune.answers.word_labels import WordLabels
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.loading import choose_device
from ptune.runs import identity
from ptune.storage import prompt_folder
from ptune.tasks import task_members
from ptune.tasks.resolved import refusals
from ptune.tasks.resolved.parts import (
    LMSource,
    Output,
    SelectionParts,
    TaskParts,
    TrainingParts,
)
from ptune.tasks.resolved.task_form import Answers, Judging, Learning, TaskForm
from ptune.tasks.rows import data_sets
from ptune.tasks.schema import AUTO, TaskConfig
from ptune.training.methods import PET, Method
from ptune.training.methods import method as method_of
from ptune.training.paper_settings import preset_method, preset_pet

# settings that change no result of a training
BESIDE_TRAINING = ("lm", "out", "resume", "device", "dtype", "only", "title")


def training(config: TaskConfig, processes: int = 1) -> TrainingParts:
    """A training by the method that the task names.

    Args:
        processes: how many train together.

    Raises:
        PtuneError: the method is not known, the task's settings do not go together, a data set or a
            prompt to go on from cannot be read, or the device is not there.
    """
    choose_device(config.device)
    config = config.model_copy(update={"data": data_sets.as_files(config.data)})
    if config.continue_from is not None:
        config = _continued(config)
    method = preset_method(config.method, config.preset)
    refusals.check_minutes(config)
    parts = task_parts(config, BESIDE_TRAINING, processes)
    method = _tuned(parts.form, parts.learning, method)
    output = _output(config)
    refusals.check_method(parts.form, method, parts.data)
    refusals.check_settings(parts.form, method, parts.overrides)
    refusals.check_only(parts.form, method, output)
    refusals.check_shared(parts.form, method)
    refusals.check_transfer(method, parts.source)
    refusals.check_log(method, output)
    given = parts.overrides.model_dump()
    to_find = {name for name in ("learning_rate", "batch_size") if given[name] == "auto"}
    overrides = {name: value for name, value in given.items() if name not in to_find}
    return TrainingParts(
        **vars(parts),
        output=output,
        title=config.title,
        method=method,
        train=method.train.replaced(overrides),
        finds_rate="learning_rate" in to_find,
        finds_batch_size="batch_size" in to_find,
    )


def selection(config: TaskConfig) -> SelectionParts:
    """A training whose method is chosen among several.

    Raises:
        PtuneError: the task has no labels, says what the methods that are tried say themselves, its
            data set cannot be read, or the device is not there.
    """
    choose_device(config.device)
    refusals.check_selection(config)
    config = config.model_copy(update={"data": data_sets.as_files(config.data)})
    return SelectionParts(
        **vars(task_parts(config, BESIDE_TRAINING)),
        output=_output(config),
        title=config.title,
        minutes=config.minutes,
    )


def task_parts(config: TaskConfig, beside: Collection[str], processes: int = 1) -> TaskParts:
    """A task for a command that names methods, rows or an LM itself.

    Args:
        beside: names of settings that do not decide the command's results.
        processes: how many train together.

    Raises:
        ConfigError: the LM is to be shared out over processes, and there is one; or a setting of
            written answers stands where none are written.
    """
    refusals.check_sharding(config, processes)
    form = task_form(config)
    refusals.check_written(config, form)
    refusals.check_target(form)
    return TaskParts(
        form=form,
        learning=learning(config),
        pet=preset_pet(config.pet, config.preset),
        overrides=config.train,
        data=config.data,
        source=LMSource(
            name=config.lm,
            device=config.device,
            dtype=config.dtype,
            continue_from=config.continue_from,
            transfer=config.transfer,
            sharding=config.lm_sharding,
        ),
        allow_unknown=config.allow_unknown,
        settings=config.model_dump(mode="json"),
        deciding=identity.deciding(config, beside),
    )


def task_form(config: TaskConfig) -> TaskForm:
    """What a task asks, and how its answers are read."""
    return TaskForm(
        name=config.name,
        template=config.template,
        visibility=config.visibility,
        patterns=config.patterns,
        target=config.target,
        answers=_answers(config),
        reading=config.reading,
        decoding=config.decoding,
        judging=Judging(config.metrics, config.metric_words, config.parts, config.stop_by),
        prompt_by=config.prompt_by,
        prompts=config.prompts,
        combine=config.combine,
        neighbours=config.neighbours,
        max_length=config.max_length,
        layout=config.data.layout,
    )


def learning(config: TaskConfig) -> Learning:
    """How a task's prompts are made and learn."""
    return Learning(
        tune=config.tune,
        encoder=config.encoder,
        init=config.init,
        prefix=config.prefix,
        loss=config.loss,
        smoothing=config.smoothing,
        target_length=config.target_length,
        seed=config.train.seed or 0,
    )


def shown_method(config: TaskConfig, lm: LanguageModel | None = None) -> Method:
    """The task's method; where one is to be chosen, one that this LM takes, to show how the task is
    asked."""
    if config.method != AUTO:
        return preset_method(config.method, config.preset)
    return method_of("p-tuning" if lm is None or lm.has_head else "regression")


def _answers(config: TaskConfig) -> Answers:
    """What the answers of a task are."""
    reading, words, extraction = config.reading, None, None
    if config.tag is not None:
        words = WordLabels(config.tag, tuple(config.labels), reading.pieces, reading.scheme)
    if config.extract is not None:
        longest = reading.longest or LONGEST
        extraction = Extraction(config.extract, longest, reading.no_answer)
    return Answers(
        labels=config.labels,
        verbalizers=config.verbalizers,
        relations=config.relations,
        choices=config.choices,
        span=config.span,
        vocabulary=config.vocabulary,
        word_labels=words,
        extraction=extraction,
        multi_label=config.multi_label,
    )


def _output(config: TaskConfig) -> Output:
    """Where the files of a run go."""
    return Output(config.out, config.resume, config.only, config.log)


def _continued(config: TaskConfig) -> TaskConfig:
    """A task that goes on from a prompt: where it has no template, with that prompt's template and
    its visibility.

    Raises:
        ConfigError: its method trains several prompts.
    """
    if config.method in PET:
        raise ConfigError(
            f"{config.method} trains its members anew: --from goes with a method that trains one "
            "prompt."
        )
    if config.template or config.patterns:
        return config
    folder = prompt_folder.folders_in(str(config.continue_from))[0]
    template, visibility = prompt_folder.template_of(folder)
    given = {"template": template, "visibility": config.visibility or visibility}
    return config.model_copy(update=given)


def _tuned(form: TaskForm, learning: Learning, method: Method) -> Method:
    """A method with what the task tunes in place of what the method does; a reader that is trained
    is trained together with the LM.

    Raises:
        ConfigError: it cannot read the task's answers, or trains nothing that could.
    """
    method = replace(learning.applied_to(method), tune=learning.tune or method.tune)
    reader = task_members.reader_of(form, method)
    if method.tune == "lm" and reader.is_trained:
        method = replace(method, tune="both")
    task_members.check_trained(form, method)
    return method
