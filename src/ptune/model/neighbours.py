"""What the members of an ensemble know of labelled rows, as they are when these are read."""

from collections.abc import Sequence
from dataclasses import replace

from ptune.answers.neighbours import Neighbours
from ptune.model.prompt_model import PromptModel, Row
from ptune.model.rows.examples import ScoredExample

MOST_ROWS = 2000


def keep_neighbours(model: PromptModel, tasks: Sequence[int], rows: Sequence[Row]) -> None:
    """Let tasks that answer together know labelled rows (``Task.combine`` "neighbours"). Of many
    rows 2,000 are taken, evenly spread.

    Args:
        tasks: the numbers of all members.
        rows: with their right labels.

    Raises:
        TemplateError, DataError: a row does not fit.
        DivergedError: a score is no finite number.
    """
    some = rows[:: -(-len(rows) // MOST_ROWS)]
    for task in tasks:
        examples = [one for one in model.encode(task, some) if isinstance(one, ScoredExample)]
        pairs = zip(examples, model.scores(examples))
        log_probs = [-example.loss_of_scores(scores) for example, scores in pairs]
        known = Neighbours.of_rows([example.read_ids for example in examples], log_probs)
        model.tasks[task] = replace(model.tasks[task], neighbours=known)
