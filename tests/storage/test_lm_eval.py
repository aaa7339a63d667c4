"""A prompt of ptune in lm-evaluation-harness, through PEFT's folder: as the guide says it."""

import json
import pathlib
import re

import pytest
import tiny

from ptune.answers.label_words import Verbalizer
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.storage import peft_format
from ptune.template.language import Template

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "peft.md"
ROWS = [{"text": "It was", "label": 1}, {"text": "great film", "label": 0}]


@pytest.mark.filterwarnings("ignore")  # of the harness and what it imports
@pytest.mark.parametrize("learned", ["{prefix:3}", "{soft:3}"])
def test_lm_eval_scores_as_ptune_does(learned, tmp_path, monkeypatch):
    lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    network, tokenizer = tiny.tiny("gpt2")
    network.save_pretrained("lm")
    tokenizer.save_pretrained("lm")
    model = PromptModel(LanguageModel(network, tokenizer))
    words = Verbalizer.from_words({"0": "No", "1": "Yes"}, length="sum")
    template = Template.parse(learned + " {text} Good? {mask}")
    model.add(Task("t", template, words, prefix=PrefixSettings(0)), ROWS)
    peft_format.export(model, "films-for-peft")

    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "test.jsonl").write_text(lines)
    task = re.search(r"```yaml\n(task: films\n.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)[1]
    if learned == "{soft:3}":  # the space behind soft tokens belongs to the text
        task = task.replace('"{{text}}', '" {{text}}')
    (tmp_path / "films.yaml").write_text(task)
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={tmp_path / 'lm'},peft={tmp_path / 'films-for-peft'}",
        tasks=["films"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        device="cpu",
        bootstrap_iters=0,
    )
    ours = model.scores(model.encode(0, ROWS))
    for sample, scores in zip(results["samples"]["films"], ours):
        no, yes = (float(answer[0][0]) for answer in sample["resps"])
        assert yes - no == pytest.approx(float(scores[1] - scores[0]), abs=1e-4)
