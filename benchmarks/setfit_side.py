"""SetFit's side of `benchmarks.few_labels`, run by the Python of an environment that
`scripts/setfit_env.sh` makes. Each line of its input is a job as JSON, each line of its output the
answers; it needs nothing of ptune.
"""

import contextlib
import json
import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments


def main() -> None:
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        for line in sys.stdin:
            print(json.dumps(answered(json.loads(line))), file=answers, flush=True)


def answered(job: dict[str, Any]) -> dict[str, Any]:
    """The labels of a job's test texts, and the seconds of the clock and of the CPU that learning
    and answering took.

    Args:
        job: lm (a folder), train (pairs of a text and the number of its label), test (texts),
            pairs (of one label and of two labels for each row, R of the paper), max_length, seed,
            threads.
    """
    torch.set_num_threads(job["threads"])
    texts, labels = zip(*job["train"])
    model = SetFitModel.from_pretrained(job["lm"], device="cpu")
    model.model_body.max_seq_length = job["max_length"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                num_iterations=job["pairs"],
                seed=job["seed"],
                report_to="none",
                save_strategy="no",
                show_progress_bar=False,
            ),
            train_dataset=Dataset.from_dict({"text": list(texts), "label": list(labels)}),
        )
        began = time.perf_counter(), time.process_time()
        trainer.train()
        learned = time.perf_counter(), time.process_time()
    predicted = model.predict(job["test"], batch_size=32)
    ended = time.perf_counter(), time.process_time()
    return {
        "answers": [int(label) for label in predicted],
        "seconds": learned[0] - began[0],
        "cpu_seconds": learned[1] - began[1],
        "answering_seconds": ended[1] - learned[1],
        "bytes": sum(p.numel() * p.element_size() for p in model.model_body.parameters()),
    }


if __name__ == "__main__":
    main()
