"""What a training tells its logs after a step and after an evaluation."""

from collections.abc import Sequence

from ptune.model.prompt_model import PromptModel
from ptune.runs.logs.step_log import StepLog
from ptune.settings import DecodingConfig
from ptune.training.prompt_training import PromptTraining

SAMPLES = 2  # dev rows whose written texts are logged
SAMPLE = DecodingConfig(max_new_tokens=32)


def log_step(log: StepLog, jobs: Sequence[PromptTraining]) -> None:
    """Tell of a joint step: the loss, the rates and the norm of the gradient of each task."""
    if not log.logs:
        return
    for job in jobs:
        log.add(job.name, job.step, job.step_figures)
    log.count(sum(job.step_tokens for job in jobs))


def log_evaluation(log: StepLog, model: PromptModel, jobs: Sequence[PromptTraining]) -> None:
    """Tell what the evaluations of some tasks gave; of one that diverged nothing is told."""
    if not log.logs:
        return
    for job in jobs:
        if job.trained.diverged:
            continue
        evaluation = job.trained.history[-1]
        figures = {
            "train_loss": evaluation.loss,
            "dev_loss": evaluation.dev_loss,
            "dev_score": evaluation.dev,
        }
        texts = _samples(model, job) if job.writes else ()
        log.write_evaluation(job.name, job.step, figures, texts)
    log.restart_clock()


def _samples(model: PromptModel, job: PromptTraining) -> list[str]:
    """What the LM writes for the first dev rows: greedily, so that no random number is drawn."""
    written = model.generate(list(job.dev_rows[:SAMPLES]), job.task, SAMPLE)
    return [str(text) for text in written]
