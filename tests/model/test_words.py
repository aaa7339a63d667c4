"""A label for each word: equal to plain transformers with a linear layer, alone or in a batch, in
one input or in windows, and saved as trained."""

import pytest
import tiny
import torch
from torch.nn.functional import cross_entropy

from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.errors import ConfigError, DataError, TemplateError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.tasks.judging import judge_words
from ptune.template.language import Template
from ptune.training.loop import fit

LABELS = ("O", "B-a", "I-a")
ROWS = [
    {"words": "Vienna lies on the Danube".split(), "label": "B-a O O B-a I-a".split()},
    {"words": ["terrible", "Rome"], "label": ["O", "B-a"]},
    {"words": ["worst"], "label": ["O"]},
    {"words": "the people speak German and pay with the euro".split(), "label": ["O"] * 9},
]
LONG = {"words": ROWS[0]["words"] * 12, "label": ROWS[0]["label"] * 12}


def model_of(family, text="{prefix:2} {soft:2} {words} .", pieces=None, **settings):
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    add(model, text, pieces, **settings)
    return model


def add(model, text="{prefix:2} {soft:2} {words} .", pieces=None, **settings):
    settings = {"encoder": "table", "prefix": PrefixSettings(0)} | settings
    name = f"words {len(model.tasks)}"
    task = Task(
        name,
        Template.parse(text),
        WordLabels("words", LABELS, pieces),
        reader=READERS["token-head"],
        **settings,
    )
    number = model.add(task)
    for parameter in model.bank.parameters_of(model.tasks[number].prompt):
        torch.nn.init.normal_(parameter, 0, 0.5, generator=torch.Generator().manual_seed(number))
    return number


def ids_of_words(tokenizer, words):
    """The tokens of each word by the tokenizer's own alignment, the special ones left out."""
    text = " " + " ".join(words)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends, position = [], 0
    for word in words:
        position += 1 + len(word)
        ends.append(position)
    ids = [[] for _ in words]
    for token, (_, end) in zip(encoding["input_ids"], encoding["offset_mapping"]):
        ids[next(n for n, limit in enumerate(ends) if end <= limit)].append(token)
    return ids


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "qwen"])
@pytest.mark.parametrize("pieces", ["first", "last", "all"])
def test_scores_and_gradients_are_those_of_plain_transformers(family, pieces):
    """Soft tokens are rows of an embedding matrix here, and a linear layer reads the last hidden
    states."""
    network, tokenizer = tiny.tiny(family)
    model = model_of(family, "{soft:2} {words}", pieces)
    vectors, head = model.bank.encoders[0], model.reader(0).classifier
    examples = model.encode(0, ROWS)
    model.losses(examples).sum().backward()
    actual = [p.grad.clone() for p in (*vectors.parameters(), *head.parameters())]
    model.bank.zero_grad()
    before = tokenizer("x")["input_ids"]
    before = before[: before.index(tokenizer("x", add_special_tokens=False)["input_ids"][0])]
    after = [tokenizer.sep_token_id] if family in ("bert", "distilbert") else []
    total = 0.0
    for row, scores in zip(ROWS, model.scores(examples)):
        words = ids_of_words(tokenizer, row["words"])
        ids = [*before, 0, 0, *sum(words, []), *after]
        embeddings = network.get_input_embeddings()(torch.tensor([ids]))
        start = len(before)
        inputs = torch.cat([embeddings[:, :start], vectors()[None], embeddings[:, start + 2 :]], 1)
        hidden = network.base_model(inputs_embeds=inputs).last_hidden_state[0]
        position, log_probs, losses = start + 2, [], []
        for word, label in zip(words, row["label"]):
            places = list(range(position, position + len(word)))
            places = {"first": places[:1], "last": places[-1:], "all": places}[pieces]
            read = head(hidden[places])
            log_probs.append(read.log_softmax(-1).mean(0))
            losses += [cross_entropy(one, torch.tensor(LABELS.index(label))) for one in read]
            position += len(word)
        torch.testing.assert_close(scores, torch.stack(log_probs), atol=1e-5, rtol=1e-5)
        total = total + torch.stack(losses).mean()
    total.backward()
    expected = [p.grad for p in (*vectors.parameters(), *head.parameters())]
    for one, other in zip(actual, expected):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_words_are_read_at_the_layer_that_is_asked_for(family):
    network, _ = tiny.tiny(family)
    model = model_of(family, "{words}", layer=1)
    (example,) = model.encode(0, ROWS[1:2])
    (fill,) = example.fills
    with torch.no_grad():
        states = network.base_model(torch.tensor([fill.ids]), output_hidden_states=True)
        first, last = (states.hidden_states[n][0, list(fill.answer_positions)] for n in (1, -1))
        head = model.reader(0).classifier
        (scores,) = model.scores([example])
        torch.testing.assert_close(scores, head(first).log_softmax(-1), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(scores, head(last).log_softmax(-1), atol=1e-2)


def test_each_row_is_judged_by_its_own_answer():
    """All rows have the labels that the prompt gives them; then each word of one row is wrong."""
    model = model_of("bert")
    said = [answer["prediction"] for answer in model.predict(ROWS)]
    assert len(set(map(len, said))) == len(ROWS)
    rows = [{**row, "label": labels} for row, labels in zip(ROWS, said)]
    assert judge_words.judge(model, rows, ["word-accuracy"]) == {"word-accuracy": 1.0}
    wrong = ["B-a" if label == "O" else "O" for label in said[0]]
    rows[0] = {**rows[0], "label": wrong}
    words = sum(map(len, said))
    expected = pytest.approx((words - len(wrong)) / words)
    assert judge_words.judge(model, rows, ["word-accuracy"])["word-accuracy"] == expected


@pytest.mark.parametrize("family", ["bert", "deberta", "modernbert", "gpt2", "llama", "gemma"])
def test_a_batch_is_its_rows_alone_packed_or_padded(family):
    """Rows of two prompts, one of which is cut into windows; the vocabulary head does not run."""
    model = model_of(family)
    add(model, "{words}", "all", max_length=30)
    examples = model.encode(0, ROWS) + model.encode(1, [LONG, *ROWS])
    assert len(examples[4].fills) > 1
    together, losses = model.scores(examples), model.losses(examples)
    for example, scores, loss in zip(examples, together, losses):
        torch.testing.assert_close(model.scores([example])[0], scores, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(model.losses([example])[0], loss, atol=2e-5, rtol=2e-5)
    model.lm.packs = False
    for scores, other in zip(together, model.scores(examples)):
        torch.testing.assert_close(scores, other, atol=2e-5, rtol=2e-5)
    learned = model.learned([0])
    output = model.lm.read_rows(examples[0].fills, [0], learned.vectors, learned.prefixes)
    assert len(output.scores) == 0 and len(output.hidden) == 5


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_every_word_of_a_long_row_has_an_answer(family):
    model = model_of(family, max_length=24)
    (example,) = model.encode(0, [LONG])
    assert len(example.fills) > 2 and all(fill.size <= 24 for fill in example.fills)
    assert sorted(example.words) == list(range(60)) and example.cut == 0
    (answer,) = model.predict([LONG])
    assert len(answer["prediction"]) == len(answer["scores"]) == 60


def test_an_answer_keeps_the_scheme_and_names_the_entities():
    model = model_of("bert")
    for row in model.predict([*ROWS, LONG]):
        names = row["prediction"]
        for before, label in zip(["O", *names], names):
            assert label != "I-a" or before in ("B-a", "I-a")
        for entity in row["entities"]:
            assert names[entity["start"]] == "B-a"
            assert len(entity["words"]) == entity["end"] - entity["start"]


def test_an_ensemble_answers_by_the_mean_of_its_members():
    model = model_of("bert")
    add(model, "{soft:1} {words}")
    (answer,) = model.predict(ROWS[:1])
    shares = torch.stack([model.scores(model.encode(n, ROWS[:1]))[0].softmax(-1) for n in (0, 1)])
    best = model.tasks[0].verbalizer.best(shares.mean(0).log())
    assert answer["prediction"] == model.tasks[0].verbalizer.names(best)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_training_learns_and_is_saved_as_trained(family, tmp_path):
    model = model_of(family, encoder="lstm")
    config = TrainConfig(steps=40, learning_rate=0.03, evaluate_every=20)
    history = fit(model, {0: (ROWS, ROWS)}, config)[0]
    assert history.best.dev == 1.0  # the F1 of entities
    prompt_folder.save(model, tmp_path / "a")
    loaded = prompt_folder.load(tmp_path / "a", lm=model.lm)
    assert loaded.tasks[0].verbalizer == model.tasks[0].verbalizer
    rows = [*ROWS, LONG]
    for one, other in zip(model.predict(rows), loaded.predict(rows)):
        assert one["prediction"] == other["prediction"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-6)


def test_prompts_trained_together_are_those_trained_apart():
    config = TrainConfig(steps=6, batch_size=2, learning_rate=0.01, evaluate_every=3)
    together = model_of("bert")
    add(together)
    fit(together, {0: (ROWS, ROWS), 1: (ROWS[::-1], ROWS)}, config)
    for number, rows in ((0, ROWS), (1, ROWS[::-1])):
        apart = model_of("bert")
        add(apart)
        fit(apart, {number: (rows, ROWS)}, config)
        for one, other in zip(
            together.bank.parameters_of(number), apart.bank.parameters_of(number)
        ):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"text": "{words} {mask}"}, "leave {mask} out"),
        ({"loss": "vocabulary"}, 'does not go with loss "vocabulary"'),
        ({"pooling": "mean"}, "does not go with pooling"),
        ({"windows": "max"}, "does not go with windows"),
        ({"swap": ("words", "label")}, "does not go with swap"),
    ],
)
def test_what_does_not_go_with_labels_of_words(settings, message):
    with pytest.raises(ConfigError, match=message):
        model_of("bert", **settings)


def test_other_faults_of_a_task():
    words = WordLabels("words", LABELS)
    template, head = Template.parse("{words}"), READERS["token-head"]
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    with pytest.raises(ConfigError, match="token-head"):
        model.add(Task("task", template, words))
    with pytest.raises(ConfigError, match="two labels"):
        model.add(Task("task", template, WordLabels("words", ("O",)), reader=head))
    with pytest.raises(TemplateError, match="once"):
        Task("task", Template.parse("{text}"), words, reader=head)
    with pytest.raises(ConfigError, match="encoder-decoder"):
        PromptModel(LanguageModel(*tiny.tiny("t5"))).add(Task("t", template, words, reader=head))
    model = model_of("bert")
    with pytest.raises(DataError, match="Row 2 of words 0: .*holds no words"):
        model.encode(0, [ROWS[0], {"words": [], "label": []}])
    with pytest.raises(ConfigError, match="a label for each word"):
        model.predict(ROWS, at_least=0.5)
