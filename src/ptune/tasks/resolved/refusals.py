"""What of a task's settings cannot go together, said before rows are read or an LM is loaded."""

from ptune.errors import ConfigError
from ptune.settings import NEIGHBOURS, TrainOverrides
from ptune.tasks import task_members
from ptune.tasks.resolved.parts import LMSource, Output
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.schema import AUTO, DataConfig, TaskConfig
from ptune.template.language import Template
from ptune.training.methods import PET, Method

# what a task may not say with method auto, since every method that is tried says it itself
SAID_BY_METHODS = (
    "prompt_by",
    "only",
    "prompts",
    "continue_from",
    "transfer",
    "encoder",
    "init",
    "prefix",
    "loss",
    "choices",
    "span",
    "vocabulary",
    "combine",
    "neighbours",
    "visibility",
)
# settings of answers that the LM writes, and what they do
OF_WRITTEN = {
    "parts": "gives the figures of written answers apart",
    "stop_by": "names the figure of written answers that decides on dev",
    "target_length": "bounds what of a right text is learned from",
    "smoothing": "smooths the loss of written answers",
    "metric_words": "says how written answers are split into words",
    "decoding": "says how answers are written",
}


def check_selection(config: TaskConfig) -> None:
    """Refuse method auto on a task that is not one of labels, or that says what the methods that
    are tried say.

    Raises:
        ConfigError: it is one.
    """
    if not config.labels:
        raise ConfigError(
            f"method auto chooses between methods for labels, and {config.name} has none: name a "
            "method (ptune methods lists them)."
        )
    default = TaskConfig(name="default")
    given = [name for name in SAID_BY_METHODS if getattr(config, name) != getattr(default, name)]
    given += ["preset"] if config.preset == "paper" else []
    given += ["reading.by"] if config.reading.by != "words" else []
    given += [
        f"train.{name}" for name in config.train.model_dump(exclude_none=True) if name != "seed"
    ]
    given += ["log"] if config.log else []
    given += ["tune"] if config.tune not in (None, "prompt") else []
    if given:
        raise ConfigError(
            f"method auto takes every method as it is, and {config.name} says {', '.join(given)}: "
            "leave that out, or name a method."
        )


def check_minutes(config: TaskConfig) -> None:
    """Refuse the minutes of a choice where a method is named.

    Raises:
        ConfigError: it is so.
    """
    if config.minutes is not None:
        raise ConfigError(
            f"minutes is what method auto may take, and the method is {config.method}: leave it "
            "out; steps and epochs under train say how long a training is."
        )


def check_comparable(config: TaskConfig) -> None:
    """Refuse a task that methods cannot be compared on.

    Raises:
        ConfigError: it is one, with the reason.
    """
    if not (config.labels or config.choices or config.span):
        raise ConfigError(
            f"{config.name} has no labels, choices or span: compare is for tasks with labels; "
            "ptune train and ptune report do texts."
        )
    if config.multi_label:
        raise ConfigError(
            f"{config.name} has rows with several labels (multi_label), and compare draws rows of "
            "one label each: ptune train and ptune report do such tasks."
        )
    if config.tag:
        raise ConfigError(
            f"{config.name} labels the words of its rows (tag), and compare draws rows of one "
            "label each: ptune train and ptune report do such tasks."
        )
    if config.encoder == "multitask":
        raise ConfigError(
            f"{config.name} says encoder: multitask, and compare trains every prompt apart: leave "
            "it out, or run ptune train."
        )
    if begun := [key for key in ("continue_from", "transfer") if getattr(config, key)]:
        raise ConfigError(
            f"{config.name} says {begun[0]}, and in compare every prompt begins as its method has "
            "it: leave it out, or run ptune train."
        )
    if config.train.learning_rate == "auto":
        raise ConfigError(
            f"{config.name} says learning_rate: auto, and compare trains every method at a given "
            "rate: give a number, or run ptune train."
        )
    if config.train.batch_size == "auto":
        raise ConfigError(
            f"{config.name} says batch_size: auto, and compare trains every method on batches of a "
            "given size: give a number, or run ptune train."
        )
    if config.visibility:
        raise ConfigError(
            f"{config.name} says visibility, and compare asks by patterns and by templates that "
            "methods make of them: leave it out, or run ptune train."
        )
    if config.preset == "paper":
        raise ConfigError(
            f"{config.name} says preset: paper, and compare gives all methods as many steps: leave "
            "it out, or run ptune train, and put its runs together by ptune report."
        )


def check_method(form: TaskForm, method: Method, data: DataConfig) -> None:
    """Refuse several prompts, of users or of an ensemble, where the method cannot train them, and
    members that cannot answer together.

    Raises:
        ConfigError: it is so.
    """
    if form.prompt_by and method.tune != "prompt":
        raise ConfigError(
            f"prompt_by gives each {form.prompt_by} its own prompt, and {method.name} trains "
            "none: take prefix-tuning or another."
        )
    if method.name in PET and form.prompt_by:
        raise ConfigError(
            f"prompt_by gives each {form.prompt_by} its own prompt, and {method.name} trains one "
            "classifier for all rows."
        )
    _check_ensemble(form, method)
    _check_visibility(form, method)
    if form.prompt_by and form.combine != "mean":
        raise ConfigError(
            f"combine: {form.combine} says how the members of an ensemble answer together, and "
            "with prompt_by one prompt answers each row: leave combine out."
        )
    if form.combine == "weighted" and not data.dev:
        raise ConfigError(
            "combine: weighted weighs the members of an ensemble by their accuracy on dev rows: "
            "give data.dev."
        )
    _check_neighbours(form, method, data)


def _check_visibility(form: TaskForm, method: Method) -> None:
    """Refuse rules on who sees whom that name nothing in a template of the task, and a method whose
    last classifier reads by another template.

    Raises:
        ConfigError, TemplateError: it is so.
    """
    if not form.visibility:
        return
    if method.name in PET:
        raise ConfigError(
            f"visibility is of the template that is trained, and {method.name} trains several "
            "models of other templates: leave it out, or take another method."
        )
    for member in task_members.members(form, method):
        task_members.asked(form, member)


def _check_neighbours(form: TaskForm, method: Method, data: DataConfig) -> None:
    """Refuse members that are to be weighed by the nearest train rows where that cannot be.

    Raises:
        ConfigError: it is so.
    """
    if form.combine != "neighbours":
        if form.neighbours != NEIGHBOURS:
            raise ConfigError(
                f"neighbours: {form.neighbours} is of combine: neighbours, and the task has "
                f"combine: {form.combine}: leave it out."
            )
        return
    what = "combine: neighbours weighs several prompts by the labels of the nearest train rows, and"
    if not form.answers.are_chosen:
        raise ConfigError(f"{what} the answers of {form.name} are texts: leave it out.")
    if method.name in PET or len(task_members.members(form, method)) < 2:
        raise ConfigError(
            f"{what} {form.name} has one with {method.name}: give it several patterns, or leave it "
            "out."
        )
    if not data.train:
        raise ConfigError(f"{what} {form.name} has none: give data.train.")


def _check_ensemble(form: TaskForm, method: Method) -> None:
    """Refuse several prompts for one row where the method or the task has room for one alone."""
    is_ensemble = len(task_members.members(form, method)) > 1
    if (
        is_ensemble
        and method.name not in PET
        and (form.prompt_by or method.tune not in ("prompt", "nothing"))
    ):
        raise ConfigError(
            "An ensemble goes with a method that trains prompts or nothing, and without "
            "prompt_by; method pet tunes an LM for each member."
        )
    if form.answers.multi_label and is_ensemble:
        raise ConfigError(
            f"{form.name} has {len(form.patterns)} patterns, which answer together, and with "
            "multi_label one prompt answers each row: leave one pattern."
        )
    if form.prompts > 1 and method.tune == "nothing":
        raise ConfigError(
            f"{form.prompts} prompts of different seeds go with a method that trains prompts."
        )


def check_settings(form: TaskForm, method: Method, overrides: TrainOverrides) -> None:
    """Refuse settings of training and of judging that the method or the task cannot obey.

    Raises:
        ConfigError: there is one.
    """
    if overrides.class_weights and method.tune == "nothing":
        raise ConfigError(
            f"class_weights weighs the rows of a training, and {method.name} trains nothing: leave "
            "it out, or take another method (ptune methods lists them)."
        )
    if overrides.learning_rate == "auto" and (method.tune != "prompt" or method.name in PET):
        raise ConfigError(
            f"learning_rate: auto tries rates of a prompt, and {method.name} trains more than "
            "that, or nothing: give a number."
        )


def check_target(form: TaskForm) -> None:
    """Refuse a task that shows the LM the right answer.

    Raises:
        ConfigError: a template has the field of the right answers, or they choose the prompt.
        TemplateError: a template cannot be read.
    """
    sources = (form.template, *form.patterns, form.reading.domain or "")
    for source in filter(None, sources):
        if form.target in Template.parse(source).fields:
            raise ConfigError(
                f"{source!r} shows the LM the field {form.target!r}, which holds the right answer "
                "(target): leave it out of the template, or name another field as target."
            )
    if form.prompt_by == form.target:
        raise ConfigError(
            f"prompt_by and target are both {form.target!r}: the right answer would choose the "
            "prompt."
        )


def check_written(config: TaskConfig, form: TaskForm) -> None:
    """Refuse settings of written answers where none are written.

    Raises:
        ConfigError: there is one.
    """
    if form.answers.are_written:
        return
    default = TaskConfig(name="default")
    for name in OF_WRITTEN:
        if getattr(config, name) != getattr(default, name):
            raise not_written(name)


def not_written(name: str) -> ConfigError:
    """What says that a setting of written answers (``OF_WRITTEN``) stands where none are
    written."""
    return ConfigError(
        f"{name} {OF_WRITTEN[name]}, and this task has labels or places in its rows: leave {name} "
        "out."
    )


def check_only(form: TaskForm, method: Method, output: Output) -> None:
    """Refuse prompts that are named where the task has one prompt for all rows, or where prompts
    are trained from a table that they share.

    Raises:
        ConfigError: it is so.
    """
    if output.only and not form.prompt_by:
        raise ConfigError("only names values of prompt_by, and the task has none.")
    if output.only and method.encoder == "multitask":
        raise ConfigError(
            "encoder: multitask trains the prompts of all values together, and only names some: "
            f"train all again, or add {', '.join(output.only)} with encoder: table, where transfer "
            "can name the prompts to begin as."
        )


def check_shared(form: TaskForm, method: Method) -> None:
    """Refuse a table that prompts share where the task has one prompt.

    Raises:
        ConfigError: it is so.
    """
    if method.encoder == "multitask" and not form.prompt_by:
        raise ConfigError(
            f"encoder: multitask is one table for the prompts that rows choose by a field, and "
            f"{form.name} has one prompt: name the field (prompt_by), or take encoder: table."
        )


def check_transfer(method: Method, source: LMSource) -> None:
    """Refuse prompts to begin as where no prompt begins, or where it begins as another.

    Raises:
        ConfigError: it is so.
    """
    if not source.transfer:
        return
    if method.name in PET or method.tune not in ("prompt", "both"):
        raise ConfigError(
            f"transfer lets a new prompt begin as another task's, and {method.name} trains "
            f"{_trained_by(method)}: take a method that trains a prompt, or leave it out."
        )
    if source.continue_from is not None:
        raise ConfigError(
            "transfer lets a new prompt begin as another task's, and continue_from goes on with a "
            "prompt: leave one of them out."
        )


def check_log(method: Method, output: Output) -> None:
    """Refuse a log where there is no training to tell of.

    Raises:
        ConfigError: it is so.
    """
    if output.log and method.tune == "nothing":
        raise ConfigError(
            f"log tells what a training does, and {method.name} trains nothing: leave it out."
        )


def check_named(config: TaskConfig) -> None:
    """Refuse several processes where the method or the batch size is to be chosen.

    Raises:
        ConfigError: it is so.
    """
    if config.method == AUTO:
        raise ConfigError(
            "method auto tries one method after the other, in one process: name a method (ptune "
            "methods lists them), or start it as ptune train."
        )
    if config.train.batch_size == "auto":
        raise ConfigError(
            "batch_size: auto takes what one process finds free: name a batch_size, or start it as "
            "ptune train."
        )


def check_sharding(config: TaskConfig, processes: int) -> None:
    """Refuse to share an LM out where there is one process, or where prompts are added to those of
    a folder.

    Raises:
        ConfigError: it is so.
    """
    if config.lm_sharding == "none":
        return
    if processes == 1:
        raise ConfigError(
            f"lm_sharding: {config.lm_sharding} shares the LM out over several processes, and this "
            "is one: start ptune train by torchrun, or leave it out."
        )
    if config.only:
        raise ConfigError(
            "only adds prompts to those in the out folder, which the first process alone holds "
            f"with lm_sharding: {config.lm_sharding}. Leave one of them out."
        )


def check_ranks(method: Method, count: int) -> None:
    """Refuse a training that several processes cannot do together.

    Raises:
        ConfigError: it is one.
    """
    if method.tune != "prompt" or method.name in PET:
        raise ConfigError(
            f"torchrun started {count} processes, which train prompts on a frozen LM together, and "
            f"{method.name} trains {_trained_by(method)}: start it as ptune train."
        )


def _trained_by(method: Method) -> str:
    """What a method trains, in words."""
    if method.name in PET:
        return "several models one after the other"
    kinds = {"head": "the LM's head", "lm": "the LM", "both": "the LM too", "nothing": "nothing"}
    return kinds[method.tune]
