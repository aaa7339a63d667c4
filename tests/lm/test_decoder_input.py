"""Soft tokens in the decoder's input of an encoder-decoder, beside transformers called by hand."""

import json

import pytest
import tiny
import torch
from by_hand import Plain

from ptune.answers.label_words import Verbalizer
from ptune.cli import main
from ptune.cli.inspect import tokens_table
from ptune.errors import ConfigError, ModelError, TemplateError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.prompts import encoders
from ptune.serving.attention import attention_of
from ptune.settings import DecodingConfig, TrainConfig
from ptune.storage import peft_format, prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

WORDS = Verbalizer.from_words({"a": "Vienna", "b": "Rome"})
TEMPLATE = "{soft:1} {x} {decoder}{soft:2} the capital is {mask}"
TEMPLATES = (
    TEMPLATE,
    "{x} {decoder} Question : {y} {soft:3} {mask}",
    "{x} {decoder}{soft:2@a} so {soft@a} {mask}",
    "{soft:2} {x}",
    "{x} {decoder} the {mask}",
)
ROWS = [
    {"x": "the east of Austria", "y": "people", "label": "a"},
    {"x": "Italy", "y": "the film is great", "label": "b"},
]


def bank(family="t5", templates=TEMPLATES, words=WORDS, dtype=torch.float32, **more):
    model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
    for number, template in enumerate(templates):
        model.add(
            Task(
                f"t{number}", Template.parse(template), words, encoder="table", seed=number, **more
            )
        )
    model.bank.to(dtype)
    return model


def split(template):
    """What the template puts before and behind {decoder}, as by_hand's pieces: texts, and numbers
    of soft vectors."""
    sides, number, named = [[], []], 0, {}
    parsed = Template.parse(template)
    side = 0
    for part in parsed.parts:
        kind = type(part).__name__
        if kind == "Decoder":
            side = 1
        elif kind == "Soft":
            if part.length is None:
                slots = named[part.name]
            else:
                slots = list(range(number, number + part.length))
                number += part.length
                named[part.name] = slots
            sides[side] += slots
        elif kind in ("Text", "Field"):
            sides[side].append(part)
    return sides


def side_of(plain, parts, row, vectors, begins):
    """The embedded tokens of one side, texts joined before they are split."""
    words, embedded, text = plain.network.get_input_embeddings(), [], ""
    ids_of_run, runs = None, []
    for part in [*parts, None]:
        if part is None or isinstance(part, int):
            if text.strip():
                runs.append(text)
            text = ""
            if isinstance(part, int):
                runs.append(part)
        else:
            text += row[part.name] if hasattr(part, "name") else part.text
    for number, run in enumerate(runs):
        if isinstance(run, int):
            embedded.append(vectors[run][None])
            continue
        run = run.strip() if number == 0 else run.rstrip()
        ids_of_run = plain.ids(run) if number == 0 and begins else plain.follow(run)
        embedded.append(words(torch.tensor(ids_of_run)))
    return torch.cat(embedded) if embedded else torch.zeros(0, words.weight.shape[1])


def by_hand(plain, template, row, vectors, answer):
    """The scores of the vocabulary [K, V] where an answer's tokens are read; one row, embeddings on
    both sides, nothing padded."""
    words = plain.network.get_input_embeddings()
    before, behind = split(template)
    encoder = torch.cat(
        [
            words(torch.tensor(plain.before, dtype=torch.long)),
            side_of(plain, before, row, vectors, begins=True),
            words(torch.tensor(plain.after, dtype=torch.long)),
        ]
    )
    start = plain.network.config.decoder_start_token_id
    decoder = torch.cat(
        [
            words(torch.tensor([start])),
            side_of(plain, behind, row, vectors, begins=True),
            words(torch.tensor(answer[:-1], dtype=torch.long)),
        ]
    )
    output = plain.network(inputs_embeds=encoder[None], decoder_inputs_embeds=decoder[None])
    return output.logits[0, len(decoder) - len(answer) :]


def word_ids(model, task, label):
    bound = model.tasks[task].verbalizer
    return list(bound.first_word(label))


@pytest.mark.parametrize("family", tiny.ENCODER_DECODER)
def test_scores_of_mixed_rows_are_those_of_each_row_by_hand(family):
    model, plain = bank(family), Plain(family)
    examples, expected = [], []
    for task, template in enumerate(TEMPLATES):
        prompt = model.tasks[task].prompt
        vectors = model.bank.encoders[prompt]().detach() if prompt >= 0 else None
        for row in ROWS:
            examples += model.encode(task, [row])
            scores = []
            for label in range(2):
                answer = word_ids(model, task, label)
                values = by_hand(plain, template, row, vectors, answer).log_softmax(-1)
                scores.append(sum(values[k, id_] for k, id_ in enumerate(answer)))
            expected.append(torch.stack(scores))
    ours = torch.stack(model.scores(examples))
    theirs = torch.stack(expected).detach()
    assert (ours - theirs).abs().max() < 2e-5 * max(1, float(theirs.abs().max()))
    alone = torch.stack([model.scores([example])[0] for example in examples])
    assert (ours - alone).abs().max() < 1e-5 * max(1, float(theirs.abs().max()))
    with torch.no_grad():
        model.bank.encoders[0].embedding.weight[1:] = 0
    assert (torch.stack(model.scores(examples))[0] - theirs[0]).abs().max() > 0.05


@pytest.mark.parametrize("family", tiny.ENCODER_DECODER)
def test_gradients_are_those_of_each_row_by_hand(family):
    model, plain = bank(family, dtype=torch.float64), Plain(family, dtype=torch.float64)
    examples = [example for task in range(3) for example in model.encode(task, ROWS)]
    model.losses(examples).sum().backward()
    for task in range(3):
        vectors = model.bank.encoders[task]().detach().requires_grad_()
        for row in ROWS:
            scores = []
            for label in range(2):
                answer = word_ids(model, task, label)
                values = by_hand(plain, TEMPLATES[task], row, vectors, answer).log_softmax(-1)
                scores.append(sum(values[k, id_] for k, id_ in enumerate(answer)))
            (-torch.stack(scores).log_softmax(-1)["ab".index(row["label"])]).backward()
        ours = model.bank.encoders[task].embedding.weight.grad
        assert (ours - vectors.grad).abs().max() < 1e-6
        in_decoder = vectors.grad[1 if task == 0 else 0 :]
        assert in_decoder.abs().max() > 1e-3


SPOKEN = "{soft:1} {x} {decoder}so the capital of Austria {mask}"
LEARNED = '{soft:1} {x} {decoder}so {soft:"the capital of Austria"} {mask}'


@pytest.mark.parametrize("family", tiny.ENCODER_DECODER)
@pytest.mark.parametrize(
    "decoding",
    [
        {},
        {"beams": 3, "texts": 2},
        {"sample": True, "temperature": 0.7, "texts": 2, "seed": 3},
        {"no_repeat_ngram": 2, "beams": 2},
    ],
)
def test_soft_tokens_that_are_words_write_what_the_words_write(family, decoding):
    """Real tokens at the same places, which transformers' generate takes as they are."""
    config = DecodingConfig(max_new_tokens=6, **decoding)
    rows = [{"x": row["x"]} for row in ROWS] * 2
    texts = {}
    for name, template in (("words", SPOKEN), ("soft", LEARNED), ("other", LEARNED)):
        model = bank(family, [template, "{soft:1} {x}"], words=None, target="label")
        first = model.bank.encoders[0].embedding.weight
        with torch.no_grad():
            first[0] = 0.1
            if name == "other":
                generator = torch.Generator().manual_seed(5)
                first[1:] = 3 * torch.randn(first[1:].shape, generator=generator)
        texts[name] = model.generate(rows, [0, 1, 0, 1], config)
    assert texts["soft"] == texts["words"]
    assert texts["other"][0] != texts["words"][0] or texts["other"][2] != texts["words"][2]
    assert texts["other"][1] == texts["words"][1]


def test_prompts_that_share_a_beam_search_write_as_each_alone():
    """Of equal length in the decoder, so that both stand in one call, each row twice."""
    model = bank("t5", [LEARNED, LEARNED], words=None, target="label")
    with torch.no_grad():
        model.bank.encoders[1].embedding.weight.mul_(-3)
    config = DecodingConfig(max_new_tokens=6, beams=2)
    rows = [{"x": row["x"]} for row in ROWS]
    alone = [model.generate([row], task, config)[0] for row in rows for task in (0, 1)]
    together = model.generate([row for row in rows for _ in (0, 1)], [0, 1, 0, 1], config)
    assert together == alone and alone[0] != alone[1]


def test_greedy_text_is_that_of_recomputing_all_by_hand():
    model, plain = bank("t5", [TEMPLATE], words=None, target="label"), Plain("t5")
    vectors = model.bank.encoders[0]().detach()
    for row in ROWS:
        written = []
        for _ in range(5):
            logits = by_hand(plain, TEMPLATE, row, vectors, [*written, 0])
            written.append(int(logits[-1].argmax()))
            if written[-1] in model.lm.ends:
                break
        text = model.lm.tokens.tokenizer.decode(
            [id_ for id_ in written if id_ not in model.lm.ends], skip_special_tokens=True
        )
        config = DecodingConfig(max_new_tokens=5)
        assert model.generate([{"x": row["x"]}], 0, config) == [text.strip()]


def test_together_is_apart():
    """Two prompts with soft tokens in the decoder, trained in one batch and each alone."""
    data = [(ROWS * 3, ROWS)] * 2
    settings = TrainConfig(batch_size=2, steps=6, learning_rate=0.01, patience=0)
    together = bank(templates=TEMPLATES[:2], dtype=torch.float64)
    before = [encoder().detach().clone() for encoder in together.bank.encoders]
    fit(together, dict(enumerate(data)), settings)
    for number in range(2):
        alone = bank(templates=TEMPLATES[:2], dtype=torch.float64)
        fit(alone, {number: data[number]}, settings)
        ours, theirs = together.bank.encoders[number](), alone.bank.encoders[number]()
        assert (ours - theirs).abs().max() < 1e-9
        assert (ours - before[number]).abs().max() > 1e-3


def test_the_command_trains_saves_and_writes_with_it(tmp_path, capsys):
    for part in tiny.tiny("t5"):
        part.save_pretrained(tmp_path / "lm")
    rows = [{"x": row["x"], "label": "Vienna Rome".split()[n]} for n, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(
        f'name: t\ntemplate: "{TEMPLATE}"\ntarget: label\nmetrics: [rouge-l]\n'
        "data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}\nlm: ./lm\n"
        "method: prompt-tuning-adamw\ntrain: {steps: 4}\ndecoding: {max_new_tokens: 4}\n"
        "device: cpu\n"
    )
    main.main(["train", str(tmp_path / "task.yaml"), "--out", str(tmp_path / "out")])
    model = prompt_folder.load(tmp_path / "out", device="cpu")
    texts = model.generate(rows)
    outputs = json.loads((tmp_path / "out" / "run.json").read_text())["outputs"]
    assert [output["text"] for output in outputs] == texts
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    with pytest.raises(ConfigError, match="stand in the decoder's input, and PEFT has them before"):
        peft_format.export(model, tmp_path / "peft")
    main.main(["inspect", str(tmp_path / "out"), "--row", json.dumps(rows[0])])
    shown = capsys.readouterr().out
    assert "soft token 3" in shown and "decoder" in shown


def test_the_page_shows_whom_the_answer_attends_to_behind_soft_tokens_of_the_decoder():
    """The second prompt's, whose vectors change it."""
    model = bank(templates=["{x} {mask}", "{x} {decoder}{soft:3} {mask}"])
    (example,) = model.encode(1, ROWS[:1])
    shares = [attention_of(model, example, 1)]
    with torch.no_grad():
        model.bank.encoders[0].embedding.weight.mul_(-5)
    shares.append(attention_of(model, example, 1))
    first, second = ([one.weight for one in shown.attended] for shown in shares)
    assert max(abs(a - b) for a, b in zip(first, second)) > 1e-3


def test_inspect_counts_the_soft_tokens_of_both_sides():
    model = bank(templates=[TEMPLATE])
    (example,) = model.encode(0, ROWS[:1])
    table = tokens_table(example.fills[0], model.lm)
    assert "3 soft tokens" in str(table.title)


@pytest.mark.parametrize(
    ("family", "template", "message"),
    [
        ("bert", TEMPLATE, "and a masked LM has one input"),
        ("gpt2", TEMPLATE, "and a causal LM has one input"),
        ("t5", "{x} {mask} {decoder}{soft:2}", "put {mask} behind it"),
        ("t5", "{x} {decoder}{soft:2}", "put {mask} behind it"),
        ("t5", "{x} {decoder}{prefix:2} {mask}", "has a {prefix} behind other parts"),
        ("t5", "{x} {decoder}{y|shorten} {mask}", r"behind it {y\|shorten}: what an encoder reads"),
        ("t5", "{role:user}{x}{decoder}{mask}", "and messages of a chat"),
        ("t5", "{x} {decoder}{mask} it is", "behind {mask}, which a decoder cannot see"),
        ("t5", "{x} {decoder} {decoder}{mask}", "There is one {decoder} in a template"),
        ("t5", "{x} {decoder:3} {mask}", "{decoder} takes nothing more"),
    ],
)
def test_where_a_decoders_input_cannot_stand(family, template, message):
    with pytest.raises(TemplateError, match=message):
        bank(family, [template])


def test_what_stands_behind_the_answer_is_dropped_and_told():
    model = bank(templates=["{x} {decoder}{soft:2} {mask} {soft:1} ."])
    assert model.tasks[0].dropped == "{soft:1} ."
    assert len(model.bank.encoders[0]()) == 2


def test_a_field_of_that_name_stands_in_quotes():
    assert Template.parse('{"decoder"} {mask}').fields == ("decoder",)
    assert Template.parse("{decoder_text} {mask}").fields == ("decoder_text",)


def test_a_decoder_that_reads_something_else_is_refused():
    """Soft tokens that do not reach it would be left out in silence."""
    model = bank(templates=[TEMPLATE])
    (example,) = model.encode(0, ROWS[:1])
    batch = model.lm.collate([example.fills[0]], [0])
    vectors = encoders.bake(model.bank.encoders[0])[None]
    embed = model.lm.model.get_decoder().get_input_embeddings()
    filled = model.lm.forward.filled_decoder
    with pytest.raises(ModelError, match="did not read its soft"), filled(batch, vectors):
        pass
    with pytest.raises(ModelError, match="do not fit one of"), filled(batch, vectors):
        embed(batch.decoder[:, :-1])
