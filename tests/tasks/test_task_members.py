"""What methods make of a task's hand-written patterns."""

from dataclasses import replace

import pytest
import tiny
import torch

from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.tasks import model_task, task_members
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.task_form import USUAL
from ptune.tasks.schema import TaskConfig
from ptune.training.methods import METHODS

ROWS = [{"x": "Vienna film"}, {"x": "a great city of the east"}]
LABELS = {"a": "great", "b": "bad", "c": "Rome"}


def scores(lm, form, name, template=None):
    """The scores of the rows [rows, labels] when nothing is trained."""
    model, method = PromptModel(lm), METHODS[name]
    member = task_members.members(form, method, lm)[0]
    member = replace(member, template=template or member.template)
    model_task.add(model, form, member, ROWS, method=method, learning=USUAL)
    return torch.stack(list(model.scores(model.encode(0, ROWS, labelled=False))))


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize(
    "task", [{"patterns": ["{x} the best of {mask}"]}, {"template": "{x} the best of {mask}"}]
)
def test_optiprompt_begins_as_the_hand_written_prompt(family, task):
    lm = LanguageModel(*tiny.tiny(family))
    config = TaskConfig(name="task", labels=LABELS, target="label", **task)
    form = resolve.task_form(config)
    asked = task_members.members(form, METHODS["optiprompt"], lm)
    assert [member.template for member in asked] == ['{x} {soft:"the best of"} {mask}']
    manual = scores(lm, form, "manual")
    random = scores(lm, form, "optiprompt", "{x} {soft:3} {mask}")
    assert not torch.allclose(manual, random, atol=1e-2)
    torch.testing.assert_close(scores(lm, form, "optiprompt"), manual, atol=1e-5, rtol=1e-5)


def test_words_with_labels_have_no_wording_that_could_be_trained():
    words = TaskConfig(name="task", labels=["O", "B-x"], target="tags", tag="words")
    form = resolve.task_form(words)
    asked = task_members.members(form, METHODS["optiprompt"])
    assert [member.template for member in asked] == ["{words}"]
