"""Rows of any prompts answered in one batch of the frozen LM."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pydantic import ValidationError

from ptune.answers.ensemble import most_said
from ptune.errors import ConfigError, first_fault
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import Example, PromptModel
from ptune.model.running import scoring
from ptune.model.running.generate import draw_keys, write_all, write_live, written_together
from ptune.serving.engines.jobs import BatchNote, Job, LabelAnswer, TextAnswer
from ptune.serving.engines.live_text import LiveText
from ptune.serving.problems import overlong
from ptune.settings import DecodingConfig
from ptune.survey.text_checks.unknown_text import of_row

MORE = ("entities", "start", "end")
"""What an answer may have beside its prediction and scores."""
FREE = {"max_new_tokens": 1, "min_new_tokens": 0, "stop": (), "rows": 1, "seed": 0}
"""Settings of writing in which rows of one batch may differ."""


More = Callable[[Callable[[Job], bool]], Job | None]
"""Gives the next job if it fits, or None."""


def nobody(fits: Callable[[Job], bool]) -> Job | None:
    """No further job."""
    return None


class BatchEngine:
    """The frozen LM, on rows that are ready (``prepare``). One thread at a time.

    Attributes:
        joins: whether a text may join others that have begun.

    Args:
        tokens: of a batch at most, padding and what is to be written included.
    """

    joins = False

    def __init__(self, lm: LanguageModel, tokens: int):
        self.lm, self.tokens = lm, tokens

    def prepare(self, job: Job) -> None:
        """Tokenise a job's row with the prompt that it has been given (``Job.loaded``).

        Raises:
            PtuneError: the row does not fit the prompt, or the settings of writing cannot be.
        """
        model: PromptModel = job.loaded.model
        room = 0
        if job.decoding is not None:
            job.settings = _settings(model, job.decoding)
            room = job.settings.max_new_tokens
        job.examples = model.encode_for(job.row, job.number, labelled=False, room=room)
        first = job.examples[0]
        text = " ".join(model.tasks[first.task].template.texts(job.row).values())
        job.unknown = round(of_row(text, first.fills[0].ids, self.lm.tokens).unread, 4)
        if job.settings is not None:
            for example in job.examples:
                self.lm.check_room(example.fills[0], room)

    def label_batches(self, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Jobs with labels in batches that are small enough; those of like length together."""
        batch: list[Job] = []
        rows = 0
        for job in sorted(jobs, key=lambda job: job.length):
            if batch and (rows + job.inputs) * job.length > self.tokens:
                yield batch
                batch, rows = [], 0
            batch.append(job)
            rows += job.inputs
        if batch:
            yield batch

    def text_batch(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs whose texts are written in one call together with the first one's."""
        if self.is_apart(jobs[0]):
            return [jobs[0]]
        chosen = [jobs[0]]
        for job in jobs[1:]:
            if not self.is_apart(job) and self._fits([*chosen, job]):
                chosen.append(job)
        model, examples = _one_model(chosen)
        flat = [examples_of_job[0] for examples_of_job in examples]
        batches = written_together(model, flat, len(flat))
        return [chosen[number] for number in next(batch for batch in batches if 0 in batch)]

    def is_apart(self, job: Job) -> bool:
        """Whether a job's text is written in a call of its own, as it is not written token by
        token."""
        assert job.settings is not None
        return job.settings.copies > 1 or len(job.examples) > 1

    def score(self, jobs: Sequence[Job]) -> None:
        """Answer jobs with labels, in one batch."""
        model, examples = _one_model(jobs)
        flat = [example for examples_of_job in examples for example in examples_of_job]
        scores = iter(model.scores(flat, finite=False))
        note = note_of(jobs)
        answers = []
        for job, examples_of_job in zip(jobs, examples):
            of_job = [next(scores) for _ in examples_of_job]
            scoring.check_finite(model, examples_of_job, of_job)
            best = model.answer(examples_of_job, of_job)
            answers.append(
                LabelAnswer(
                    label=best["prediction"],
                    scores=best["scores"],
                    tokens=job.tokens,
                    unknown=job.unknown,
                    batch=note,
                    more={name: best[name] for name in MORE if name in best},
                )
            )
        for job, answer in zip(jobs, answers):
            job.succeed(answer)

    def write(
        self,
        jobs: Sequence[Job],
        between: Callable[[], None],
        more: More = nobody,
    ) -> None:
        """Write the texts of jobs that may share a call (``text_batch``).

        Args:
            between: is called between two tokens.
            more: gives further jobs, to an engine that lets them join.
        """
        if self.is_apart(jobs[0]):
            self._write_whole(jobs[0])
        else:
            self._write_live(jobs, between)

    def _write_whole(self, job: Job) -> None:
        """Several texts, beams, or an ensemble."""
        assert job.settings is not None
        model, (examples,) = _one_model([job])
        written = write_all(model, examples, job.settings)
        if job.settings.texts > 1:
            texts = [text for texts_of_member in written for text in texts_of_member]
        else:
            texts = [most_said([texts_of_member[0] for texts_of_member in written])]
        counts = [len(self.lm.tokens.plain(text)) for text in texts]
        ends = ["length" if n >= job.settings.max_new_tokens else "stop" for n in counts]
        if job.on_text is not None and len(texts) == 1:
            job.on_text(texts[0])
        job.succeed(
            TextAnswer(
                texts=texts,
                ends=ends,
                tokens=job.tokens,
                written=sum(counts),
                unknown=job.unknown,
                batch=note_of([job]),
            )
        )

    def _write_live(self, jobs: Sequence[Job], between: Callable[[], None]) -> None:
        model, examples = _one_model(jobs)
        rows = [examples_of_job[0] for examples_of_job in examples]
        settings = [job.settings for job in jobs if job.settings is not None]
        texts = [LiveText(model, one.max_new_tokens, one.stop) for one in settings]
        most = max(one.max_new_tokens for one in settings)
        note = note_of(jobs)

        def take(tokens: list[int]) -> list[bool]:
            for job, text, token in zip(jobs, texts, tokens):
                take_token(job, text, token, note)
            going_on = [job.is_wanted and not text.end for job, text in zip(jobs, texts)]
            if any(going_on):
                between()
            return going_on

        of_all = settings[0].model_copy(update={"max_new_tokens": most})
        keys = [draw_keys([row], [one.seed])[0] for row, one in zip(rows, settings)]
        write_live(model, rows, of_all, take, keys=keys)

    def _fits(self, jobs: Sequence[Job]) -> bool:
        """Whether the last of the jobs may be in one call with the others, as far as its settings
        and its length go."""
        settings = [job.settings for job in jobs if job.settings is not None]
        if _shared(settings[-1]) != _shared(settings[0]):
            return False
        longest = max(job.length for job in jobs)
        new = max(one.max_new_tokens for one in settings)
        limit = self.lm.max_length if self.lm.kind == "causal" else None
        if limit is not None and longest + new > limit:
            return False
        if len(jobs) * (longest + new) > self.tokens:
            return False
        fills = [job.examples[0].fills[0] for job in jobs]
        return all(self.lm.side(fill) == self.lm.side(fill, new) for fill in fills)


def take_token(job: Job, text: LiveText, token: int, note: BatchNote) -> None:
    """Give a job its next token, and its answer when that was the last one."""
    if text.end is not None or not job.is_wanted:
        return
    if job.is_late:
        job.fail(overlong())
        return
    text.add(token)
    if job.on_text is not None and (piece := text.piece()):
        job.on_text(piece)
    if text.end is not None:
        answer = TextAnswer(
            texts=[text.text],
            ends=[text.end],
            tokens=job.tokens,
            written=len(text.ids),
            unknown=job.unknown,
            batch=note,
        )
        job.succeed(answer)


def _one_model(jobs: Sequence[Job]) -> tuple[PromptModel, list[list[Example]]]:
    """One model with the prompts of all jobs, and each job's examples as it numbers them. This is
    where the prompts of different users meet; nothing of it outlives the batch."""
    models = {id(job.loaded.model): job.loaded.model for job in jobs}
    merged = PromptModel(next(iter(models.values())).lm)
    first_tasks: dict[int, int] = {}
    for key, model in models.items():
        first_tasks[key] = len(merged.tasks)
        first_prompt = len(merged.bank)
        parts = zip(model.bank.encoders, model.bank.prefixes, model.bank.readers)
        for encoder, prefix, reader in parts:
            merged.bank.add(encoder, prefix, reader)
        merged.tasks += [
            replace(task, prompt=task.prompt + first_prompt if task.prompt >= 0 else -1)
            for task in model.tasks
        ]
    examples = [
        [
            replace(example, task=example.task + first_tasks[id(job.loaded.model)])
            for example in job.examples
        ]
        for job in jobs
    ]
    return merged, examples


def _shared(settings: DecodingConfig) -> DecodingConfig:
    """The settings that all rows of a call have in common."""
    same_start = {**FREE, "min_new_tokens": settings.min_new_tokens}
    if settings.min_new_tokens:
        same_start["max_new_tokens"] = settings.max_new_tokens
    return settings.model_copy(update=same_start)


def _settings(model: PromptModel, changes: dict[str, object]) -> DecodingConfig:
    """The prompt's own settings of writing with a request's changes.

    Raises:
        ConfigError: they do not go together.
    """
    task = model.tasks[0]
    if task.verbalizer is not None:
        raise ConfigError(f"{task.task.name} has labels to choose from, and writes no text.")
    settings = task.task.decoding.model_dump()
    if changes.get("sample") is False:
        changes = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, **changes}
    if "max_new_tokens" in changes:
        most = int(str(changes["max_new_tokens"]))
        settings["min_new_tokens"] = min(settings["min_new_tokens"], most)
    try:
        return DecodingConfig.model_validate({**settings, **changes})
    except (ValidationError, ConfigError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"The settings of writing cannot be: {fault}") from error


def note_of(jobs: Sequence[Job]) -> BatchNote:
    """Which rows share a batch."""
    rows = Counter(job.prompt for job in jobs)
    return BatchNote(dict(rows), sum(job.tokens for job in jobs))
