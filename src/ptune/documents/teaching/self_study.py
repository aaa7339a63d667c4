"""Study text that the LM writes of slices of a document, with the document in its context:
questions with their answers, summaries, outlines and uses (Cartridges, section 4.1). The document's
keys and values are computed once and shared by all rows that are written together."""

from collections.abc import Sequence

import torch

from ptune.base.progress import Progress
from ptune.base.seeding import seeded
from ptune.documents.teaching import teacher
from ptune.documents.teaching.study import Study
from ptune.documents.teaching.teacher import Stretch
from ptune.lm.language_model import LanguageModel

KINDS = {
    "question": "{slice}\n\nA question about this, and its answer.\nQuestion:",
    "summary": "{slice}\n\nThis in a few words:",
    "outline": "{slice}\n\nThis as a list of its points:\n-",
    "use": "{slice}\n\nWhat one can use this for:",
}
TOKENS = 64  # of a text that is written
ROOM = 32 + TOKENS  # tokens behind a slice
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}


def write(
    lm: LanguageModel,
    document: str,
    *,
    slices: Sequence[Study],
    stretches: Sequence[Stretch],
    count: int,
    seed: int,
) -> list[Study]:
    """So many texts of a document, of each kind in turn, without those that are none of their
    kind.

    Args:
        slices: slices of the document, of which some are drawn.
        stretches: the document as the teacher reads it.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(slices), (count,), generator=generator).tolist()
    asked = [(list(KINDS)[number % len(KINDS)], slices[n]) for number, n in enumerate(drawn)]
    texts: list[Study] = []
    with Progress(f"the LM writes of {document}", count) as progress, seeded(seed, lm.device):
        for number, stretch in enumerate(stretches):
            some = [(kind, text) for kind, text in asked if _stretch_of(text, stretches) == number]
            if some:
                texts += _written(lm, document, stretch, some)
                progress.advance(len(some))
    return texts


def _stretch_of(text: Study, stretches: Sequence[Stretch]) -> int:
    """The stretch of the document in which a slice stands."""
    assert text.start is not None
    return teacher.stretch_of(stretches, text.start, text.start + len(text.text))


def _written(
    lm: LanguageModel, document: str, stretch: Stretch, asked: Sequence[tuple[str, Study]]
) -> list[Study]:
    """What the LM writes of some slices behind one stretch of the document."""
    before = (*lm.tokens.before, *lm.tokens.start(stretch.text))
    words = ["\n\n" + KINDS[kind].replace("{slice}", text.text) for kind, text in asked]
    rows = [tuple(lm.tokens.follow(text)) for text in words]
    ids = lm.write_behind(before, rows, max_new_tokens=TOKENS, **SAMPLING)
    written = [lm.tokens.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    texts = (study_of(document, kind, text) for (kind, _), text in zip(asked, written))
    return [text for text in texts if text is not None]


def study_of(document: str, kind: str, text: str) -> Study | None:
    """A text that the LM wrote as one to learn from; None where it is none of its kind."""
    text = text.strip().split("\n\n")[0].strip()
    if kind != "question":
        return Study(document=document, text=text, written=kind) if text else None
    question, _, answer = text.partition("\nAnswer:")
    question, answer = question.strip(), answer.strip().split("\n")[0]
    if not answer or not question or "\n" in question:
        return None
    return Study(document=document, question=question, answer=answer, written=kind)
