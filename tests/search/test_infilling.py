"""Templates that an LM writes are those of a plain beam search that runs one row at a time."""

import pytest
import torch
from search_kit import YAML, config_of, running, search, write_task

from ptune.errors import ConfigError
from ptune.search.templates import infilling
from ptune.search.tokens.trigger import allowed_tokens

WORDS = {"bert": "great|bad", "t5": "great|bad"}


def allowed_of(run):
    allowed = torch.full((run.task.lm.words,), -torch.inf)
    allowed[allowed_tokens(run, whole_words=False).all] = 0.0
    return allowed


@torch.no_grad()
def plain_next(run, ids):
    """The sum over train rows of the log probabilities behind what is written, row by row."""
    lm, total = run.task.lm, 0.0
    tokens, network = lm.tokens, lm.model
    for row in run.task.train:
        text = tokens.start(row["text"])
        word = tokens.follow(" " + run.task.words[row["label"]])
        if lm.kind == "masked":
            middle = [*ids, *[tokens.mask] * (2 - len(ids))]
            whole = [*tokens.before, *text, *middle, *word, *tokens.after]
            place = len(tokens.before) + len(text) + len(ids)
            logits = network(input_ids=torch.tensor([whole])).logits[0, place]
        else:
            gap = tokens.tokenizer.convert_tokens_to_ids("<extra_id_0>")
            whole = [*text, gap, *word, *tokens.after]
            decoder = [network.config.decoder_start_token_id, gap, *ids]
            logits = network(
                input_ids=torch.tensor([whole]), decoder_input_ids=torch.tensor([decoder])
            ).logits[0, -1]
        total = total + logits.log_softmax(-1)
    return total


def plain_beams(run, beams):
    """Every beam with every token, sorted by their sums; a decoder may close its gap."""
    allowed = allowed_of(run)
    closing = run.task.lm.tokens.tokenizer.convert_tokens_to_ids("<extra_id_1>")
    is_masked = run.task.lm.kind == "masked"
    current, finished = [(0.0, ())], []
    while current:
        wide = []
        for total, ids in current:
            sums = plain_next(run, ids)
            open_ones = range(len(allowed)) if len(ids) < 2 else ()
            wide += [
                (total + float(sums[t]), (*ids, t)) for t in open_ones if float(allowed[t]) == 0
            ]
            if not is_masked:
                wide.append((total + float(sums[closing]), (*ids, closing)))
        best = sorted(wide, key=lambda beam: -beam[0])[:beams]
        done = [
            beam for beam in best if (len(beam[1]) == 2 if is_masked else beam[1][-1] == closing)
        ]
        finished += done
        current = [beam for beam in best if beam not in done]
    return sorted(finished, key=lambda beam: -beam[0])[:beams]


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_what_is_written_is_that_of_a_plain_beam_search(family, tmp_path):
    write_task(tmp_path, family, YAML.replace(', "the {text} : {mask}"', ""))
    run = running(tmp_path, by="generate")
    source = "{text} {soft:2} {mask}"
    fill = infilling.fill_masks if family == "bert" else infilling.write_spans
    done = fill(run, source, (2,), beams=4, allowed=allowed_of(run))
    plain = plain_beams(run, 4)
    closing = run.task.lm.tokens.tokenizer.convert_tokens_to_ids("<extra_id_1>")
    texts = [
        run.task.lm.tokens.tokenizer.decode([t for t in ids if t != closing]).strip()
        for _, ids in plain
    ]
    wanted = [total for (total, _), text in zip(plain, texts) if text or family == "t5"]
    mine = [one.log_prob for one in done.templates]
    assert len(mine) > 1 and mine == pytest.approx(wanted[: len(mine)], abs=1e-4)
    assert texts[0] in done.templates[0].template


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_written_templates_are_searched_within_a_budget(family, tmp_path):
    write_task(tmp_path, family)
    options = {"by": "generate", "template": "{text} {soft:2} {mask}", "beams": 3, "keep": 2}
    whole = search(config_of(tmp_path, **options), lambda line: None)
    assert {"manual", "written by the LM"} == {one.source for one in whole.tried}
    assert all(one.dev is not None for one in whole.candidates)
    options |= {"budget": whole.calls - 40, "out": tmp_path / "short"}
    assert search(config_of(tmp_path, **options), lambda line: None).calls <= whole.calls - 40
    options |= {"budget": 20, "out": tmp_path / "none"}
    with pytest.raises(ConfigError, match="--budget 20 is too small"):
        search(config_of(tmp_path, **options), lambda line: None)


@pytest.mark.parametrize(
    ("family", "reason"), [("gpt2", "does not see the right word"), ("bart", "has no <extra_id_0>")]
)
def test_an_lm_that_fills_no_gaps_is_refused(family, reason, tmp_path):
    write_task(tmp_path, family)
    with pytest.raises(ConfigError, match=reason):
        infilling.propose(running(tmp_path, by="generate"), "{text} {soft:2} {mask}", 3)
