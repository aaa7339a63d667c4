"""Next-sentence heads as prompts for pairs, against transformers' own model and against a head
written out."""

import pytest
import tiny
import torch
from transformers import BertConfig, BertForNextSentencePrediction, BertForPreTraining

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers import next_sentence
from ptune.answers.readers.next_sentence import PairHead
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, ModelError, VerbalizerError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

TOLERANCE = 1e-5
FAR = 100 * TOLERANCE
ROWS = [
    {"a": "Vienna lies on the Danube", "b": "It is great", "label": "yes"},
    {"a": "Rome", "b": "Berlin is a city in Germany", "label": "no"},
    {"a": "the film", "b": "bad", "label": "no"},
]
TWO = Verbalizer.from_words({"no": "not adjacent", "yes": "adjacent"})
PAIR = "{a} {sep} {b}"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder with a tiny BERT that has both heads of its pretraining."""
    folder, tokenizer = tmp_path_factory.mktemp("bert"), tiny.wordpiece()
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig(vocab_size=len(tokenizer), **tiny.SHAPE)).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(
            parameter, 0, 0.25 if parameter.dim() > 1 else 0.1
        ) if parameter.dim() > 1 or name.endswith("bias") else None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build(folder, *templates: str, verbalizer: Verbalizer = TWO, **more) -> PromptModel:
    model = PromptModel(LanguageModel.load(folder, device="cpu"))
    for number, template in enumerate(templates):
        model.add(
            Task(
                f"task {number}",
                Template.parse(template),
                verbalizer,
                encoder="table",
                reader=READERS["pair"],
                **more,
            )
        )
    for parameter in model.bank.encoders.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5, generator=torch.Generator().manual_seed(3))
    return model


@torch.no_grad()
def of_transformers(folder, row, vectors=None) -> torch.Tensor:
    """The log probabilities of (adjacent, not adjacent) of transformers' own model; soft vectors
    stand behind [CLS]."""
    model = BertForNextSentencePrediction.from_pretrained(folder).eval()
    given = tiny.wordpiece()(row["a"], row["b"], return_tensors="pt")
    if vectors is None:
        return model(**given).logits[0].log_softmax(0)
    embedded = model.get_input_embeddings()(given["input_ids"])
    types = torch.cat([torch.zeros(1, len(vectors), dtype=torch.long), given["token_type_ids"]], 1)
    return (
        model(
            inputs_embeds=torch.cat([embedded[:, :1], vectors[None], embedded[:, 1:]], 1),
            token_type_ids=types,
        )
        .logits[0]
        .log_softmax(0)
    )


def test_scores_are_those_of_transformers(bert):
    """In one batch with soft tokens before the pair, and with label words that a verbalizer
    reads."""
    model = build(bert, PAIR, "{soft:3} " + PAIR)
    model.add(
        Task(
            "words",
            Template.parse("{a} ? {mask} , {b}"),
            Verbalizer.from_words({"yes": "Yes", "no": "No"}),
        )
    )
    examples = [
        example for number in range(3) for example in model.encode(number, ROWS, labelled=False)
    ]
    actual = torch.stack(model.scores(examples, rows=4)[: 2 * len(ROWS)])
    wanted = torch.stack(
        [
            of_transformers(bert, row, vectors)
            for vectors in (None, model.bank.encoders[1]().detach())
            for row in ROWS
        ]
    )
    assert (wanted[:, 0] - wanted[:, 1]).abs().min() > FAR and (
        wanted[:3] - wanted[3:]
    ).abs().max() > FAR
    torch.testing.assert_close(actual, wanted.flip(1), atol=TOLERANCE, rtol=TOLERANCE)
    untyped = [
        of_transformers(bert, {"a": row["a"] + " [SEP] " + row["b"], "b": ""}) for row in ROWS
    ]
    assert (torch.stack(untyped) - wanted[:3]).abs().max() > FAR


def test_both_orders_of_a_pair_are_averaged(bert):
    """Nothing here is trained, so there is nothing that could learn what a sum of two vectors
    means."""
    model = build(bert, PAIR, swap=("a", "b"))
    orders = torch.stack(
        [
            torch.stack(
                [of_transformers(bert, pair) for pair in (row, {"a": row["b"], "b": row["a"]})]
            )
            for row in ROWS
        ]
    ).flip(2)
    assert (orders[:, 0] - orders.mean(1)).abs().max() > FAR
    torch.testing.assert_close(
        torch.stack(model.scores(model.encode(0, ROWS))),
        orders.mean(1),
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )
    wanted = -orders.mean(1).log_softmax(1)[range(3), [1, 0, 0]]
    torch.testing.assert_close(
        model.losses(model.encode(0, ROWS)).detach(), wanted, atol=TOLERANCE, rtol=TOLERANCE
    )


def test_soft_tokens_learn_and_the_head_does_not(bert):
    model = build(bert, "{soft:4} " + PAIR)
    assert [
        parameter is parameter_of_encoder
        for parameter_of_encoder, parameter in zip(
            model.bank.encoders[0].parameters(), model.bank.parameters_of(0)
        )
    ] == [True]
    before = {name: value.clone() for name, value in model.bank.readers[0].state_dict().items()}
    history = fit(
        model,
        {0: (ROWS, ROWS)},
        TrainConfig(batch_size=3, epochs=40, patience=0, learning_rate=3e-2),
    )[0].history
    assert history[-1].loss < 0.5 * history[0].loss
    assert all(
        torch.equal(value, before[name])
        for name, value in model.bank.readers[0].state_dict().items()
    )
    with pytest.raises(ConfigError, match="no prompt to train"):
        fit(build(bert, PAIR), {0: (ROWS, ROWS)})


def test_the_head_of_our_own_pretraining(bert, tmp_path):
    """Three relations, of which a label may stand for two: the probability of either."""
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    head = PairHead(32, ("adjacent", "same document", "another document"))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    head.save(tmp_path)
    model = build(
        tmp_path,
        PAIR,
        verbalizer=Verbalizer.from_words(
            {"yes": ["another document", "adjacent"], "no": "same document"}
        ),
    )
    with torch.no_grad():
        first = [
            network(
                **tokenizer(row["a"], row["b"], return_tensors="pt"), output_hidden_states=True
            ).hidden_states[-1][0, 0]
            for row in ROWS
        ]
        shares = torch.stack(
            [
                (
                    head.classifier.weight
                    @ torch.tanh(head.dense.weight @ hidden + head.dense.bias)
                    + head.classifier.bias
                ).softmax(0)
                for hidden in first
            ]
        )
    wanted = torch.stack([shares[:, 0] + shares[:, 2], shares[:, 1]], 1).log()
    assert (wanted[:, 0] - shares[:, 0].log()).abs().max() > FAR
    torch.testing.assert_close(
        torch.stack(model.scores(model.encode(0, ROWS, labelled=False))),
        wanted,
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )
    loaded = PairHead.load(tmp_path)
    assert loaded.labels == head.labels and all(
        torch.equal(value, head.state_dict()[name]) for name, value in loaded.state_dict().items()
    )


def test_a_saved_pair_task_finds_its_head_again(bert, tmp_path):
    model = build(bert, "{soft:3} {a} {sep} {b}")
    prompt_folder.save(model, tmp_path)
    loaded = prompt_folder.load(tmp_path, device="cpu")
    assert all(
        map(torch.equal, model.scores(model.encode(0, ROWS)), loaded.scores(loaded.encode(0, ROWS)))
    )


def test_an_lm_in_half_precision_has_its_head_in_full(bert, tmp_path):
    BertForPreTraining.from_pretrained(bert).bfloat16().save_pretrained(tmp_path)
    tiny.wordpiece().save_pretrained(tmp_path)
    model = build(tmp_path, PAIR)
    actual = torch.stack(model.scores(model.encode(0, ROWS)))
    assert (
        actual.dtype == torch.float32
        and (actual - torch.stack([of_transformers(bert, row) for row in ROWS]).flip(1)).abs().max()
        < 0.1
    )


def test_lms_without_a_pair_head_are_refused(bert, tmp_path, monkeypatch, capfd):
    for family in ("bert", "gpt2"):
        network, tokenizer = tiny.tiny(family)
        network.save_pretrained(tmp_path / family)
        tokenizer.save_pretrained(tmp_path / family)
    capfd.readouterr()
    for family, reason in (("bert", "its weights lack"), ("gpt2", "")):
        template = PAIR if family == "bert" else "{a} , {b}"
        with pytest.raises(ModelError, match=f"{family} has no next-sentence head: {reason}"):
            build(tmp_path / family, template)
    assert "REPORT" not in capfd.readouterr().err
    PairHead(32, next_sentence.BERT).save(tmp_path)
    monkeypatch.chdir(
        tmp_path
    )  # an LM from nowhere has no head beside it, whatever stands in the current folder
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    with pytest.raises(ModelError, match="no next-sentence head"):
        model.add(Task("t", Template.parse(PAIR), TWO, reader=READERS["pair"]))
    assert not model.tasks and not len(model.bank)


def test_words_that_are_no_relation_and_answers_that_are_not_read(bert):
    with pytest.raises(
        VerbalizerError, match="tells no relation 'not adjacen' .*Did you mean 'not adjacent'"
    ):
        build(
            bert, PAIR, verbalizer=Verbalizer.from_words({"yes": "adjacent", "no": "not adjacen"})
        )
    with pytest.raises(VerbalizerError, match="tells no relation 'same document'"):
        build(
            bert,
            PAIR,
            verbalizer=Verbalizer.from_words(
                {"yes": "adjacent", "no": ["same document", "another document"]}
            ),
        )
    both = build(
        bert,
        PAIR,
        verbalizer=Verbalizer.from_words(
            {"yes": "adjacent", "no": ["not adjacent", "another document"]}
        ),
    )  # one for heads of either kind
    wanted = torch.stack([of_transformers(bert, row) for row in ROWS])
    torch.testing.assert_close(
        torch.stack(both.scores(both.encode(0, ROWS))), wanted, atol=TOLERANCE, rtol=TOLERANCE
    )
    with pytest.raises(ConfigError, match="reads the input's first token"):
        build(bert, "{a} ? {mask} {sep} {b}")
