"""Searches token by token equal plain loops that run one row at a time, on LMs of all kinds."""

import itertools

import pytest
import torch
from killing import killed_after_every_file
from search_kit import YAML, config_of, plain_score, running, search, write_task
from torch.nn.functional import normalize

from ptune.errors import ConfigError
from ptune.search.common import candidates
from ptune.search.tokens import autoprompt, pez, projection
from ptune.search.tokens.trigger import Trigger, allowed_tokens, template_of

FAMILIES = ("bert", "gpt2", "t5")
SOURCE = "{text} {soft:2} {mask}"


def plain_row(trigger, row, vectors=None, ids=None):
    """The loss of a row by the network alone, with vectors or token ids behind its text."""
    lm, words = trigger.lm, trigger.task.words
    tokens, network = lm.tokens, lm.model
    text = tokens.start(row["text"])
    middle = vectors if vectors is not None else network.get_input_embeddings()(torch.tensor(ids))
    embed = network.get_input_embeddings()
    mask = [] if lm.kind == "causal" else [tokens.mask]
    head, tail = embed(torch.tensor([*tokens.before, *text])), [*mask, *tokens.after]
    if lm.kind == "causal":
        head, tail = embed(torch.tensor(text)), []
    parts = [head, middle] + ([embed(torch.tensor(tail))] if tail else [])
    whole = torch.cat(parts)[None]
    if lm.kind == "encoder-decoder":
        decoder = torch.tensor([[network.config.decoder_start_token_id, tokens.mask]])
        logits = network(inputs_embeds=whole, decoder_input_ids=decoder).logits[0, -1]
    else:
        place = -1 if lm.kind == "causal" else len(head) + len(middle)
        logits = network(inputs_embeds=whole).logits[0, place]
    scores = logits.log_softmax(-1)[[tokens.follow(f" {word}")[0] for word in words.values()]]
    return -scores.log_softmax(-1)[list(words).index(row["label"])]


def plain_loss(trigger, **prompt):
    return sum(plain_row(trigger, row, **prompt) for row in trigger.task.train) / len(
        trigger.task.train
    )


def trigger_of(tmp_path, family, **options):
    single = {"bert": "great|bad", "gpt2": "is|in", "t5": "great|bad"}[family].split("|")
    yaml = YAML.replace("great", single[0]).replace("bad}", f"{single[1]}}}")
    write_task(tmp_path, family, yaml)
    run = running(tmp_path, **({"by": "gradient"} | options))
    return run, Trigger(run, SOURCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_that_of_a_plain_loop(family, tmp_path):
    """First-order estimates and exact losses within 1e-5, and the same best exchange."""
    run, trigger = trigger_of(tmp_path, family)
    allowed = allowed_tokens(run, whole_words=False)
    ids = trigger.start(0, allowed.alone)
    vectors = trigger.lm.model.get_input_embeddings().weight[list(ids)].detach().clone()
    vectors.requires_grad_()
    loss = plain_loss(trigger, vectors=vectors)
    (wanted,) = torch.autograd.grad(loss, vectors)
    trigger.put(trigger.vectors[list(ids)])
    gradient, mine = trigger.gradient(trigger.examples)
    assert mine == pytest.approx(loss.item(), abs=1e-5)
    assert torch.allclose(gradient, wanted, atol=1e-5)

    every = trigger.lm.model.get_input_embeddings().weight.detach()
    change = [((every[t] - every[ids[1]]) @ wanted[1]).item() for t in allowed.all.tolist()]
    order = sorted(range(len(change)), key=lambda n: change[n])
    readable = [
        (ids[0], token)
        for token in (int(allowed.all[n]) for n in order)
        if token != ids[1] and trigger.written((ids[0], token))
    ][:5]
    tried, mine = autoprompt.exchanges(
        trigger, ids, 1, examples=trigger.examples, count=5, allowed=allowed
    )
    assert tried == readable and mine == pytest.approx(loss.item(), abs=1e-5)
    losses = trigger.losses([ids, *tried], trigger.examples)
    with torch.no_grad():
        plain = [plain_loss(trigger, ids=prompt).item() for prompt in [ids, *tried]]
    assert losses == pytest.approx(plain, abs=1e-5)
    assert losses.index(min(losses)) == plain.index(min(plain))


@pytest.mark.parametrize("rows", [4, 64])
def test_a_prompt_whose_loss_came_with_its_gradient_is_not_read_again(rows, tmp_path, monkeypatch):
    """Where a step's rows are drawn anew it is; the losses are those of its own rows."""
    run, trigger = trigger_of(tmp_path, "bert")
    monkeypatch.setattr(autoprompt, "BATCH", rows)
    read = []
    losses = Trigger.losses
    monkeypatch.setattr(
        Trigger, "losses", lambda *given: read.append(len(given[1])) or losses(*given)
    )
    settings = autoprompt.Settings(steps=3, candidates=4)
    autoprompt.propose(run, SOURCE, settings, whole_words=False)
    size = min(rows, len(trigger.examples))
    again = 1 if rows < len(trigger.examples) else 0
    assert read == [step.tried + again for step in run.steps]
    assert run.budget.spent == sum((3 + count) * size for count in read)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_scores_as_its_tokens_did(family, tmp_path):
    run, trigger = trigger_of(tmp_path, family)
    settings = autoprompt.Settings(steps=6, candidates=4)
    proposed = autoprompt.propose(run, SOURCE, settings, whole_words=False)
    losses = [step.loss for step in run.steps]
    assert losses == sorted(losses, reverse=True)
    ((_, loss),) = candidates.score(run.task, proposed[:1], run.task.train)
    assert loss == pytest.approx(run.steps[-1].loss, abs=1e-5)
    plain = plain_score(trigger.lm, proposed[0].template, run.task.words, run.task.train)
    assert plain[1] == pytest.approx(loss, abs=1e-5)
    words = proposed[0].template.removeprefix("{text} ").removesuffix(" {mask}").lower().split()
    assert not set(words) & run.task.answers()


@pytest.mark.parametrize("family", FAMILIES)
def test_pez_takes_the_steps_of_a_plain_loop(family, tmp_path):
    run, trigger = trigger_of(tmp_path, family, by="pez")
    pez.propose(run, SOURCE, steps=4, rate=0.1, whole_words=False)
    allowed = allowed_tokens(run, whole_words=False).alone
    every = trigger.lm.model.get_input_embeddings().weight.detach()
    soft = torch.nn.Parameter(every[list(trigger.start(0, allowed))].clone())
    optimiser = torch.optim.AdamW([soft], lr=0.1, weight_decay=0.1)
    for step in run.steps:
        likeness = normalize(soft.detach(), dim=1) @ normalize(every[allowed], dim=1).T
        ids = [int(allowed[n]) for n in likeness.argmax(1)]
        vectors = every[ids].clone().requires_grad_()
        loss = plain_loss(trigger, vectors=vectors)
        (soft.grad,) = torch.autograd.grad(loss, vectors)
        optimiser.step()
        assert step.loss == pytest.approx(loss.item(), abs=1e-5)
        assert step.text == trigger.lm.tokens.tokenizer.decode(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_soft_prompt_becomes_words_as_by_a_plain_loop(family, tmp_path):
    _, trigger = trigger_of(tmp_path, family, by="project")
    every = trigger.lm.model.get_input_embeddings().weight.detach()
    soft = torch.randn(2, every.shape[1], generator=torch.Generator().manual_seed(3)) * 0.3
    allowed = torch.arange(40, 90)
    done = projection.projected(trigger, soft, allowed, near=3)
    likeness = normalize(soft, dim=1) @ normalize(every[allowed], dim=1).T
    first = int(likeness.max(1).values.argmax())
    vectors, steps = soft.clone(), [(None, soft)]
    with torch.no_grad():
        for place in (first, 1 - first):
            tried = []
            for number in likeness[place].topk(3).indices:
                changed = vectors.clone()
                changed[place] = every[allowed[number]]
                tried.append((plain_loss(trigger, vectors=changed).item(), changed))
            vectors = min(tried, key=lambda pair: pair[0])[1]
            steps.append((None, vectors))
        plain = [plain_loss(trigger, vectors=vectors).item() for _, vectors in steps]
    assert [step.loss for step in done.steps] == pytest.approx(plain, abs=1e-5)
    assert torch.equal(vectors, every[done.ids])


@pytest.mark.parametrize("by", ["gradient", "pez", "project"])
def test_a_search_keeps_to_its_budget_and_a_kill_loses_nothing(by, tmp_path, monkeypatch):
    write_task(tmp_path)
    options = {"by": by, "template": SOURCE, "keep": 2, "steps": 11}
    options |= {} if by == "pez" else {"candidates": 2}

    def run(name, **more):
        out = tmp_path / name
        resume = (out / "settings.json").exists()
        config = config_of(tmp_path, out=out, resume=resume, **options, **more)
        return search(config, lambda line: None)

    whole = run("whole")
    assert whole.steps and whole.candidates[0].dev is not None
    assert len({one.template for one in whole.candidates}) == len(whole.candidates)
    short = run("short", budget=whole.calls // 2 + 80)
    assert short.calls <= whole.calls // 2 + 80 and len(short.tried) <= len(whole.tried)
    with pytest.raises(ConfigError, match="--budget 9 is too small"):
        run("none", budget=9)
    if by == "pez":
        return  # its steps are one part, as are those of a soft prompt
    killed_after_every_file(lambda: run("kills"), monkeypatch)
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        if path.suffix in (".json", ".yaml"):
            other = tmp_path / "kills" / path.relative_to(tmp_path / "whole")
            assert other.read_text() == path.read_text(), path


def test_filters_leave_out_answers_special_tokens_and_pieces(tmp_path):
    run, trigger = trigger_of(tmp_path, "bert")
    tokens = trigger.lm.tokens
    every, whole = (allowed_tokens(run, whole) for whole in (False, True))
    texts = {tokens.show(number) for number in every.all.tolist()}
    assert not texts & {"great", "bad", "good", *tokens.tokenizer.all_special_tokens}
    assert any(text.startswith("##") for text in texts)
    assert all(tokens.show(number).isalpha() for number in whole.all.tolist())


def test_what_cannot_be_searched_is_refused_with_the_reason(tmp_path):
    write_task(tmp_path, "bart", YAML)
    run = running(tmp_path, by="gradient")
    with pytest.raises(ConfigError, match="reads the prompt's words again"):
        Trigger(run, "{text} {soft:2} {mask}")
    with pytest.raises(ConfigError, match="marks no place"):
        template_of(run, "{text} {mask}")
    with pytest.raises(ConfigError, match="which no words can stand for"):
        template_of(run, "{prefix:2} {text} {soft:2} {mask}")
    assert template_of(run, None) == "{text} is {soft:3} {mask}"
    for option, by in itertools.product(({"rate": 0.2}, {"steps": 3}), ("label-words",)):
        with pytest.raises(ConfigError, match="this search is by label-words"):
            search(config_of(tmp_path, by=by, **option), lambda line: None)


def test_texts_that_are_kept_change_no_loss(tmp_path):
    """A causal LM reads what stands before the places once; a masked LM keeps nothing."""
    for family in ("gpt2", "bert"):
        (tmp_path / family).mkdir()
        _, trigger = trigger_of(tmp_path / family, family)
        prompts = [(40, 41), (41, 42), (50, 40)]
        plain = trigger.losses(prompts, trigger.examples)
        with trigger.keeping_texts():
            assert (trigger.lm.contexts is not None) == (family == "gpt2")
            assert trigger.losses(prompts, trigger.examples) == pytest.approx(plain, abs=1e-5)
            assert family == "bert" or trigger.lm.contexts.kept
        assert trigger.lm.contexts is None
