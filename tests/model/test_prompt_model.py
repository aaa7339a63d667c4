from typing import get_args

import pytest
import tiny
import torch

from ptune.answers.label_words import Verbalizer, allowed
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, DataError, DivergedError, TemplateError, VerbalizerError
from ptune.lm.batch import collate
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.model.running.forward import run_rows
from ptune.prompts import encoders
from ptune.settings import EncoderOfOne
from ptune.tasks import model_task, task_members
from ptune.tasks.resolved import resolve
from ptune.tasks.schema import TaskConfig
from ptune.template.language import Template
from ptune.training.loop import fit

WORDS = Verbalizer.from_words({"a": "Yes", "b": "No"})
ROWS = [
    {"text": "Vienna lies on the Danube", "label": "a"},
    {"text": "It was", "label": "b"},
    {"text": "great film", "label": "a"},
]


def one(family="bert", template="{soft:3} {text} {soft:2} {mask}", **more):
    network, tokenizer = tiny.tiny(family)
    model = PromptModel(LanguageModel(network, tokenizer))
    model.add(Task("t", Template.parse(template), WORDS, **more), ROWS)
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_causal_answer_is_learned_where_it_is_read(family):
    """P-tuning's released GPT code trains the scores one position before those that it reads, so
    its last pseudo token never gets a gradient."""
    lm = LanguageModel(*tiny.tiny(family))
    words = allowed(["the", "film", "great", "is", "and"], lm.tokens, "spaced")[0]
    model = PromptModel(lm)
    model.add(
        Task(
            "t",
            Template.parse("{soft:3} {text} {soft:2} {mask}"),
            words,
            loss="vocabulary",
            encoder="table",
        )
    )
    rows = model.encode(0, [{"text": "Vienna", "label": words.labels[0]}])
    assert (
        rows[0].learn[0].answer_positions
        == rows[0].fills[0].answer_positions
        == (len(rows[0].fills[0].ids) - 1,)
    )
    loss = model.losses(rows)[0]
    log_probs = run_rows(model, [(0, rows[0].fills[0])])[0].log_probs
    assert torch.equal(loss, -log_probs[0, rows[0].answer[0]])
    shifted = collate([rows[0].learn[0]], [0], 0)
    shifted = model.lm.scores(
        type(shifted)(**{**vars(shifted), "columns": shifted.columns - 1}), model.bank.vectors([0])
    ).log_softmax(-1)
    assert (loss + shifted[0, rows[0].answer[0]]).abs() > 1e-3
    loss.backward()
    assert (model.bank.encoders[0].embedding.weight.grad.abs().sum(1) > 0).all()


def test_every_soft_token_gets_a_gradient_and_the_lm_none():
    """PEFT allocates twice the tokens for encoder-decoders, and half of them never get a
    gradient."""
    for family in tiny.FAMILIES:
        model = one(family, encoder="table")
        model.losses(model.encode(0, ROWS)).sum().backward()
        gradient = model.bank.encoders[0].embedding.weight.grad
        assert gradient.shape[0] == 5 and (gradient.abs().sum(1) > 0).all(), family
        assert all(p.grad is None for p in model.lm.model.parameters())


def test_one_call_of_the_lm_for_rows_of_all_tasks():
    model = one()
    model.add(
        Task(
            "u",
            Template.parse("{text} is {soft:7} {mask}"),
            Verbalizer.from_words({"x": "great film", "y": "bad"}),
        )
    )
    calls = []
    assert model.lm.packs  # which is tried out once
    model.lm.model.register_forward_hook(lambda *_: calls.append(1))
    model.losses(model.encode(0, ROWS) + model.encode(1, [{"text": "It was", "label": "x"}]))
    assert len(calls) == 1


def test_scores_come_in_the_order_of_the_rows_whatever_the_batches():
    model = one()
    rows = model.encode(0, ROWS * 5)
    alone = [model.scores([row])[0] for row in rows]
    for size in (1, 2, 7, 100):
        torch.testing.assert_close(
            torch.stack(model.scores(rows, size)), torch.stack(alone), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("encoder", get_args(EncoderOfOne))
def test_a_baked_prompt_answers_exactly_as_the_unbaked(encoder):
    model = one(encoder=encoder)
    rows = model.encode(0, ROWS)
    before = model.scores(rows)
    model.bank.encoders[0] = encoders.Baked(encoders.bake(model.bank.encoders[0]))
    assert all(map(torch.equal, before, model.scores(rows)))


def test_more_short_rows_than_long_ones_share_a_batch(monkeypatch):
    """A limit that is given is kept whatever the lengths, and the scores are the same."""
    model = one()
    words = [word for word, n in model.lm.tokens.tokenizer.get_vocab().items() if word.isalpha()]
    short = [{"text": words[n], "label": "ab"[n % 2]} for n in range(40)]
    long = [{"text": words[n] + " film" * 29, "label": "a"} for n in range(20)]
    sizes: list[int] = []
    read = model.lm.read_rows
    monkeypatch.setattr(
        model.lm, "read_rows", lambda rows, *more: (sizes.append(len(rows)), read(rows, *more))[1]
    )
    examples = model.encode(0, [*long, *short])
    scores = model.scores(examples)
    assert (model.evaluation_rows, sizes) == (16, [44, 16])
    sizes.clear()
    losses = model.text_losses(examples, 16)
    assert sizes == [44, 16]
    sizes.clear()
    in_sevens = model.scores(examples, rows=7)
    assert max(sizes) == 7
    assert torch.allclose(torch.stack(scores), torch.stack(in_sevens), atol=1e-5)
    expected = [example.loss_of_scores(row) for example, row in zip(examples, in_sevens)]
    assert losses == pytest.approx(expected, abs=1e-5)


def test_a_bank_of_one_is_the_plain_module():
    model = one()
    assert torch.equal(model.bank.vectors([0]), model.bank.encoders[0]()[None])


def test_starting_points():
    """From words of the template, from text, from frequent tokens, from label words; special tokens
    are never taken (PEFT's start from text has [CLS] and [SEP] in it)."""
    lm = LanguageModel(*tiny.tiny("bert"))

    def start(template="{soft:4} {text} {mask}", **more):
        model = PromptModel(lm)
        model.add(Task("t", Template.parse(template), WORDS, encoder="table", **more), ROWS)
        return model.bank.encoders[0]()

    def vectors(text):
        return lm.embed(torch.tensor(lm.tokens.plain(text)))

    assert torch.equal(start(init="the capital"), torch.cat([vectors("the capital")] * 2))
    assert torch.equal(start('{soft:"of france"} {soft:1} {text} {mask}')[:2], vectors("of france"))
    seen = {tuple(v.tolist()) for row in ROWS for v in vectors(row["text"])}
    assert all(tuple(v.tolist()) in seen for v in start(init="vocabulary"))
    labels = start(init="labels")
    assert torch.equal(labels[0], vectors("Yes").mean(0)) and tuple(labels[3].tolist()) in seen
    assert torch.equal(start(seed=3), start(seed=3)) and not torch.equal(
        start(seed=3), start(seed=4)
    )
    with pytest.raises(ConfigError, match="give them"):
        PromptModel(lm).add(
            Task("t", Template.parse("{soft:4} {text} {mask}"), WORDS, init="vocabulary")
        )


@pytest.mark.parametrize(
    "rows, message",
    [
        ({"text": "It was"}, "this is a dict. Write .row."),
        ("It was", "this is a str"),
        (["It was"], "Row 1 is a str, and a row is a dictionary"),
        (None, "this is a NoneType"),
    ],
)
def test_what_is_no_list_of_rows_is_refused(rows, message):
    model = one()
    for call in (model.predict, lambda rows: model.encode(0, rows)):
        with pytest.raises(DataError, match=message):
            call(rows)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"template": "{text} {mask}"}, "a str: make it with Template.parse"),
        ({"verbalizer": {"a": "Yes"}}, "a dict: make it with Verbalizer.from_words"),
    ],
)
def test_plain_values_in_the_place_of_a_template_or_verbalizer_are_refused(more, message):
    settings = {"template": Template.parse("{text} {mask}"), "verbalizer": WORDS} | more
    with pytest.raises(ConfigError, match=message):
        one().add(Task("plain", **settings))
    with pytest.raises(VerbalizerError, match="this is a list"):
        Verbalizer.from_words(["Yes", "No"])


@pytest.mark.parametrize("template", ["{soft:2} {text} {mask}", "{prefix:2} {text} {mask}"])
def test_any_whole_number_is_a_seed(template):
    for seed in (10**30, -(10**30), -1):
        one(template=template, seed=seed)
    one(template=template, seed=10**30, reader=READERS["soft"])


def test_an_lstm_is_fitted_to_its_starting_words():
    model = one(template='{soft:"the capital of france"} {text} {mask}')
    wanted = model.lm.embed(torch.tensor(model.lm.tokens.plain("the capital of france")))
    assert (
        (model.bank.encoders[0]() - wanted).square().mean() / wanted.var()
    ).item() < 2 * encoders.FIT_ERROR


def test_predictions():
    model = one()
    answers = model.predict([{"text": "Vienna"}, {"text": "Rome"}], "t")
    for answer in answers:
        assert (
            set(answer["scores"]) == {"a", "b"} and abs(sum(answer["scores"].values()) - 1) < 1e-5
        )
        assert (
            answer["prediction"]
            == next(iter(answer["scores"]))
            == max(answer["scores"], key=answer["scores"].get)
        )
    with pytest.raises(ConfigError, match="no task 'u'"):
        model.predict([], "u")


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_an_lm_in_bfloat16_trains_a_prompt_in_float32(family):
    actual = []
    for dtype in (torch.float32, torch.bfloat16):
        model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
        model.add(
            Task(
                "t",
                Template.parse("{soft:3} {text} {mask}"),
                Verbalizer.from_words({"a": "Yes", "b": "No"}),
                encoder="table",
                loss="vocabulary",
            )
        )
        losses = model.losses(
            model.encode(
                0, [{"text": "Vienna is great", "label": "a"}, {"text": "Rome", "label": "b"}]
            )
        )
        losses.sum().backward()
        gradient = model.bank.encoders[0].embedding.weight.grad
        assert losses.dtype == gradient.dtype == torch.float32
        actual.append((losses.detach(), gradient.flatten()))
    (losses, gradient), (low_losses, low_gradient) = actual
    assert (losses - low_losses).abs().max() < 0.1 * losses.max()
    assert torch.cosine_similarity(gradient, low_gradient, dim=0) > 0.95


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_an_empty_field_is_no_fault(family):
    """P-tuning's SuperGLUE code stops at an assertion where a part of the text is empty."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    model.add(
        Task(
            "t",
            Template.parse("{soft:2} {text} {soft:2} {more|shorten} {mask}"),
            Verbalizer.from_words({"a": "Yes", "b": "No"}),
        )
    )
    answers = model.predict([{"text": "Rome", "more": ""}, {"text": "", "more": "Vienna"}])
    assert answers[0]["scores"] != answers[1]["scores"]
    with pytest.raises(TemplateError, match="Row 1 of t: The row is empty"):
        model.predict([{"text": "", "more": " "}])


def test_faults_in_rows_are_told_with_their_number():
    model = one()
    with pytest.raises(TemplateError, match="Row 2 of t: .*no field 'text'. Did you mean 'texts'"):
        model.encode(0, [ROWS[0], {"texts": "x", "label": "a"}])
    with pytest.raises(DataError, match="Row 1 of t: .*'label'.* is missing"):
        model.encode(0, [{"text": "x"}])
    with pytest.raises(VerbalizerError, match="Row 1 of t: There is no label 'c'"):
        model.encode(0, [{"text": "x", "label": "c"}])


def test_long_rows_are_shortened_never_the_soft_tokens():
    """OpenPrompt adds soft tokens after it has shortened the row, and overflows; PEFT gives no
    help."""
    model = one(template="{soft:9} {text|shorten} {soft:9} {mask}")
    row = model.encode(0, [{"text": "great " * 500}], labelled=False)[0]
    assert len(row.fills[0].ids) == model.max_length == 64 and max(row.fills[0].soft_slots) == 17
    assert len(model.scores([row])) == 1
    with pytest.raises(TemplateError, match="and 64 fit"):
        one().encode(0, [{"text": "great " * 500}], labelled=False)


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_scores_that_are_no_finite_numbers_are_refused(lost):
    """A damaged LM or prompt answers nothing: no label is the best of such scores."""
    model = one(encoder="table")
    with torch.no_grad():
        model.bank.encoders[0].embedding.weight.fill_(lost)
    with pytest.raises(DivergedError, match="scores of .* rows .*no finite numbers"):
        model.predict(ROWS)


def several():
    """Three tasks with different prompts, two of them with the same labels."""
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    for name, words in (
        ("a", {"y": "Yes", "n": "No"}),
        ("b", {"y": "great", "n": "bad"}),
        ("c", {"v": "Vienna", "r": "Rome"}),
    ):
        model.add(
            Task(
                name,
                Template.parse("{soft:2} {text} {soft:1} {mask}"),
                Verbalizer.from_words(words),
                seed=len(model.tasks),
            )
        )
        torch.nn.init.normal_(next(iter(model.bank.encoders[-1].parameters())), 0, 0.7)
    return model


def test_a_task_for_each_row_by_name_or_number():
    model = several()
    texts = [{"text": text} for text in ("Vienna", "Rome is great", "France", "Madrid")]
    answers = model.predict(texts, ["c", 0, "b", "a"])
    for row, task, answer in zip(texts, (2, 0, 1, 0), answers):
        alone = model.predict([row], task)[0]
        assert answer["prediction"] == alone["prediction"] and answer["scores"] == pytest.approx(
            alone["scores"], abs=1e-5
        )
    assert list(answers[0]["scores"]) != list(answers[1]["scores"])
    with pytest.raises(ConfigError, match="there are 2 tasks for 4 rows"):
        model.predict(texts, ["a", "b"])
    with pytest.raises(ConfigError, match="no task 'd'"):
        model.predict(texts, ["a", "b", "c", "d"])
    with pytest.raises(ConfigError, match="no task number 3 here: 3 tasks are numbered from 0"):
        model.predict(texts, 3)
    with pytest.raises(ConfigError, match="cannot answer together. Name the task of each row"):
        model.predict(texts)


def test_without_tasks_all_answer_together_or_the_row_names_its_own():
    model = several()
    both = PromptModel(model.lm, model.bank, model.tasks[:2])
    together, apart = both.predict(ROWS), [both.predict(ROWS, task) for task in range(2)]
    for number in range(len(ROWS)):
        wanted = sum(answers[number]["scores"]["y"] for answers in apart) / 2
        assert together[number]["scores"]["y"] == pytest.approx(wanted, abs=1e-5)
    by_user = PromptModel(LanguageModel(*tiny.tiny("bert")))
    for name in ("anna", "bob"):
        by_user.add(
            Task(
                f"t/{name}",
                Template.parse("{soft:2} {text} {mask}"),
                WORDS,
                by=("user", name),
                seed=len(by_user.tasks),
            )
        )
    rows = [{"text": "Vienna", "user": "bob"}, {"text": "Rome", "user": "anna"}]
    assert [a["scores"] for a in by_user.predict(rows)] == [
        a["scores"] for a in by_user.predict(rows, [1, 0])
    ]
    with pytest.raises(DataError, match="Row 2: .*user"):
        by_user.predict([rows[0], {"text": "Rome"}])


def test_a_task_that_does_not_fit_leaves_nothing_behind():
    """Neither in the model nor in its bank, whichever part of it is at fault."""
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    words = Verbalizer.from_words({"a": "Yes", "b": "No"})
    rows = [{"text": "Vienna", "label": "a"}, {"text": "Rome", "label": "b"}]
    model.add(
        Task(
            "kept",
            Template.parse("{soft:2} {text} {mask}"),
            words,
            encoder="table",
            by=("user", "anna"),
        )
    )
    template = Template.parse("{soft:2} {text} {mask}")
    for task, given, error in (
        (
            Task("t", template, words, reader=READERS["prototypes"]),
            [{"text": "Vienna", "label": "c"}],
            VerbalizerError,
        ),
        (
            Task("t", template, words, reader=READERS["prototypes"]),
            [{"txt": "Vienna", "label": "a"}],
            TemplateError,
        ),
        (Task("t", template, words, by=("user", "anna")), rows, ConfigError),
        (Task("t", template, words, init="labels"), [], ConfigError),
    ):
        with pytest.raises(error):
            model.add(task, given)
        assert [fitted.task.name for fitted in model.tasks] == ["kept"] and len(model.bank) == 1
        assert model.tasks_for({"user": "anna"}) == [0]
    config = TaskConfig(
        name="t",
        template="{soft:2} {text} {mask}",
        labels={"a": "Yes", "b": "No"},
        reading={"calibration": "prior"},
    )
    form, method = resolve.task_form(config), resolve.shown_method(config)
    member = task_members.members(form, method)[0]
    with pytest.raises(ConfigError, match="no rows over which a prior"):
        model_task.add(model, form, member, [], method=method, learning=resolve.learning(config))
    assert len(model.tasks) == len(model.bank) == 1


def test_shares_are_no_whole_numbers():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    model.add(
        Task("t", Template.parse("{text} {mask}"), Verbalizer.from_words({"a": "Yes", "b": "No"}))
    )
    for one_hot in ([0, 1], [True, False], [1, 1]):
        with pytest.raises(
            DataError,
            match="Row 1 of t: The field 'label' holds the whole numbers .* For one label, give "
            "its name",
        ):
            model.encode(0, [{"text": "Vienna", "label": one_hot}])
    assert model.encode(0, [{"text": "Vienna", "label": [0.0, 1.0]}])[0].shares == (0.0, 1.0)


def test_the_whole_vocabulary_teaches_one_word_a_label():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    words = Verbalizer.from_words({"a": ["Yes", "great"], "b": "No"})
    with pytest.raises(
        ConfigError, match="teaches one word for each label, and 'a' has several: give it one"
    ):
        model.add(Task("t", Template.parse("{soft:2} {text} {mask}"), words, loss="vocabulary"))


def test_a_model_without_tasks_says_so():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    for ask in (model.predict, model.generate):
        with pytest.raises(ConfigError, match="The model has no task yet: add one"):
            ask([{"x": "a"}])
    with pytest.raises(ConfigError, match="fit takes a dictionary with a pair for each task"):
        fit(model, {})
