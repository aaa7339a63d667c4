"""Answers that spell a text of the row (PET's Winograd schemas)."""

import dataclasses
import json
import math

import pytest
import tiny
import torch

from ptune.answers.from_row import Span
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, DataError, VerbalizerError
from ptune.lm.language_model import LanguageModel
from ptune.model.calibration import calibrate
from ptune.model.prompt_model import PromptModel, Task
from ptune.model.running.forward import run_rows
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.tasks import model_task, task_members
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.task_form import USUAL
from ptune.tasks.schema import TaskConfig
from ptune.template.language import Template
from ptune.training.loop import fit

TEMPLATE = "{text} Is it {mask} ?"
TRUE = [
    {"text": text, "who": who, "label": "true"}
    for text, who in (
        ("Vienna lies on the Danube", "Vienna"),
        ("the capital of France is Paris", "the capital"),
        ("its people speak German", "its people"),
        ("a great film", "film"),
        ("Rome is a city in Italy", "a city in Italy"),
        ("Berlin and Rome", "Rome"),
    )
]
FALSE = [
    {**row, "who": who, "label": "false"}
    for row, who in zip(
        TRUE, ("Danube", "is Paris", "speak German", "great", "Rome is a city", "Berlin")
    )
]
MANY = [
    {**row, "text": f"{row['text']} {more}"}
    for row in TRUE
    for more in ("and Rome", "or not", "and so on", "is it", "")
]  # all numbers of masks


@dataclasses.dataclass(frozen=True)
class Spy(Span):
    """A span that keeps what was spelt."""

    seen: list = dataclasses.field(default_factory=list, compare=False)

    def scores(self, row, spelt, tokens):
        self.seen.append((row["text"], row["who"], spelt))
        return super().scores(row, spelt, tokens)


def model_of(family="bert", verbalizer=None, template=TEMPLATE, **more):
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    model.add(
        Task("t", Template.parse(template), verbalizer or Span("who"), encoder="table", **more),
        TRUE,
    )
    return model


def says(scores):
    assert float(scores.exp().sum()) == pytest.approx(1) and scores.isfinite().all()
    return ("false", "true")[int(scores.argmax())]


@torch.no_grad()
def spelt_slowly(network, family, tokens, row, count):
    """PET, section 3.1, in plain words: one row alone, all tokens again at every step."""
    template = Template.parse(TEMPLATE).for_lm(
        tokens, {"bert": "masked", "gpt2": "causal"}.get(family, "encoder-decoder")
    )[0]
    if family == "bert":
        ids = list(template.encode(row, tokens, "masked", answer=(None,) * count).ids)
        places = [place for place, token in enumerate(ids) if token == tokens.mask]
        assert len(places) == count
        left = list(places)
        while left:
            shares = (
                network(
                    input_ids=torch.tensor([ids]),
                    token_type_ids=torch.zeros(1, len(ids), dtype=torch.long),
                )
                .logits[0]
                .softmax(-1)
            )
            _, place, token = max(
                (float(share), -place, token)
                for place in left
                for token, share in enumerate(shares[place])
            )
            ids[-place] = token
            left.remove(-place)
        return tuple(ids[place] for place in places)
    if family == "gpt2":
        ids, actual = list(template.encode(row, tokens, "causal").ids), []
        for _ in range(count):
            actual.append(
                int(network(input_ids=torch.tensor([ids + actual])).logits[0, -1].argmax())
            )
        return tuple(actual)
    encoded = template.encode(
        row, tokens, "encoder-decoder", start=network.config.decoder_start_token_id
    )
    actual = list(encoded.decoder)
    for _ in range(count):
        actual.append(
            int(
                network(
                    input_ids=torch.tensor([encoded.ids]), decoder_input_ids=torch.tensor([actual])
                )
                .logits[0, -1]
                .argmax()
            )
        )
    return tuple(actual[len(encoded.decoder) :])


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "bart"])
def test_the_likeliest_token_first(family):
    spy = Spy("who")
    model, rows = model_of(family, spy), [*TRUE, *FALSE]
    examples = model.encode(0, rows, labelled=False)
    scores = model.scores(examples, 5)
    network, tokens = tiny.tiny(family)[0], model.lm.tokens
    wanted = [
        spelt_slowly(network, family, tokens, row, len(example.labels.ids[0]) + 1)
        for row, example in zip(rows, examples)
    ]
    assert [spelt for _, _, spelt in spy.seen] == wanted and len(set(map(len, wanted))) > 2
    at_once = [
        tuple(run_rows(model, [(0, example.fills[0])])[0].log_probs.argmax(1).tolist())
        for example in examples
    ]
    assert at_once != wanted, "the order does not show"
    assert all(torch.equal(a, b) for a, b in zip(scores, model.scores(examples, 1)))
    labelled = [says(row_scores) for row_scores in model.scores(model.encode(0, rows))]
    assert labelled == [says(row_scores) for row_scores in scores]


def test_spans_and_labels_in_one_batch():
    model = model_of(template="{soft:2} {text} {soft:1} {mask}", verbalizer=(spy := Spy("who")))
    model.add(
        Task(
            "u",
            Template.parse("{text} {soft:3} {mask}"),
            Verbalizer.from_words(
                {"true": "Yes", "false": ["No", "great film"]}, order="most-probable-first"
            ),
        )
    )
    model.add(
        Task(
            "v",
            Template.parse("{text} {mask}"),
            Verbalizer.from_words({"true": "Yes", "false": "No"}),
        )
    )
    examples = [model.encode(task, [row])[0] for row in TRUE for task in (2, 0, 1)]
    actual = model.scores(examples, 4)
    together, spy.seen[:] = [spelt for _, _, spelt in spy.seen], []
    for row_scores, example in zip(actual, examples):
        torch.testing.assert_close(row_scores, model.scores([example])[0], atol=1e-5, rtol=1e-5)
    assert together == [spelt for _, _, spelt in spy.seen]
    losses = model.losses(examples)
    torch.testing.assert_close(
        losses, torch.cat([model.losses([example]) for example in examples]), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    "spelt, span, matches",
    [
        ("vienna", "Vienna", True),
        ("the capital of", "the capital", True),
        ("capital", "the capital", True),
        ("danube", "vienna", False),
        ("the danube", "the capital", False),
        ("vienna .", "Vienna", True),
        ("", "vienna", False),
        (". ?", "vienna", False),
        ("paris", "Vienna , Paris", True),
        ("[PAD] vienna [MASK]", "vienna", True),
        ("[SEP] [PAD]", "sep", False),
        ("[SEP] capital [PAD]", "the capital", True),
        ("vien", "vienna", False),
        ("of capital the", "the capital", True),
    ],
)
def test_when_a_text_matches(spelt, span, matches):
    tokenizer = tiny.wordpiece()
    tokens = model_of().lm.tokens
    scores = Span("who").scores(
        {"who": span}, tokenizer(spelt, add_special_tokens=False)["input_ids"], tokens
    )
    assert says(scores) == ("true" if matches else "false") and scores.max().exp() == pytest.approx(
        0.95
    )


def test_pieces_of_a_word_are_joined():
    tokens = model_of().lm.tokens
    pieces = tokens.plain("terrible")
    assert (
        len(pieces) > 1
        and says(Span("who").scores({"who": "Terrible"}, [*pieces, tokens.pad], tokens)) == "true"
    )


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_what_a_row_teaches(family):
    """The span's tokens and 0 to 3 more, which are padding; the mean of their losses."""
    model, lengths = model_of(family), set()
    network, tokens = tiny.tiny(family)[0], model.lm.tokens
    examples = model.encode(0, MANY)
    assert examples == model.encode(0, MANY) == [model.encode(0, [row])[0] for row in MANY], (
        "drawn by the row, not by its place"
    )
    assert [example.answer for example in examples] != [
        example.answer for example in model_of(family, seed=1).encode(0, MANY)
    ]
    for example, loss in zip(examples, model.losses(examples)):
        span, learn = example.labels.ids[0], example.learn[0]
        extra = len(example.answer) - len(span)
        lengths.add(extra)
        assert (
            example.label == 1
            and example.answer == span + (tokens.pad,) * extra
            and len(learn.answer_positions) == len(example.answer)
        )
        inputs = {"input_ids": torch.tensor([learn.ids])} | (
            {} if learn.decoder is None else {"decoder_input_ids": torch.tensor([learn.decoder])}
        )
        with torch.no_grad():
            logits = network(
                **inputs,
                **(
                    {"token_type_ids": torch.zeros_like(inputs["input_ids"])}
                    if family == "bert"
                    else {}
                ),
            ).logits[0]
        wanted = sum(
            -float(logits[place].log_softmax(0)[token])
            for place, token in zip(learn.answer_positions, example.answer)
        ) / len(example.answer)
        assert float(loss) == pytest.approx(wanted, rel=1e-4)
    assert lengths == {0, 1, 2, 3}
    if family == "bert":
        assert all(
            example.learn[0].ids.count(tokens.mask) == len(example.answer) for example in examples
        )
        assert all(
            example.fills[0].ids.count(tokens.mask) == len(example.labels.ids[0]) + 1
            for example in examples
        )


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_learned_from_true_rows(family):
    model = model_of(family)
    first = model.losses(model.encode(0, TRUE)).mean()
    assert {says(row_scores) for row_scores in model.scores(model.encode(0, TRUE))} == {"false"}
    config = TrainConfig(
        lm_learning_rate=5e-3, batch_size=10, epochs=60, patience=0, evaluate_every=60
    )
    trained = fit(model, {0: ([*FALSE, *MANY], [*TRUE, *FALSE])}, config, tune="lm")[0]
    assert trained.history[-1].step == 180, "true rows alone are counted"
    assert (
        model.losses(model.encode(0, TRUE)).mean() < first / 5
        and trained.best.dev == 1
        and math.isfinite(trained.best.dev_loss)
    )
    assert trained.best.dev_loss == pytest.approx(-math.log(0.95), abs=1e-5)
    assert [answer["prediction"] for answer in model.predict([*TRUE, *FALSE])] == ["true"] * 6 + [
        "false"
    ] * 6


def test_false_rows_teach_nothing():
    histories = []
    for rows in (TRUE, [FALSE[0], *TRUE, *FALSE]):
        model = model_of(template="{soft:3} {text} {soft:2} {mask}")
        histories.append(
            (
                fit(
                    model,
                    {0: (rows, [*TRUE, *FALSE])},
                    TrainConfig(batch_size=4, epochs=3, patience=0),
                )[0].history,
                model.bank.vectors([0]),
            )
        )
    (one, vectors), (other, others) = histories
    assert one == other and torch.equal(vectors, others) and one[-1].loss != one[0].loss
    assert all(not example.learn and example.label == 0 for example in model.encode(0, FALSE))
    with pytest.raises(
        DataError,
        match="None of the 6 training rows of t is true, and a span is learned from "
        "true ones alone",
    ):
        fit(model, {0: (FALSE, TRUE)}, TrainConfig(epochs=1))


def test_saved_and_loaded(tmp_path):
    model = model_of(template="{soft:3} {text} {soft:2} {mask}")
    fit(
        model, {0: (TRUE, TRUE)}, TrainConfig(learning_rate=0.1, batch_size=6, epochs=2, patience=0)
    )
    prompt_folder.save(model, tmp_path)
    note = json.loads((tmp_path / "prompt.json").read_text())
    assert (
        note["reading"]["span"] == "who"
        and note["labels"] is None
        and note["reading"]["choices"] is None
    )
    loaded = prompt_folder.load(tmp_path, model.lm)
    assert loaded.tasks[0].task.verbalizer == Span("who")
    before, after = model.encode(0, [*TRUE, *FALSE]), loaded.encode(0, [*TRUE, *FALSE])
    assert (
        torch.equal(model.losses(before[:6]), loaded.losses(after[:6]))
        and [example.label for example in after] == [1] * 6 + [0] * 6
    )
    assert all(map(torch.equal, model.scores(before), loaded.scores(after)))


def test_from_a_file():
    model = model_of()
    config = TaskConfig(name="t", template=TEMPLATE, span="who", method="manual")
    form, method = resolve.task_form(config), resolve.shown_method(config)
    member = task_members.members(form, method)[0]
    task = model_task.task_of(form, model.lm, member, method=method, learning=USUAL)
    assert task.verbalizer == Span("who") and PromptModel(model.lm).add(task) == 0
    assert TaskConfig.model_fields["span"].description


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"text": "Rome", "whom": "Rome"},
            "Row 1 of t: The row has no field 'who', which should hold the text to spell. Did you "
            "mean 'whom'",
        ),
        (
            {"text": "Rome", "who": " "},
            "The field 'who' should hold the text to spell, and holds ' '",
        ),
        (
            {"text": "Rome", "who": ["Rome"]},
            r"should hold the text to spell, and holds \"\['Rome'\]\"",
        ),
        (
            {"text": "Rome", "who": "日本"},
            "The text to spell, '日本', has letters that this LM's vocabulary has not",
        ),
        (
            {"text": "Rome", "who": "Rome", "label": "True"},
            "There is no label 'True'. It differs from the label 'true'",
        ),
        ({"text": "Rome", "who": "Rome", "label": [0.5, 0.5]}, r"There is no label '\[0.5, 0.5\]'"),
    ],
)
def test_rows_that_do_not_fit(row, message):
    with pytest.raises(VerbalizerError, match=message):
        model_of().encode(0, [{"label": "true"} | row])


def test_what_a_span_cannot_be_asked():
    for more, message in (
        (
            {"reader": READERS["head"]},
            r"no labels of its own, so there is nothing for a reader \(head\)",
        ),
        (
            {"swap": ("text", "who")},
            "t spells a span, which has no scores of words for swap or a domain to change",
        ),
        (
            {"domain": Template.parse("Is it {mask} ?")},
            "t spells a span, which has no scores of words",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            model_of(**more)
    with pytest.raises(ConfigError, match="t has no label words whose scores could be calibrated"):
        calibrate(model_of(), 0, "contextual")
    with pytest.raises(ConfigError, match="no label words of its own, so init"):
        model_of(init="labels", template="{soft:2} {text} {mask}")
