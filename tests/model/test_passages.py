"""Answers that are parts of a text: equal to plain transformers with a linear layer, alone or in a
batch, in one input or in windows, and saved as trained."""

import copy
import itertools

import pytest
import tiny
import torch
from tokenizers import AddedToken

from ptune.answers.extraction import Extraction
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, PtuneError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.tasks.judging import judge_extractions
from ptune.template.language import Template
from ptune.training.loop import fit

TEXT = "Vienna lies on the Danube , in the east of Austria ; its people speak German"
ROWS = [
    {"question": "the capital", "context": TEXT, "label": "Vienna"},
    {
        "question": "the people",
        "context": TEXT,
        "label": {"text": ["German"], "answer_start": [70]},
    },
    {"question": "a city", "context": "Rome is a city in Italy", "label": ["in Italy", "Italy"]},
]
LONG = {"question": "the euro", "context": f"{TEXT} . " * 6 + "pay with the euro", "label": "euro"}
BERT = "{prefix:2} {question} {sep} {context}"
CAUSAL = "{prefix:2} {question} ? {context}"


def model_of(family, text=None, no_answer=False, **settings):
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    text = text or (CAUSAL if model.lm.kind == "causal" else BERT)
    task = Task(
        "part",
        Template.parse(text),
        Extraction("context", no_answer=no_answer),
        reader=READERS["token-head"],
        **({"encoder": "table", "prefix": PrefixSettings(0)} | settings),
    )
    model.add(task)
    for parameter in model.bank.parameters_of(0):
        torch.nn.init.normal_(parameter, 0, 0.5, generator=torch.Generator().manual_seed(0))
    return model


def test_each_row_is_judged_by_its_own_answer():
    """Each row has as right answer what the prompt says to it; then one has another."""
    model = model_of("bert")
    said = [answer["prediction"] for answer in model.predict(ROWS)]
    rows = [{**row, "label": answer} for row, answer in zip(ROWS, said)]
    assert said[0] != said[-1]
    assert judge_extractions.judge(model, rows, ["exact-match"]) == {"exact-match": 1.0}
    rows[0]["label"] = next(word for word in TEXT.split() if word not in said[0])
    judged = judge_extractions.judge(model, rows, ["exact-match"])
    assert judged["exact-match"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_scores_and_gradients_are_those_of_plain_transformers(family):
    network, tokenizer = tiny.tiny(family)
    is_bert = family == "bert"
    model = model_of(family, "{question} {sep} {context}" if is_bert else "{question} ? {context}")
    head = model.reader(0).classifier
    examples = model.encode(0, ROWS)
    model.losses(examples).sum().backward()
    actual = [parameter.grad.clone() for parameter in head.parameters()]
    model.bank.zero_grad()
    total = 0.0
    for row, example, scores in zip(ROWS, examples, model.scores(examples)):
        if is_bert:
            encoding = tokenizer(row["question"], row["context"], return_offsets_mapping=True)
            places = [n for n, part in enumerate(encoding.sequence_ids()) if part == 1]
            first = 0
        else:
            text = f"{row['question']} ? {row['context']}"
            encoding = tokenizer(text, return_offsets_mapping=True)
            first = len(text) - len(row["context"])
            places = [n for n, (_, end) in enumerate(encoding["offset_mapping"]) if end > first]
        types = {"token_type_ids": torch.tensor([encoding["token_type_ids"]])} if is_bert else {}
        inputs = torch.tensor([encoding["input_ids"]])
        hidden = network.base_model(inputs, **types).last_hidden_state[0, places]
        expected = head(hidden).log_softmax(0)
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
        spans = [encoding["offset_mapping"][place] for place in places]
        answer = row["label"]
        answer = answer["text"][0] if isinstance(answer, dict) else answer
        answer = answer[0] if isinstance(answer, list) else answer
        begin = row["context"].index(answer) + first
        start = next(n for n, (_, end) in enumerate(spans) if end > begin)
        end = next(n for n, (_, end) in enumerate(spans) if end >= begin + len(answer))
        assert example.right[0] == (start, end)
        total = total - (expected[start, 0] + expected[end, 1]) / 2
    total.backward()
    for one, parameter in zip(actual, head.parameters()):
        torch.testing.assert_close(one, parameter.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "deberta", "gpt2", "llama"])
@pytest.mark.parametrize("no_answer", [False, True])
def test_a_batch_is_its_rows_alone_packed_or_padded_whole_or_in_windows(family, no_answer):
    model = model_of(family, no_answer=no_answer, max_length=40)
    examples = model.encode(0, [LONG, *ROWS])
    long = examples[0]
    assert len(long.fills) > 2 and all(fill.size <= 40 for fill in long.fills)
    assert sorted(long.tokens) == list(range(len(long.spans) + no_answer)) and long.cut == 0
    together, losses = model.scores(examples), model.losses(examples)
    for example, scores, loss in zip(examples, together, losses):
        assert scores.exp().sum(0).tolist() == pytest.approx([1, 1], abs=1e-4)
        torch.testing.assert_close(model.scores([example])[0], scores, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(model.losses([example])[0], loss, atol=2e-5, rtol=2e-5)
    model.lm.packs = False
    for scores, other in zip(together, model.scores(examples)):
        torch.testing.assert_close(scores, other, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@torch.no_grad()
def test_windows_are_read_in_the_order_of_the_text(family):
    """Scores of windows are those that each gives by itself, put together."""
    model = model_of(family, no_answer=True, max_length=40)
    (example,) = model.encode(0, [LONG])
    learned = model.learned([0])
    values = {}
    for fill in example.fills:
        hidden = model.lm.read_rows([fill], [0], learned.vectors, learned.prefixes).hidden
        tokens = example.tokens[len(values) :][: len(hidden)]
        values |= dict(zip(tokens, model.reader(0).classifier(hidden)))
    expected = torch.stack([values[token] for token in sorted(values)]).log_softmax(0)
    torch.testing.assert_close(model.scores([example])[0], expected, atol=2e-5, rtol=2e-5)
    without = example.tokens.index(len(example.spans))
    sizes = [len(fill.answer_positions) for fill in example.fills]
    assert without == (sizes[0] - 1 if family == "bert" else sum(sizes) - 1)
    fill = example.fills[0 if family == "bert" else -1]
    assert fill.answer_positions[-1] == (0 if family == "bert" else len(fill.ids) - 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("no_answer", [False, True])
def test_the_best_parts_are_those_of_all(seed, no_answer):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(9 + no_answer, 2, generator=generator).log_softmax(0)
    parts = [
        (start, end, float(values[start, 0] + values[end, 1]))
        for start, end in itertools.product(range(9), repeat=2)
        if start <= end < start + 3
    ]
    parts += [(-1, -1, float(values[-1].sum()))] if no_answer else []
    best = Extraction("x", 3, no_answer).best(values, 4)
    expected = sorted(parts, key=lambda part: -part[2])[:4]
    assert [part[:2] for part in best] == [part[:2] for part in expected]
    assert [part[2] for part in best] == pytest.approx([part[2] for part in expected])
    (only,) = Extraction("x", 30).best(values[:1], 5)
    assert only[:2] == (0, 0)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_training_learns_and_is_saved_as_trained(family, tmp_path):
    nothing = {"question": "the euro", "context": "Rome is a city", "label": []}
    rows = [*ROWS, LONG, nothing]
    model = model_of(family, no_answer=True, max_length=48)
    steps = 60 if family == "bert" else 10
    config = TrainConfig(steps=steps, learning_rate=0.03, patience=0, evaluate_every=steps // 2)
    history = fit(model, {0: (rows, rows)}, config)[0]
    assert history.best.dev > 0.9 or family == "gpt2"  # the F1 of words
    prompt_folder.save(model, tmp_path / "a")
    loaded = prompt_folder.load(tmp_path / "a", lm=model.lm)
    assert loaded.tasks[0].verbalizer == model.tasks[0].verbalizer
    answers = model.predict(rows)
    for row, one, other in zip(rows, answers, loaded.predict(rows)):
        assert one["prediction"] == row["context"][one["start"] : one["end"]]
        assert {**one, "scores": pytest.approx(one["scores"], abs=1e-5)} == other
    assert family != "bert" or answers[-1]["prediction"] == ""


@pytest.mark.parametrize(
    "row, message",
    [
        ({"context": "Rome", "label": "Paris"}, "does not stand in the text"),
        ({"context": "Rome", "label": []}, "holds no right answer"),
        ({"context": "Rome", "label": ["Rome", None]}, "should hold the right answer"),
        ({"context": "Rome", "label": {"text": "Rome", "answer_start": 2}}, "there stands 'me'"),
        (
            {"context": "Rome", "label": {"text": ["Rome", "me"], "answer_start": [0]}},
            "as many under answer_start as under text",
        ),
        ({"context": " ", "label": "Rome"}, "should hold a text"),
        ({"label": "Rome"}, "no field 'context'"),
        ({"context": "Rome"}, "is missing"),
    ],
)
def test_a_row_that_does_not_fit(row, message):
    model = model_of("bert")
    with pytest.raises(PtuneError, match=f"Row 2 of part: .*{message}"):
        model.encode(0, [ROWS[0], {"question": "the capital", **row}])


@pytest.mark.parametrize(
    "text, settings, message",
    [
        ("{question} {sep} {context} {mask}", {}, "leave {mask} out"),
        ("{question}", {}, "should have once"),
        ("{question} {sep} {context|lower}", {}, "changes that by lower"),
        ("{context}", {"pooling": "mean"}, "does not go with pooling"),
    ],
)
def test_what_does_not_go_with_parts_of_texts(text, settings, message):
    with pytest.raises(ConfigError, match=message):
        model_of("bert", text, **settings)


def test_a_special_token_in_the_text_is_none():
    model = model_of("bert")
    row = {**ROWS[0], "context": f"[SEP] {TEXT}"}
    (example,) = model.encode(0, [row])
    separator = model.lm.tokens.tokenizer.sep_token_id
    assert example.fills[0].ids.count(separator) == 2
    (answer,) = model.predict([row])
    assert answer["prediction"] == row["context"][answer["start"] : answer["end"]]


def test_a_text_in_a_chat_writes_no_control_token_and_its_answer_is_a_part_of_it():
    network, tokenizer = tiny.tiny("gpt2")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    tokenizer.chat_template = "{% for m in messages %}<think>{{ m.content }}\n{% endfor %}"
    network.resize_token_embeddings(len(tokenizer))
    model = PromptModel(LanguageModel(network, tokenizer))
    template = Template.parse("{role:user}{prefix:2}{question}\n{context}")
    task = Task("part", template, Extraction("context"), reader=READERS["token-head"])
    model.add(task)
    row = {"question": "a city", "context": "Rome <think> is a city", "label": "city"}
    (example,) = model.encode(0, [row])
    control = tokenizer.convert_tokens_to_ids("<think>")
    (fill,) = example.fills
    assert list(fill.ids).count(control) == 1
    ((first, last),) = example.right
    place = fill.answer_positions[example.tokens.index(last)]
    assert "city".endswith(tokenizer.decode([fill.ids[place]]).strip())
    assert row["context"][example.spans[first][0] : example.spans[last][1]].strip() == "city"
