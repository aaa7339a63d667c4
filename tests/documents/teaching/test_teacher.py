"""What a document's prefix learns is what plain transformers say of the whole document: loss and
gradient, on tiny causal LMs of many kinds."""

import pytest
import tiny
import torch
from documents_kit import TEXT, built, cache_of, lessons_of, lm_of, three_texts

from ptune import LanguageModel, TrainConfig
from ptune.documents.options import DistilConfig
from ptune.documents.read_documents import Document
from ptune.documents.teaching import teacher
from ptune.training.loop import fit

KINDS = ("gpt2", "llama", "qwen", "gemma")


def config(**settings):
    return DistilConfig(
        documents=["a.txt"], lm="tiny", length=4, cover=1, slice_tokens=8, **settings
    )


def plain_loss(lm, prefix, one, row, settings):
    """The loss of a row from two calls of the transformers model: the document and the row as one
    text, and the row behind the prefix as a cache."""
    taught = row["answer"]
    document = [*lm.tokens.before, *one.ids]
    network, ids = lm.model, list(taught.ids)
    with torch.no_grad():
        whole = network(torch.tensor([document + ids])).logits[0, len(document) :]
    before = list(lm.tokens.before)
    cache = cache_of(lm, prefix)
    count = len(prefix)
    scored = network(
        torch.tensor([before + ids]),
        **{lm.forward.cache_name: cache},
        attention_mask=torch.ones(1, count + len(before) + len(ids), dtype=torch.long),
        position_ids=torch.arange(count, count + len(before) + len(ids))[None],
    ).logits[0, len(before) :]
    says = (whole[list(taught.places)] / settings.temperature).log_softmax(-1)
    learns = (scored[list(taught.places)] / settings.temperature).log_softmax(-1)
    total = 0.0
    for said, learned in zip(says, learns):
        best = said.topk(settings.top).indices
        p, q = said[best].exp(), learned[best].exp()
        rest, other = 1 - p.sum(), 1 - q.sum()
        total = total + (p * (p / q).log()).sum() + rest * (rest / other).log()
    return settings.temperature**2 * total / len(says)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("family", KINDS)
def test_loss_and_gradient_are_those_of_plain_transformers(family, temperature):
    lm, settings = lm_of(family), config(top=5, temperature=temperature)
    if family == "gemma":  # its window leaves a plain cache behind, and a prefix stays in sight
        lm = LanguageModel(*widened())
    one = lessons_of(lm, settings)
    model, data = built(lm, settings, one)
    rows = [*data[0][0][:2], data[0][0][-1]]
    assert rows[-1]["question"] and not rows[0]["question"]
    examples = model.encode(0, rows)
    losses = model.losses(examples)
    (table,) = model.bank.parameters_of(0)
    (gradient,) = torch.autograd.grad(losses.sum(), table)
    prefix = table.detach().clone().requires_grad_()
    expected = torch.stack([plain_loss(lm, prefix, one, row, settings) for row in rows])
    (plain,) = torch.autograd.grad(expected.sum(), prefix)
    assert float(expected.detach().min()) > 1e-3
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-5)


def widened():
    """Gemma's kind with a window that holds everything."""
    network, tokenizer = tiny.tiny("gemma")
    for part in network.modules():
        if getattr(part, "sliding_window", None):
            part.sliding_window = 80
    network.config.sliding_window = 80
    return network, tokenizer


@pytest.mark.parametrize("family", [*KINDS, "opt"])
def test_the_teacher_is_the_lm_with_the_whole_document_before_the_text(family):
    lm = lm_of(family)
    context = teacher.context_of(lm, TEXT)
    document = [*lm.tokens.before, *lm.tokens.start(TEXT)]
    texts = ["\nVienna lies on the", "\nRome"]
    asked = [
        teacher.Asked(ids := tuple(lm.tokens.follow(text)), tuple(range(len(ids))), 0, "")
        for text in texts
    ]
    for text, said in zip(asked, teacher.teach(lm, context, asked, top=7, temperature=1.0)):
        logits = lm.model(torch.tensor([document + list(text.ids)])).logits[0, len(document) :]
        best = logits.log_softmax(-1).topk(7)
        assert torch.equal(best.indices, said.likeliest)
        torch.testing.assert_close(best.values, said.log_probs[:, :7], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(said.log_probs.exp().sum(1), torch.ones(len(text.ids)))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_bank_of_documents_learns_as_each_does_alone(family):
    lm, settings = lm_of(family), config()
    planned = [lessons_of(lm, settings, name, text) for name, text in three_texts()]
    training = TrainConfig(
        optimiser="adam", learning_rate=1e-2, batch_size=3, steps=4, evaluate_every=4
    )
    model, data = built(lm, settings, *planned)
    fit(model, data, training)
    for number, one in enumerate(planned):
        alone, rows = built(lm, settings, one)
        fit(alone, rows, training)
        together = model.bank.parameters_of(number)[0]
        torch.testing.assert_close(together, alone.bank.parameters_of(0)[0], rtol=1e-4, atol=1e-5)


def test_a_long_document_is_taught_by_stretches_under_their_headings():
    lm = lm_of("gpt2")
    lines = ["# Towns", *tiny.TEXT, "## Rivers", *tiny.TEXT, "## Food", *tiny.TEXT]
    document = Document("long", "\n".join(lines), "long.md")
    parts = teacher.stretches(document, lm, 60)
    assert parts[0].start == 0 and parts[-1].end == len(document.text)
    assert all(len(lm.tokens.plain(part.text)) <= 60 for part in parts)
    assert all(after.start < before.end for before, after in zip(parts, parts[1:]))
    assert {part.text.split("\n")[0] for part in parts[1:]} == {"# Towns", "## Rivers", "## Food"}
    for start in range(0, len(document.text) - 20, 10):
        part = parts[teacher.stretch_of(parts, start, start + 20)]
        assert part.start <= start and start + 20 <= part.end
