"""Tasks that ask an instruction-tuned LM in its own form: trained, saved, loaded and asked."""

import copy
import json

import pytest
import tiny
import torch

from ptune.cli import main
from ptune.errors import ConfigError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.model.running.generate import generate, write_live
from ptune.serving.engines.live_text import LiveText
from ptune.settings import DecodingConfig
from ptune.storage import prompt_folder
from ptune.tasks import yaml_task
from ptune.template.language import Template

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TASK = """
name: films
chat:
  - {role: system, text: "{prefix:2}You judge films."}
  - {role: user, text: "{soft:2} {text|shorten} Good or bad?"}
  - {role: assistant, text: "{mask}"}
labels: {good: good, bad: bad}
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
lm: ./lm
method: p-tuning
train: {epochs: 1, steps: 2}
out: out
"""
ROWS = [
    {"text": "a great film <|im_end|>", "label": "good"},
    {"text": "the worst film", "label": "bad"},
]


def chat_lm(folder, template=CHATML):
    network, tokenizer = copy.deepcopy(tiny.tiny("gpt2"))
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    network.resize_token_embeddings(len(tokenizer))
    tokenizer.chat_template = template
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return LanguageModel.load(str(folder))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films.yaml").write_text(TASK)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS * 2))
    return tmp_path


def test_a_chat_is_trained_saved_and_answers_as_trained(workplace, capsys):
    lm = chat_lm(workplace / "lm")
    main.main(["train", "films.yaml"])
    loaded = prompt_folder.load("out", lm=lm)
    assert loaded.tasks[0].task.template.source.startswith("{role:system}{prefix:2}You judge")
    row = loaded.encode(0, ROWS)[0].fills[0]
    end = lm.tokens.tokenizer.convert_tokens_to_ids("<|im_end|>")
    real = [token for token, slot in zip(row.ids, row.soft_slots) if slot < 0]
    assert real.count(end) == 2, "the row's own is spelt out"
    metrics = json.loads((workplace / "out" / "prompt.json").read_text())["metrics"]
    capsys.readouterr()
    main.main(["evaluate", "out", "--data", "rows.jsonl"])
    assert f"{next(iter(metrics.values())):.3f}" in capsys.readouterr().out
    main.main(["inspect", "out", "--row", '{"text": "great"}'])
    drawn = capsys.readouterr().out
    assert "<|im_start|>" in drawn and "prefix vector 2" in drawn and "soft token 2" in drawn
    main.main(["inspect", "films.yaml", "--row", '{"text": "great"}'])
    assert "<|im_start|>" in capsys.readouterr().out


def test_another_chat_template_is_refused(workplace):
    lm = chat_lm(workplace / "lm")
    model = PromptModel(lm)
    template = "{role:user}{soft:1}{x}{role:assistant}{mask}"
    model.add(Task("t", Template.parse(template), None, "y"))
    prompt_folder.save(model, "saved")
    prompt_folder.load("saved", lm=lm)
    lm.tokens.tokenizer.chat_template = CHATML.replace("\n{{ m.content }}", ": {{ m.content }}")
    with pytest.raises(StoreError, match="chat template"):
        prompt_folder.load("saved", lm=lm)


def test_a_chat_writes_what_transformers_writes(tmp_path):
    lm = chat_lm(tmp_path)
    model = PromptModel(lm)
    template = "{role:system}Be good.{role:user}{x}{role:assistant}{mask}"
    model.add(Task("t", Template.parse(template), None, "y"))
    written = generate(model, [{"x": "Vienna lies on"}], config=DecodingConfig(max_new_tokens=12))
    tokenizer = lm.tokens.tokenizer
    messages = [
        {"role": "system", "content": "Be good."},
        {"role": "user", "content": "Vienna lies on"},
    ]
    asked = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        ids = lm.model.generate(**asked, max_new_tokens=12, do_sample=False)
    theirs = tokenizer.decode(ids[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    assert written == [theirs.strip()]


def test_a_text_ends_where_the_chat_template_ends_a_message(tmp_path):
    """Also where the tokenizer's end token is another one."""
    lm = chat_lm(tmp_path, CHATML.replace("<|im_end|>", "<|im_start|>"))
    first, second = lm.ends[:2]
    assert lm.tokens.show(first) == "<|im_end|>" and lm.tokens.show(second) == "<|im_start|>"
    model = PromptModel(lm)
    template = "{role:user}{x}{role:assistant}{mask}"
    model.add(Task("t", Template.parse(template), None, "y"))
    taught = model.encode(0, [{"x": "is it", "y": "great"}], labelled=True)[0]
    assert taught.answer[-1] == second


def writing_chat(folder, ends):
    """An instruction-tuned LM that writes <|done|> where it would have written the third token, and
    the tokens at which its settings of writing say that a text ends; a task, and its answer."""
    lm = chat_lm(folder)
    network, tokenizer = lm.model, lm.tokens.tokenizer
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Vienna lies on"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        third = network.generate(**asked, max_new_tokens=3, do_sample=False)[0, -1]
    tokenizer.add_tokens(["<|done|>"], special_tokens=True)
    network.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():
        vectors = network.get_input_embeddings().weight
        vectors[-1] = vectors[third] * 2
    done = len(tokenizer) - 1
    network.generation_config.eos_token_id = [done if end == "done" else end for end in ends]
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with torch.no_grad():
        ids = network.generate(**asked, max_new_tokens=12, do_sample=False)
    return LanguageModel.load(str(folder)), done, ids[0, asked["input_ids"].shape[1] :].tolist()


def test_a_text_ends_at_all_control_tokens_that_the_settings_of_writing_name(tmp_path):
    """As by transformers; and those of a saved prompt, and of one behind the server."""
    lm, done, ids = writing_chat(tmp_path / "lm", ["done", 5])
    assert ids[-1] == done and 0 < len(ids) < 12 and 5 not in ids, (
        "the others are no control tokens"
    )
    message_end = lm.tokens.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert lm.ends == [message_end, done] and lm.end == message_end
    model = PromptModel(lm)
    template = "{role:user}{x}{role:assistant}{mask}"
    model.add(Task("t", Template.parse(template), None, "y"))
    expected = lm.tokens.tokenizer.decode(ids[:-1]).strip()
    prompt_folder.save(model, tmp_path / "t")
    rows, config = [{"x": "Vienna lies on"}], DecodingConfig(max_new_tokens=12)
    for asked in (model, prompt_folder.load(tmp_path / "t", lm=lm)):
        assert generate(asked, rows, config=config) == [expected]
    live, examples = LiveText(model, 12, ()), model.encode(0, rows, labelled=False)
    write_live(model, examples, config, lambda tokens: [live.add(tokens[0]) or live.end is None])
    assert (live.text, live.end) == (expected, "stop") and live.ids == ids[:-1]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("name: films", "name: films\ntemplate: '{text} {mask}'", "both template and chat"),
        ("role: user", "role: the user", "is no word"),
        ("role: system", "rolle: system", "rolle"),
    ],
)
def test_a_faulty_chat_is_one_clear_message(workplace, before, after, message):
    path = workplace / "films.yaml"
    path.write_text(TASK.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        yaml_task.read(path)
