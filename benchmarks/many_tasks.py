"""Contrastive prompts of many tasks, trained as one bank and one by one, and answered in mixed
batches and alone: how much faster that is, how far the scores are apart, what a task takes. Beside
it stands the floor, the time that the bare LM takes for the tokens of the steps.

    python -m benchmarks.many_tasks --lm FOLDER

The tasks are draws of rows of the sets that `benchmarks.few_labels` takes. Seconds are those of the
CPU, since those of the clock count what else the machine does. Those of the trainings count one
evaluation too, which the floor does not.
"""

import argparse
import math
import pathlib
import time
from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from benchmarks.few_labels import Draw, draws_of
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.model.running.forward import batches_of
from ptune.model.running.losses import CPU_TOKENS
from ptune.tasks import model_task, task_members
from ptune.tasks.resolved.task_form import USUAL
from ptune.training.loop import fit
from ptune.training.methods import method

CONTRASTIVE = method("contrastive")
Scores = list[torch.Tensor]


def main() -> None:
    chosen = _arguments()
    torch.set_num_threads(chosen.threads)
    lm = LanguageModel.load(str(chosen.lm), device="cpu")
    draws = list(draws_of(chosen.tasks.split(","), [chosen.shots], chosen.seeds, chosen.test))
    began = time.process_time()
    models = [_trained(lm, [draw], chosen) for draw in draws]
    seconds_apart = time.process_time() - began
    bank = _trained(lm, draws, chosen)
    seconds_of_bank = time.process_time() - began - seconds_apart
    seconds_of_floor = _floor(lm, bank, draws, chosen.steps)
    apart = [_scores(model, 0, draw) for model, draw in zip(models, draws)]
    alone = [_scores(bank, number, draw) for number, draw in enumerate(draws)]
    print(f"{len(draws)} tasks of {chosen.shots} rows of each label, {chosen.steps} steps each")
    print(
        f"one by one {seconds_apart:.1f} s of the CPU, as a bank {seconds_of_bank:.1f} s: ", end=""
    )
    print(f"{seconds_apart / seconds_of_bank:.2f} times as fast")
    print(f"the bare LM, forward and backward over the same tokens: {seconds_of_floor:.1f} s")
    print(f"bank and one by one: {_compared(alone, apart)}")
    print(f"mixed batches and each task alone: {_compared(_mixed(bank, draws), alone)}")
    size = max(2 * bank.bank.size(task.prompt) for task in bank.tasks)
    print(f"a task takes {size / 1000:.1f} kB at most, in float16")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--lm", type=pathlib.Path, required=True, help="a sentence encoder's folder"
    )
    parser.add_argument("--tasks", default="trec,mr,sst2,sst5")
    parser.add_argument("--shots", type=int, default=16, help="rows of each label")
    parser.add_argument("--seeds", type=int, default=2, help="draws of each set, each a task")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--test", type=int, default=50, help="test rows of each task at most")
    parser.add_argument("--max-length", type=int, default=64, help="tokens of a text at most")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def _trained(lm: LanguageModel, draws: Sequence[Draw], chosen: argparse.Namespace) -> PromptModel:
    """The draws' prompts, trained together."""
    model, data = PromptModel(lm, max_length=chosen.max_length), {}
    for draw in draws:
        member = task_members.members(draw.form, CONTRASTIVE, lm)[0]
        name = f"{draw.form.name}, draw {draw.seed}"
        number = model_task.add(
            model, draw.form, member, draw.train, method=CONTRASTIVE, learning=USUAL, name=name
        )
        data[number] = (draw.train, draw.train)
    steps = {"steps": chosen.steps, "evaluate_every": chosen.steps}
    fit(model, data, CONTRASTIVE.train.replaced(steps))
    return model


def _floor(lm: LanguageModel, bank: PromptModel, draws: Sequence[Draw], steps: int) -> float:
    """The seconds of the CPU that the bare LM takes, forward and backward, for as many tokens as
    the steps of all tasks have: rows of like length in batches, without prompts and losses."""
    tokens, texts = 0.0, []
    for number, draw in enumerate(draws):
        ids = [example.fills[0].ids for example in bank.encode(number, draw.train)]
        steps_an_epoch = math.ceil(len(ids) / CONTRASTIVE.train.batch_size)
        tokens += sum(map(len, ids)) * steps / steps_an_epoch
        texts += ids
    texts.sort(key=len)
    began = time.process_time()
    for batch in batches_of(range(len(texts)), list(map(len, texts)), CPU_TOKENS):
        rows = [torch.tensor(texts[i]) for i in batch]
        seen = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        vectors = lm.embed(pad_sequence(rows, batch_first=True)).requires_grad_()
        states = lm.model(inputs_embeds=vectors, attention_mask=seen).last_hidden_state
        states.sum().backward()
    return (time.process_time() - began) * tokens / sum(map(len, texts))


def _scores(model: PromptModel, number: int, draw: Draw) -> Scores:
    return model.scores(model.encode(number, draw.test))


def _mixed(bank: PromptModel, draws: Sequence[Draw]) -> list[Scores]:
    """The scores of the rows of all draws in the same batches."""
    examples = [bank.encode(number, draw.test) for number, draw in enumerate(draws)]
    scores = iter(bank.scores([example for of_task in examples for example in of_task]))
    return [[next(scores) for _ in of_task] for of_task in examples]


def _compared(ours: Sequence[Scores], theirs: Sequence[Scores]) -> str:
    """How far scores are apart, and how many answers are the same."""
    pairs = [pair for both in zip(ours, theirs) for pair in zip(*both, strict=True)]
    difference = max(float((one - other).abs().max()) for one, other in pairs)
    same = sum(int(one.argmax() == other.argmax()) for one, other in pairs)
    return f"{same} of {len(pairs)} answers equal, scores at most {difference:.1e} apart"


if __name__ == "__main__":
    main()
