"""The places of a template whose tokens are searched for: its runs of soft tokens. Tokens stand
there as ids, so that a step tokenises nothing, and as text, which is what is written."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ptune.errors import ConfigError, PtuneError, TemplateError
from ptune.model.prompt_model import Example, PromptModel
from ptune.prompts.encoders import Baked, Table
from ptune.reports.search_results import CandidateScore
from ptune.search.common.running_search import RunningSearch
from ptune.settings import TrainConfig
from ptune.template.language import EncodedRow, PrefixPart, Soft, Template, Text
from ptune.template.parts import shown
from ptune.template.tokenizer import Tokens

Ids = tuple[int, ...]
LENGTH = 3  # soft tokens, where the task's template has none


def template_of(search: RunningSearch, source: str | None) -> str:
    """The template whose soft tokens are the places: the given one, the task's own where it has
    soft tokens, or its first pattern with some before the answer.

    Raises:
        ConfigError: it has no soft tokens, or a prefix; or there is no such template.
    """
    task = search.task
    chosen = source or (task.template if "{soft" in task.template else "")
    if not chosen and task.patterns:
        chosen = task.patterns[0].replace("{mask}", f"{{soft:{LENGTH}}} {{mask}}")
    if not chosen:
        raise ConfigError(
            f"{task.name} has no template with soft tokens, whose places are searched: give one "
            'with --template, such as "{text} {soft:3} {mask}".'
        )
    parts = Template.parse(chosen).parts
    if any(isinstance(part, PrefixPart) for part in parts):
        raise ConfigError(
            f"{chosen!r} has a {{prefix}}, which no words can stand for: leave it out."
        )
    if not any(isinstance(part, Soft) for part in parts):
        raise ConfigError(
            f"{chosen!r} marks no place for the tokens that are searched: write {{soft:3}} there."
        )
    return chosen


class Trigger:
    """The searched places of a task's template, and its train rows as they stand around them.

    Attributes:
        template: with soft tokens at the places.
        length: how many places there are, P.
        table: the vectors that stand at the places while gradients are computed [P, E].
        examples: the train rows.

    Raises:
        ConfigError: this LM reads the words of a prompt in two places, of which soft tokens fill
            one; or the LM cannot read the template.
    """

    def __init__(self, search: RunningSearch, source: str):
        task, lm = search.task, search.task.lm
        if lm.kind == "encoder-decoder" and lm.tokens.mask != lm.tokens.sentinel:
            raise ConfigError(
                f"The decoder of {type(lm.model).__name__} reads the prompt's words again, where "
                "soft tokens cannot stand, so their gradient is not that of words: search by "
                "another method, or take an LM with <extra_id_0>, such as T5."
            )
        self.task, self.lm = task, lm
        asked = task.asked(CandidateScore(template=source))
        self.template = asked.template
        self.length = self.template.prompt_length(lm.tokens)
        self.table = Table(self.length, lm.width).to(lm.device)
        self.model = PromptModel(lm, max_length=task.max_length)
        self.model.add(replace(asked, encoder="table"), encoder=self.table)
        self.fitted = self.model.tasks[0].template
        if self.fitted.prompt_length(lm.tokens) != self.length:
            raise ConfigError(
                f"{source!r} has soft tokens behind {{mask}}, which a causal LM cannot see: put "
                "them before it."
            )
        self.examples: list[Example] = self.model.encode(0, task.train)
        self.vectors = lm.embed(torch.arange(lm.words)).detach().float()

    def start(self, seed: int, allowed: torch.Tensor) -> Ids:
        """The tokens to begin with: the words that the template gives to soft tokens, elsewhere
        random ones of the allowed numbers [A].

        Raises:
            ConfigError: no tokens of the LM are allowed.
        """
        if not len(allowed):
            raise ConfigError("No token of this LM is allowed at the places that are searched.")
        generator = torch.Generator().manual_seed(seed)
        drawn = allowed[torch.randint(len(allowed), (self.length,), generator=generator)].tolist()
        tokens: list[int] = []
        for length, ids in self.template.groups(self.lm.tokens):
            tokens += ids or drawn[len(tokens) : len(tokens) + length]
        return tuple(tokens)

    def put(self, vectors: torch.Tensor) -> None:
        """Let vectors [P, E] stand at the places."""
        with torch.no_grad():
            self.table.embedding.weight.copy_(vectors)

    def gradient(self, examples: Sequence[Example]) -> tuple[torch.Tensor, float]:
        """The gradient of the mean loss of some rows by the vectors at the places [P, E], and that
        loss."""
        weight = self.table.embedding.weight
        weight.grad = None
        with self.model.evaluating():
            losses = self.model.backward(examples, [1 / len(examples)] * len(examples))
        assert weight.grad is not None
        return weight.grad.detach().clone(), float(losses.sum())

    def keeping_texts(self) -> contextlib.AbstractContextManager[None]:
        """While this is open, a causal LM computes what stands before the places once, for all
        prompts that are tried there."""
        rows = [row for example in self.examples for row in (*example.fills, *example.learn)]
        return self.lm.keeping_contexts(rows, TrainConfig().context_mb)

    def vector_losses(
        self, prompts: Sequence[torch.Tensor], examples: Sequence[Example]
    ) -> list[float]:
        """The mean loss of each of some soft prompts [P, E]: each is a prompt of one bank, and all
        rows of all of them share batches."""
        model = PromptModel(self.lm, max_length=self.task.max_length)
        task = self.model.tasks[0].task
        for number, vectors in enumerate(prompts):
            model.add(replace(task, name=f"{task.name}/{number}"), encoder=Baked(vectors))
        rows = [
            replace(example, task=number) for number in range(len(prompts)) for example in examples
        ]
        losses = model.text_losses(rows, model.evaluation_rows)
        size = len(examples)
        return [sum(losses[i : i + size]) / size for i in range(0, len(losses), size)]

    def losses(self, prompts: Sequence[Ids], examples: Sequence[Example]) -> list[float]:
        """The mean loss of each of some prompts: all of them, for all rows, in the same batches. As
        vectors at the places where texts are kept (``keeping_texts``), else as tokens."""
        if not prompts:
            return []
        if self.lm.contexts is not None:
            vectors = [self.vectors[list(ids)].to(self.lm.dtype) for ids in prompts]
            return self.vector_losses(vectors, examples)
        rows = [filled_example(example, ids) for ids in prompts for example in examples]
        losses = self.model.text_losses(rows, self.model.evaluation_rows)
        size = len(examples)
        return [sum(losses[i : i + size]) / size for i in range(0, len(losses), size)]

    def calls(self, examples: Sequence[Example]) -> int:
        """How many rows the LM reads for the loss of examples."""
        return sum(len(example.learn) for example in examples)

    def written(self, ids: Ids) -> str | None:
        """The template with the tokens as text; None where the tokenizer would cut that text into
        other tokens."""
        try:
            source = as_text(self.template, ids, self.lm.tokens)
            template = Template.parse(source).for_lm(self.lm.tokens, self.lm.kind)[0]
            row = self.task.train[0]
            read = template.encode(row, self.lm.tokens, self.lm.kind, start=self.lm.start)
            soft = self.fitted.encode(row, self.lm.tokens, self.lm.kind, start=self.lm.start)
        except PtuneError:
            return None
        return source if read.ids == filled(soft, ids).ids else None


def as_text(template: Template, ids: Ids, tokens: Tokens) -> str:
    """A template whose soft tokens are the words of these tokens.

    Raises:
        TemplateError: they are no text.
    """
    pieces = []
    for part, slots in zip(template.parts, template.slots(tokens)):
        if slots is not None:
            text = tokens.tokenizer.decode(
                [ids[slot] for slot in slots], clean_up_tokenization_spaces=False
            ).strip()
            if not text or not text.isprintable():
                raise TemplateError(f"The tokens {ids} are no text.")
            part = Text(text)
        escaped = isinstance(part, Text)
        text = shown(part)
        pieces.append(text.replace("{", "{{").replace("}", "}}") if escaped else text)
    return "".join(pieces)


def filled(row: EncodedRow, ids: Ids) -> EncodedRow:
    """A row with these tokens at its soft slots."""
    if max(row.soft_slots) < 0:
        return row
    pairs = zip(row.ids, row.soft_slots)
    whole = tuple(ids[slot] if slot >= 0 else token for token, slot in pairs)
    return replace(row, ids=whole, soft_slots=(-1,) * len(whole))


def filled_example(example: Example, ids: Ids) -> Example:
    """An example with these tokens at its soft slots."""
    fills = tuple(filled(row, ids) for row in example.fills)
    learn = (
        fills
        if example.learn is example.fills
        else tuple(filled(row, ids) for row in example.learn)
    )
    return replace(example, fills=fills, learn=learn)


@dataclass(frozen=True)
class Allowed:
    """The numbers of the tokens that may be found [A], and of those among them that stand alone
    behind a space, whatever is beside them [B]."""

    all: torch.Tensor
    alone: torch.Tensor


def allowed_tokens(search: RunningSearch, whole_words: bool) -> Allowed:
    """The tokens that may stand in a prompt: none of the answers (the words of the labels, and what
    train and dev rows have as right), no special or unused token, none that is no text.

    Args:
        whole_words: words of letters alone, and no pieces.
    """
    tokens, answers = search.task.lm.tokens, search.task.answers()
    special = set(tokens.tokenizer.all_special_ids)
    texts: dict[int, str] = {}
    for number in range(search.task.lm.words):
        text = tokens.show(number).strip()
        bare = text.removeprefix("##")
        odd = not bare.isprintable() or "\ufffd" in bare or re.fullmatch(r"[\[<].+[\]>]", bare)
        if bare and not odd and number not in special and bare.lower() not in answers:
            texts[number] = text
    cut = tokens.words(list(texts.values()), "spaced")
    alone = [n for n, ids in zip(texts, cut) if list(ids) == [n]]
    if whole_words:
        alone = [number for number in alone if texts[number].isalpha()]
        return Allowed(torch.tensor(alone, dtype=torch.long), torch.tensor(alone, dtype=torch.long))
    return Allowed(
        torch.tensor(list(texts), dtype=torch.long), torch.tensor(alone, dtype=torch.long)
    )
