"""A step of each of some pages' prefixes, one page after the other and all in one batch, in turn.

python scripts/document_training_speed.py LM PAGES [ROWS ...]

ROWS: how many slices a page learns from in a step; by default 8, 2 and 1.
"""

import pathlib
import sys
import time
from collections.abc import Sequence

import torch

from ptune import LanguageModel, PromptModel, TrainConfig
from ptune.documents import read_documents, train_documents
from ptune.documents.options import TRAINING, DistilConfig
from ptune.documents.teaching import lessons
from ptune.settings import part_of
from ptune.training.loop import take_step
from ptune.training.prompt_training import PromptTraining

TURNS = 3


def main(name: str, pages: pathlib.Path, sizes: Sequence[int]) -> None:
    """Print seconds of the core, and by how many times the batch is faster."""
    torch.set_num_threads(1)
    model = PromptModel(LanguageModel.load(name))
    config = DistilConfig(documents=[pages], lm=name, cover=1)
    teaching = part_of(lessons.Teaching, config)
    data = {}
    for document in read_documents.read([pages]):
        one = lessons.plan(teaching, model.lm, document, [])
        number = train_documents.add(teaching, model, one)
        data[number] = lessons.rows(teaching, model, number, lessons=one, kept=None)
    for size in sizes:
        settings = TRAINING.model_copy(update={"batch_size": size})
        trainings = [
            PromptTraining(
                model, number, rows, dev=held_out, config=settings, tune="prompt", unlabeled=[]
            )
            for number, (rows, held_out) in data.items()
        ]
        for turn in range(TURNS):
            alone = sum(_seconds(model, [training], settings) for training in trainings)
            together = _seconds(model, trainings, settings)
            print(
                f"{len(data)} pages, {size} rows of each, turn {turn + 1}: one by one {alone:.2f} "
                f"s, together {together:.2f} s, {alone / together:.2f} times",
                flush=True,
            )


def _seconds(
    model: PromptModel, trainings: Sequence[PromptTraining], settings: TrainConfig
) -> float:
    """Seconds of the core that a joint step takes."""
    began = time.process_time()
    take_step(model, trainings, settings)
    return time.process_time() - began


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]), [*map(int, sys.argv[3:])] or [8, 2, 1])
