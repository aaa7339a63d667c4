"""Decoding: every mixture of prompts in one batch, cached, against recomputing each row alone from
the start."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch
from writing_checks import (
    ROWS,
    SHORT,
    WRITERS,
    build,
    check_beams_of_a_batch,
    check_mixed_batch_with_cache,
    mixed,
)

from ptune.answers.label_words import Verbalizer
from ptune.data.row import FileRow
from ptune.errors import ConfigError, TemplateError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.model.running import generate as generate_module
from ptune.model.running.generate import draw_keys, generate, write, write_all
from ptune.settings import DecodingConfig
from ptune.template.language import Template


@pytest.mark.parametrize("family", WRITERS)
def test_a_mixed_batch_with_a_cache_is_each_row_recomputed(family):
    check_mixed_batch_with_cache(family)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart"])
def test_beams_of_a_batch_are_those_of_each_row(family):
    check_beams_of_a_batch(family)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_64_requests_over_16_prefixes(family):
    """Prefixes of 16 different lengths in one batch: the scores and the greedy text of each row are
    what it gets alone."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    for number in range(16):
        text = f"{{prefix:{number + 1}}} {{x}} is" + (
            " {mask}" if model.lm.kind == "causal" else ""
        )
        model.add(Task(f"user {number}", Template.parse(text), None, "y", prefix=PrefixSettings(0)))
        torch.nn.init.normal_(model.bank.parameters_of(number)[0], 0, 0.7)
    examples = [
        model.encode(
            number % 16, [{"x": f"{ROWS[number % 3]['x']} {number}", "y": "a great film"}]
        )[0]
        for number in range(64)
    ]
    everything = DecodingConfig(max_new_tokens=6, rows=64)
    texts = write(model, examples, everything)
    assert len(set(texts)) > 32
    assert texts == [write(model, [example], everything)[0] for example in examples]
    wrong = [dataclasses.replace(example, task=(example.task + 1) % 16) for example in examples]
    wanted = torch.cat([model.losses([example]) for example in examples])
    assert (model.losses(wrong) - wanted).abs().min() > 1e-3, "a swapped prefix does not show"
    torch.testing.assert_close(model.losses(examples), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_beams_with_a_prefix_of_words_are_beams_with_the_words(family):
    model = PromptModel(LanguageModel(*tiny.tiny(family, torch.float64)))
    model.lm.tokens.before = []
    model.add(
        Task(
            "prefix",
            Template.parse('{prefix:"the capital of"} {x} = {mask}'),
            None,
            "y",
            prefix=PrefixSettings(0),
        )
    )
    model.bank.double()
    model.add(Task("words", Template.parse("{x} = {mask}"), None, "y"))
    beams = DecodingConfig(max_new_tokens=7, beams=4)
    words = tuple(model.lm.tokens.follow(" the capital of"))
    prefixed, plain = model.encode(0, ROWS, labelled=False), model.encode(1, ROWS, labelled=False)
    spelt = [
        dataclasses.replace(
            e,
            task=1,
            fills=tuple(
                dataclasses.replace(
                    fill,
                    ids=words + fill.ids,
                    soft_slots=(-1,) * len(words) + fill.soft_slots,
                    prefix=(),
                )
                for fill in e.fills
            ),
        )
        for e in prefixed
    ]
    assert write(model, plain, beams) != write(model, spelt, beams)
    model.bank.prefixes[0].encoder.embedding.weight.data = model.lm.activations(words)
    assert write(model, prefixed, beams) == write(model, spelt, beams)


def test_sampling_follows_its_seed():
    model = build("gpt2")
    sampled = DecodingConfig(max_new_tokens=7, sample=True, texts=3, seed=5)
    actual = write_all(model, mixed(model), sampled)
    assert actual == write_all(model, mixed(model), sampled)
    assert actual != write_all(model, mixed(model), sampled.model_copy(update={"seed": 6})) and any(
        len(set(texts)) > 1 for texts in actual
    )
    coldest = write_all(model, mixed(model), sampled.model_copy(update={"temperature": 1e-4}))
    assert [texts[0] for texts in coldest] == write(model, mixed(model), SHORT)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart"])
@pytest.mark.parametrize("more", [{}, {"texts": 3, "top_k": 9}, {"beams": 2}])
def test_what_is_drawn_depends_on_the_row_alone(family, more):
    model = build(family)
    rows = [FileRow(row, "rows.jsonl", line) for line, row in enumerate([*ROWS, ROWS[0]] * 2, 1)]
    examples = model.encode(0, rows, labelled=False)
    drawn = DecodingConfig(max_new_tokens=7, sample=True, temperature=2.0, seed=5, **more)
    texts = write_all(model, examples, drawn)
    for other in ({"rows": 1}, {"rows": 3}):
        assert write_all(model, examples, drawn.model_copy(update=other)) == texts
    assert write_all(model, examples[::-1], drawn)[::-1] == texts
    assert [write_all(model, [example], drawn)[0] for example in examples] == texts
    assert len({tuple(texts[number]) for number in (0, 3, 4, 7)}) == 4, "equal rows, equal texts"
    first = generate(model, rows[:1], 0, drawn)[0]
    assert ([first] if drawn.texts == 1 else first) == texts[0]


def test_several_prompts_draw_unlike_texts_for_a_row():
    model = build("gpt2")
    examples = model.encode(0, ROWS[:1], labelled=False) * 3
    drawn = DecodingConfig(max_new_tokens=7, sample=True)
    assert len({write(model, examples, drawn)[number] for number in range(3)}) == 3
    assert draw_keys([*examples[:2], *model.encode(0, ROWS[1:2], labelled=False)], [5, 5, 6]) == [
        (5, 1, 0),
        (5, 1, 1),
        (6, 2, 0),
    ]


def written(model: PromptModel, config: DecodingConfig) -> list[list[int]]:
    """The token ids behind the texts."""
    actual, write_as_before = [], model.lm.write

    def note(*arguments, **settings):
        ids = write_as_before(*arguments, **settings)
        actual.extend(ids.tolist())
        return ids

    model.lm.write = note
    write(model, mixed(model), config)
    del model.lm.write
    return actual


def test_limits():
    model = build("gpt2")
    assert {len(ids) for ids in written(model, DecodingConfig(max_new_tokens=12))} == {12}
    assert {len(ids) for ids in written(model, DecodingConfig(max_new_tokens=3))} == {3}
    assert any(len(set(ids)) < 12 for ids in written(model, DecodingConfig(max_new_tokens=12)))
    assert all(
        len(set(ids)) == 12
        for ids in written(model, DecodingConfig(max_new_tokens=12, no_repeat_ngram=1))
    )


def test_a_text_ends_before_a_stop_string():
    model = build("gpt2")
    plain = write(model, mixed(model), DecodingConfig(max_new_tokens=12))
    stop = max(plain, key=len)[3:5]
    stopped = write(model, mixed(model), DecodingConfig(max_new_tokens=12, stop=(stop,)))
    assert stopped != plain and stopped == [text.split(stop)[0].strip() for text in plain]


def test_a_banned_word_is_not_written():
    model = build("gpt2")
    tokens = model.lm.tokens
    words = {
        tokens.tokenizer.decode([token]).strip(): token
        for ids in written(model, SHORT)
        for token in ids
    }
    word, token = next(
        (w, t)
        for w, t in words.items()
        if w.isalpha() and len(w) > 1 and t in (tokens.plain(w) + tokens.follow(f" {w}"))
    )
    assert any(token in ids for ids in written(model, SHORT))
    assert not any(
        token in ids for ids in written(model, SHORT.model_copy(update={"banned": (word,)}))
    )


def test_a_text_ends_at_the_end_token():
    model = build("gpt2")
    end, step = model.lm.end, []

    def insist(module, inputs, logits):
        step.extend([1] * (logits.numel() > 0))  # rows that are read ahead have no scores
        return logits.index_fill(-1, torch.tensor([end]), 1e4 if len(step) == 3 else -1e4)

    handle = model.lm.model.lm_head.register_forward_hook(insist)
    assert {len(ids) for ids in written(model, SHORT)} == {3}, "three tokens, the third the end"
    handle.remove()


def test_nothing_behind_the_end_is_text():
    """Also where the end token is none of the tokenizer's special ones."""
    model = build("gpt2")
    plain, end, more = (
        model.lm.tokens.plain("great"),
        model.lm.tokens.plain("film")[0],
        model.lm.tokens.plain("Rome"),
    )
    model.lm.end = end
    assert generate_module.text_of(model, [*plain, end, *more], SHORT.stop) == "great"
    assert "Rome" in model.lm.tokens.tokenizer.decode([*plain, end, *more])


def test_long_rows_leave_room_and_faults_are_told():
    model = build("gpt2")
    with pytest.raises(TemplateError, match="Row 1 of task 0: The row needs"):
        generate(model, [{"x": "Vienna " * 70}], 0, DecodingConfig(max_new_tokens=30))
    with pytest.raises(ConfigError, match="90 new tokens leave no room for a row in an LM of 80"):
        generate(model, ROWS, 0, DecodingConfig(max_new_tokens=90))
    number = model.add(
        Task("shortened", Template.parse("{prefix:3} {x|shorten} is {mask}"), None, "y")
    )
    example = model.encode(number, [{"x": "Vienna " * 70}], labelled=False, room=30)[0]
    assert example.fills[0].cut and len(example.fills[0].ids) + 3 <= 50
    assert (
        len(generate(model, [{"x": "Vienna " * 70}], number, DecodingConfig(max_new_tokens=30)))
        == 1
    )
    from family_checks import WORDS

    number = model.add(Task("labels", Template.parse("{x} is {mask}"), WORDS))
    with pytest.raises(ConfigError, match="predict its rows"):
        generate(model, ROWS, number)
    with pytest.raises(ConfigError, match="a masked LM writes none"):
        PromptModel(LanguageModel(*tiny.tiny("bert"))).add(Task("t", Template.parse("{x} {mask}")))
    with pytest.raises(ConfigError, match="has no labels to score"):
        model.scores(model.encode(0, ROWS, labelled=False))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"temperature": 0.5}, "are of sampling.* set them to 1, 1 and 0"),
        ({"texts": 3}, "need sampling"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "is more than"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(ConfigError, match=message):
        DecodingConfig(**wrong)


def test_a_real_lm_learns_how_a_story_goes_on(data):
    """stories260K with prefixes of two users, trained together: each learns its own sentence (not
    the end, a token that this LM was never trained on), and a mixed batch is each row alone."""
    from stories import stories260k

    from ptune.settings import TrainConfig
    from ptune.training.loop import fit

    model = PromptModel(LanguageModel(*stories260k(data / "weights" / "stories260K")))
    endings = {"anna": "The bird was happy.", "bob": "The dog ran away."}
    for name in endings:
        model.add(
            Task(
                name,
                Template.parse("{prefix:4} {x} Then {mask}"),
                None,
                "y",
                prefix=PrefixSettings(32),
            )
        )
    starts = [
        "Once upon a time there was a little girl.",
        "Tom had a red ball.",
        "Lily and Ben went to the park.",
        "It was a sunny day.",
    ]
    rows = {
        name: [{"x": start, "y": ending} for start in starts] for name, ending in endings.items()
    }
    before = generate(
        model, [{"x": "One day Sue saw a cat."}], "anna", DecodingConfig(max_new_tokens=30)
    )
    trained = fit(
        model,
        {name: (task_rows, task_rows) for name, task_rows in rows.items()},
        TrainConfig(learning_rate=5e-3, batch_size=4, epochs=80, decay="linear", patience=0),
    )
    assert all(
        history.best.dev_loss < history.history[0].dev_loss / 4 for history in trained.values()
    )
    new = [{"x": "One day Sue saw a cat."}, *({"x": start} for start in starts)]
    examples = [
        example
        for name in endings
        for example in model.encode(model.number(name), new, labelled=False, room=30)
    ]
    actual = write(model, examples, DecodingConfig(max_new_tokens=30))
    assert all(text.startswith(endings["anna"]) for text in actual[1:5]) and all(
        text.startswith(endings["bob"]) for text in actual[6:]
    )
    assert not before[0].startswith(endings["anna"])
    assert actual == [
        write(model, [example], DecodingConfig(max_new_tokens=30))[0] for example in examples
    ]


def in_threads(calls) -> list:
    """What each of some calls gives when all run at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [running.result(60) for running in [pool.submit(call) for call in calls]]


@pytest.mark.parametrize("family", ["bart", "gpt2"])
def test_threads_write_what_each_writes_alone(family):
    """Held together in every step, so that each is within the other's call."""
    model = build(family)
    network = model.lm.model
    network.generation_config.forced_eos_token_id = (
        9  # a habit of decoding that must neither show nor be lost
    )
    kept, meeting = network.generation_config, threading.Barrier(2)
    parts = [mixed(model, ROWS[:1]), mixed(model, ROWS[1:2])]
    settings = SHORT.model_copy(update={"min_new_tokens": 7})
    wanted = [write(model, some, settings) for some in parts]
    part = network.get_decoder() if model.lm.kind == "encoder-decoder" else network
    part.register_forward_pre_hook(lambda *_: (meeting.wait(20), None)[1])
    assert in_threads([lambda some=some: write(model, some, settings) for some in parts]) == wanted
    assert network.generation_config is kept and kept.forced_eos_token_id == 9


def test_sampling_in_threads_follows_the_seed():
    model = build("gpt2")
    seeds = [DecodingConfig(max_new_tokens=7, sample=True, texts=2, seed=seed) for seed in range(4)]
    wanted = [write_all(model, mixed(model), decoding) for decoding in seeds]
    torch.manual_seed(11)
    drawn = torch.get_rng_state()
    model.lm.model.register_forward_pre_hook(lambda *_: time.sleep(0.002))
    assert (
        in_threads(
            [
                lambda decoding=decoding: write_all(model, mixed(model), decoding)
                for decoding in seeds
            ]
        )
        == wanted
    )
    assert torch.equal(torch.get_rng_state(), drawn), "what was drawn elsewhere has moved on"


@pytest.mark.parametrize("family", ["bert", "llama", "deberta", "t5"])
def test_threads_load_score_and_write_over_one_network(family):
    """Each thread makes an LM of its own over the same weights, and all that is tried then is tried
    beside the others."""
    network, tokenizer = tiny.tiny(family)

    def run(seed: int) -> torch.Tensor:
        model = PromptModel(LanguageModel(network, tokenizer))
        model.add(
            Task(
                "t",
                Template.parse("{prefix:3} {x} {soft:2} {mask}"),
                Verbalizer.from_words({"a": "Yes", "b": "No"}),
                encoder="table",
                prefix=PrefixSettings(0),
            )
        )
        for parameter in model.bank.parameters():
            torch.nn.init.normal_(parameter, 0, 0.7, generator=torch.Generator().manual_seed(seed))
        return torch.stack(model.scores(model.encode(0, ROWS, labelled=False)))

    wanted = [run(seed) for seed in range(4)]
    for actual, expected in zip(
        in_threads([lambda seed=seed: run(seed) for seed in range(4)]), wanted
    ):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_a_task_for_each_row_of_text():
    model = build("gpt2")
    rows = [*ROWS, ROWS[0]]
    wanted = [generate(model, [row], task, SHORT)[0] for row, task in zip(rows, (3, 0, 4, 1))]
    assert (
        model.generate(rows, [3, "task 0", "task 4", 1], SHORT)
        == generate(model, rows, [3, 0, 4, 1], SHORT)
        == wanted
    )
    with pytest.raises(ConfigError, match="there are 1 tasks for 4 rows"):
        model.generate(rows, ["task 0"])
    several = DecodingConfig(max_new_tokens=4, sample=True, texts=2)
    assert [len(texts) for texts in model.generate(rows, 0, several)] == [2] * 4


def test_each_task_writes_as_it_says_where_nothing_else_is_asked():
    model = PromptModel(LanguageModel(*tiny.tiny("gpt2")))
    for name, count in (("short", 2), ("long", 6)):
        model.add(
            Task(
                name,
                Template.parse("{x} is {mask}"),
                None,
                "y",
                decoding=DecodingConfig(max_new_tokens=count, min_new_tokens=count),
            )
        )
    texts = model.generate([ROWS[0]] * 2, ["short", "long"])
    assert (
        texts == [generate(model, ROWS[:1], name)[0] for name in ("short", "long")]
        and texts[1].startswith(texts[0])
        and texts[0] != texts[1]
    )
