"""AutoPrompt's label words: a classifier of what the LM's head reads at the answer's place, asked
for the head's own vectors of words (Shin et al. 2020, section 2.3)."""

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from ptune.answers.readers.linear_reader import regression
from ptune.model.prompt_model import PromptModel
from ptune.model.running.forward import batches_of, run_examples
from ptune.reports.search_results import CandidateScore
from ptune.search.common.running_search import RunningSearch


def best_of_classifier(
    search: RunningSearch, patterns: Sequence[str], words: Sequence[str], count: int
) -> list[list[int]] | None:
    """For each label the numbers of the words that the classifiers of all patterns give to it most
    surely; None where the LM's head compares no vectors with those of words, words or labels have
    several tokens, or the budget is spent."""
    task, vocabulary = search.task, search.task.lm.vocabulary
    if vocabulary is None:
        return None
    surely = torch.zeros(len(words), len(task.words))
    for pattern in patterns:
        model = PromptModel(task.lm, max_length=task.max_length)
        asked = CandidateScore(template=pattern, words=dict(task.words))
        number = task.add(model, asked)
        place = model.tasks[number].template.place
        ids = task.lm.tokens.words(words, place)
        examples = model.encode(number, task.train)
        if any(len(one) > 1 for one in ids) or len(examples[0].fills) > 1:
            return None
        if not search.budget.allows(len(examples), search.reserved(asked)):
            return None
        search.budget.spent += len(examples)
        features = _features(model, examples)
        right = torch.tensor([example.label for example in examples])
        weight, bias = regression(normalize(features, dim=1), right, len(task.words))
        vectors = vocabulary.weight[[one[0] for one in ids]].float().cpu()
        scores = normalize(vectors, dim=1) @ weight.T + bias
        surely += scores.log_softmax(1)
    return surely.topk(min(count, len(words)), dim=0).indices.T.tolist()


@torch.no_grad()
def _features(model: PromptModel, examples: Sequence) -> torch.Tensor:
    """What the vocabulary head reads at the answer's place of each row [B, F]."""
    read = []
    with model.evaluating():
        for batch in batches_of(range(len(examples)), [1] * len(examples), model.evaluation_rows):
            outputs = run_examples(model, [examples[number] for number in batch])
            read += [fills[0].features for fills in outputs]
    return torch.cat([one[:1] for one in read if one is not None]).float().cpu()
