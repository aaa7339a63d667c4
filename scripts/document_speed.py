"""One question on each of some pages, answered in one batch: beside prefixes of a tenth of the pages,
and behind the whole pages, in turn.

python scripts/document_speed.py LM PAGES QUESTIONS.jsonl

The prefixes are not trained: how fast they are does not depend on what they hold.
"""

import json
import pathlib
import sys
import time

from ptune import DecodingConfig, LanguageModel, PromptModel, Task, Template
from ptune.documents import read_documents, train_documents
from ptune.documents.options import TEMPLATE, DistilConfig
from ptune.documents.teaching import lessons

TURNS = 3


def main(name: str, pages: pathlib.Path, questions: pathlib.Path) -> None:
    """Print seconds and bytes."""
    lm = LanguageModel.load(name)
    config = DistilConfig(documents=[pages], lm=name, cover=0.1)
    planned = [lessons.plan(config, lm, one, []) for one in read_documents.read([pages])]
    model = PromptModel(lm)
    for one in planned:
        train_documents.add(config, model, one)
    model.add(Task("whole", Template.parse("{page}" + TEMPLATE), target="answer"))
    asked: dict[str, str] = {}
    for line in questions.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked.setdefault(row["document"], row["question"])
    names = [one.document.name for one in planned]
    rows = [
        {"document": one.document.name, "page": one.document.text, "question": asked[name]}
        for one, name in zip(planned, names)
    ]
    vector = lm.route.width * lm.dtype.itemsize
    for what, count in (
        ("prefixes", sum(one.length for one in planned)),
        ("pages", sum(len(one.ids) for one in planned)),
    ):
        print(f"{what}: {count} vectors, {count * vector / 1e6:.1f} MB of keys and values")
    few = DecodingConfig(max_new_tokens=8)
    for turn in range(TURNS):
        for what, tasks in (("prefixes", names), ("whole pages", ["whole"] * len(rows))):
            began, used = time.perf_counter(), time.process_time()
            model.generate(rows, tasks, few)
            seconds, cpu = time.perf_counter() - began, time.process_time() - used
            print(f"turn {turn + 1}, {what}: {seconds:.2f} s, {cpu:.2f} s of a core", flush=True)
    together = model.generate(rows, names, few)
    alone = [model.generate([row], name, few)[0] for row, name in zip(rows, names)]
    print(f"each alone gets the same: {together == alone}")


if __name__ == "__main__":
    main(sys.argv[1], *map(pathlib.Path, sys.argv[2:4]))
