"""What is tried of a comparison before its first training: that the LM can read the texts, that
every row fits, and each method on two rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ptune.errors import ModelError, PtuneError, TemplateError, VerbalizerError
from ptune.experiments.compare.compare_methods import Procedure, pet_plan, run_method, settings_of
from ptune.experiments.compare.compare_rows import FewShotSplit, is_impossible, readable_members
from ptune.experiments.train.train_rows import texts_that_are_read
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.model.rows.examples import Shortening
from ptune.runs.without_trace import without_trace
from ptune.survey.text_checks import unknown_text
from ptune.tasks import model_task
from ptune.tasks.task_members import Member
from ptune.training import rehearsal
from ptune.training.methods import PET, Method
from ptune.training.pattern_exploiting import pet


def check_texts(
    lm: LanguageModel,
    split: FewShotSplit,
    allow_unknown: bool,
    report: Callable[[str], None],
) -> None:
    """Report how much of a task's texts the LM cannot read.

    Args:
        allow_unknown: however much it is.

    Raises:
        DataError: it is more than a tenth.
    """
    form = split.form
    rows = {kind: getattr(split, kind) for kind in ("train", "dev", "test", "unlabeled")}
    texts = [(f"{where} of {form.name}", texts) for where, texts in texts_that_are_read(form, rows)]
    for sentence in unknown_text.check(texts, lm.tokens, allow_unknown):
        report(sentence)


def check_rows(
    lm: LanguageModel,
    split: FewShotSplit,
    methods: Sequence[Method],
    report: Callable[[str], None],
) -> None:
    """Tokenise a task's rows for every template by which one of the methods may ask it, so that a
    row that does not fit is refused before the first training. What is shortened is reported once
    for each kind of rows.

    Raises:
        PtuneError: a row does not fit.
    """
    rows = {"training": split.train, "dev": split.dev, "test": split.test}
    reported: set[str] = set()
    checked: set[str] = set()
    for method in methods:
        for member, model in _models(split, method, lm):
            if member.template in checked:
                continue
            checked.add(member.template)
            for kind, rows_of_kind in rows.items():
                shortening = Shortening()
                rehearsal.try_rows(model, 0, rows_of_kind, shortening=shortening)
                name = f"{kind} rows of {split.form.name}"
                sentence = shortening.sentence(name, model.limit(0))
                if sentence and kind not in reported:
                    reported.add(kind)
                    report(sentence)


def _models(
    split: FewShotSplit, method: Method, lm: LanguageModel
) -> Iterator[tuple[Member, PromptModel]]:
    """The templates and words by which a method asks the task, each with an untrained model that
    asks so; none where the method cannot be run on this LM, which its result then says."""
    try:
        for member in readable_members(split.form, method, lm):
            model = PromptModel(lm)
            task = model_task.task_of(
                split.form, lm, member, method=method, learning=split.learning
            )
            model.add(replace(task, init="random"))
            yield member, model
    except (TemplateError, VerbalizerError, ModelError) as error:
        if error.of_row:
            raise


def rehearse(
    procedure: Procedure, lm: LanguageModel, split: FewShotSplit, methods: Sequence[Method]
) -> None:
    """Run each method on two rows of a task and for one step, by the very code that runs the
    trials, and keep nothing. A method that cannot do the task is passed over, which its result then
    says.

    Raises:
        PtuneError: something does not fit together.
    """
    for method in methods:
        settings = settings_of(procedure, split, method)
        try:
            with without_trace(lm, tuned=False):
                if method.name in PET:
                    plan = pet_plan(procedure, lm, split, method=method, settings=settings)
                    pet.rehearse(lm, plan, split.train, dev=split.dev, unlabeled=split.unlabeled)
                else:
                    few = _brief(lm, split, method)
                    short = rehearsal.short(settings)
                    run_method(procedure.brief(), lm, few, method=method, settings=short)
        except PtuneError as error:
            if not is_impossible(error, method.name):
                raise


def _brief(lm: LanguageModel, split: FewShotSplit, method: Method) -> FewShotSplit:
    """A split with two rows of each kind, judged by its accuracy: other metrics may need more
    rows."""
    train = split.train[: rehearsal.ROWS]
    for _, model in _models(split, method, lm):
        train = rehearsal.rows_that_teach(model, 0, split.train)
        break
    return replace(
        split,
        form=replace(split.form, judging=replace(split.form.judging, metrics=())),
        train=train,
        dev=split.dev[: rehearsal.ROWS],
        test=split.test[: rehearsal.ROWS],
        zero_shot={},
    )
