"""What the wording of prompts has to do with their scores equals a plain computation."""

import pytest
import torch
from scipy.stats import spearmanr
from search_kit import config_of, running, search, write_task

from ptune.reports.search_results import CandidateScore
from ptune.search.common import wording

TEMPLATES = (
    "{text} is {mask}",
    "the {text} : {mask}",
    "{text} , it was a {mask}",
    "a film ? {text} {mask}",
    "{text} lies in the east of {mask}",
    "great {text} {mask}",
    "{text} or {mask}",
    "so {text} {mask}",
)


@torch.no_grad()
def plain(lm, text):
    """Minus the mean log probability of a text's tokens, one call of the network for each."""
    ids = lm.tokens.tokenizer(text)["input_ids"]
    values = []
    for place in range(1, len(ids) if lm.kind == "causal" else len(ids) - 1):
        if lm.kind == "causal":
            logits = lm.model(input_ids=torch.tensor([ids[:place]])).logits[0, -1]
        else:
            masked = [*ids[:place], lm.tokens.mask, *ids[place + 1 :]]
            logits = lm.model(input_ids=torch.tensor([masked])).logits[0, place]
        values.append(logits.log_softmax(-1)[ids[place]].item())
    return -sum(values) / len(values)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_correlations_are_those_of_a_plain_computation(family, tmp_path):
    write_task(tmp_path, family)
    run = running(tmp_path, by="paraphrase")
    tried = [
        CandidateScore(template=text, train=number / 10)
        for number, text in enumerate(TEMPLATES)
        if family == "bert" or text.endswith("{mask}")
    ]
    computed = wording.correlations(run, tried)
    wanted = [
        sum(
            plain(
                run.task.lm,
                one.template.replace("{text}", row["text"]).replace(
                    "{mask}", run.task.words[row["label"]]
                ),
            )
            for row in run.task.train[:2]
        )
        for one in tried
    ]
    figures = [one.train for one in tried]
    assert computed["perplexity to the LM"] == pytest.approx(
        spearmanr(wanted, figures).statistic, abs=1e-6
    )
    assert set(computed) == {
        "perplexity to the LM",
        "length in tokens",
        "likeness to the hand-written one",
    }
    assert wording.likeness(["is", "or"], "is") == pytest.approx([1, 0])
    assert wording.correlations(run, tried[:3]) == {}


def test_a_search_tells_what_the_wordings_have_to_do_with_its_scores(tmp_path):
    write_task(tmp_path)
    (tmp_path / "list.txt").write_text("\n".join(TEMPLATES))
    lines = []
    options = {"by": "paraphrase", "paraphrases": tmp_path / "list.txt", "analyse": True}
    results = search(config_of(tmp_path, **options), lines.append)
    assert results.wording and all(-1 <= value <= 1 for value in results.wording.values())
    assert "Rank correlation" in "\n".join(lines)
    assert "Rank correlation" in (tmp_path / "out" / "report.html").read_text()
