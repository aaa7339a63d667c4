"""Documents and questions for a tiny causal LM, what it is taught of them, and their prefixes as
transformers' own caches."""

import tiny

from ptune import LanguageModel, PromptModel
from ptune.documents import train_documents
from ptune.documents.options import DistilConfig
from ptune.documents.read_documents import Document
from ptune.documents.teaching import lessons
from ptune.documents.teaching.lessons import Teaching
from ptune.documents.teaching.study import Study
from ptune.settings import part_of

TEXT = " ".join(tiny.TEXT[:2])[:90]
FAST = {"steps": 4, "batch_size": 2, "evaluate_every": 2}


def three_texts():
    return [("a", TEXT), ("b", " ".join(tiny.TEXT[2:])[:100]), ("c", tiny.TEXT[1])]


def lm_of(family):
    return LanguageModel(*tiny.tiny(family))


def lessons_of(lm, settings, name="a", text=TEXT):
    given = [Study(document=name, question="the capital ?", answer="Vienna")]
    return lessons.plan(part_of(Teaching, settings), lm, Document(name, text, f"{name}.txt"), given)


def built(lm, settings, *planned):
    """A model with the prefixes of documents at their starts, and the rows of each."""
    model, teaching = PromptModel(lm), part_of(Teaching, settings)
    data = {}
    for one in planned:
        number = train_documents.add(teaching, model, one)
        data[number] = lessons.rows(teaching, model, number, lessons=one, kept=None)
    return model, data


def cache_of(lm, prefix):
    """The values of a prefix [P, W] as transformers' own cache."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, site in enumerate(sorted(lm.route.sites, key=lambda site: site.start)):
        both = prefix[:, site.start : site.end].unflatten(-1, (2, site.heads, site.size))
        keys, values = both.permute(1, 2, 0, 3)
        cache.update(keys[None], values[None], layer)
    return cache


def config(world, out, **settings):
    return DistilConfig(
        **{
            "documents": [world / "pages"],
            "lm": str(world / "lm"),
            "out": out,
            "length": 4,
            "cover": 2,
            "slice_tokens": 6,
            "study": world / "questions.jsonl",
            "device": "cpu",
            "train": FAST,
        }
        | settings
    )


def quiet(*lines):
    pass
