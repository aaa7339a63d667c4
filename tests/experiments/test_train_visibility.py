"""A task whose tokens do not all see each other, from its file to its saved prompt and back."""

import json

import pytest
import tiny
import torch
import two_users

from ptune import Task, Template, Verbalizer, VisibilityRule
from ptune.cli.inspect import inspect
from ptune.cli.options import InspectConfig
from ptune.errors import ConfigError, PtuneError, TemplateError
from ptune.experiments.compare.compare import compare
from ptune.experiments.options import CompareConfig
from ptune.experiments.train.train_task import train
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel
from ptune.runs import identity
from ptune.search.options import SearchConfig
from ptune.search.run_search import search
from ptune.storage import peft_format, prompt_folder
from ptune.storage.convert import export
from ptune.storage.options import ExportConfig
from ptune.tasks import yaml_task
from ptune.tasks.resolved import resolve

pytestmark = pytest.mark.usefixtures("kept_lms")

YAML = """
name: towns
template: "{soft:2} {x} and {user} is {mask}"
visibility:
  - {hide: soft, from: fields}
  - {hide: [x], from: user}
labels: {a: great, b: bad}
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
lm: ./lm
encoder: table
train: {epochs: 2, batch_size: 4, learning_rate: 0.3}
device: cpu
"""
RULES = (
    VisibilityRule(hide="soft", from_="fields"),
    VisibilityRule(hide="x", from_="user"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world")
    two_users.write(path)
    return path


def task(world, out, text=YAML, **more):
    return two_users.read_task(world, out, text, **more)


def rows(world):
    return [json.loads(line) for line in (world / "rows.jsonl").read_text().splitlines()]


def probabilities(model, world):
    return torch.tensor([answer["scores"]["a"] for answer in model.predict(rows(world))])


def test_what_is_saved_answers_as_what_was_trained(world, tmp_path):
    out = tmp_path / "out"
    train(task(world, out), lambda _: None)
    note = json.loads((out / "prompt.json").read_text())
    assert note["visibility"] == [
        {"hide": ["soft"], "from": ["fields"]},
        {"hide": ["x"], "from": ["user"]},
    ]
    loaded = prompt_folder.load(out)
    assert loaded.tasks[0].task.template.visibility == RULES
    answers = [answer["prediction"] for answer in loaded.predict(rows(world))]
    right = [row["label"] for row in rows(world)]
    share = sum(a == b for a, b in zip(answers, right)) / len(right)
    assert note["metrics"]["test accuracy"] == pytest.approx(share)
    (out / "prompt.json").write_text(json.dumps({**note, "visibility": []}))
    without = prompt_folder.load(out)
    shift = (probabilities(loaded, world) - probabilities(without, world)).abs().max()
    assert shift > 1e-3
    again = tmp_path / "again"
    prompt_folder.save(loaded, again)
    torch.testing.assert_close(
        probabilities(prompt_folder.load(again), world), probabilities(loaded, world)
    )


def test_a_run_with_other_rules_is_another_run(world, tmp_path):
    train(task(world, tmp_path / "out"), lambda _: None)
    other = YAML.replace("from: fields", "from: x")
    with pytest.raises(PtuneError, match="visibility"):
        train(task(world, tmp_path / "out", other, resume=True), lambda _: None)
    with_rules, without = (
        resolve.training(task(world, tmp_path / "out", text)).deciding
        for text in (YAML, YAML.replace("{hide: soft", "{hide: words"))
    )
    assert with_rules != without
    template = Template.parse("{soft:2} {x} {user} {mask}")
    plain, hiding = (
        identity.of_task(Task("t", template.with_visibility(rules))) for rules in ((), RULES)
    )
    assert plain.items() <= hiding.items() and set(hiding) - set(plain) == {"visibility"}


def test_going_on_keeps_the_rules(world, tmp_path):
    train(task(world, tmp_path / "first"), lambda _: None)
    lines = [line for line in YAML.splitlines() if "hide:" not in line]
    bare = "\n".join(line for line in lines if not line.startswith(("visib", "template", "enc")))
    train(task(world, tmp_path / "next", bare, continue_from=tmp_path / "first"), lambda _: None)
    assert prompt_folder.load(tmp_path / "next").tasks[0].task.template.visibility == RULES
    other = "\n".join(line for line in lines if not line.startswith("visib"))
    with pytest.raises(ConfigError, match="the same template with another visibility"):
        train(task(world, tmp_path / "other", other, continue_from=tmp_path / "first"), print)


def test_prompts_of_users_have_the_rules_of_the_task(world, tmp_path):
    text = YAML.replace(" and {user}", "").replace("  - {hide: [x], from: user}\n", "")
    train(task(world, tmp_path / "out", text + "prompt_by: user\n"), lambda _: None)
    together = prompt_folder.load(prompt_folder.folders_in(tmp_path / "out"))
    assert len(together.tasks) == 2
    assert {bound.task.template.visibility for bound in together.tasks} == {RULES[:1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "pet", "patterns": ("{x} {user} is {mask}",)}, "pet trains several models"),
        ({"method": "manual", "template": "{x} {user} is {mask}"}, "'soft', which is nothing in"),
        ({"template": "{soft:2} {x} is {mask}"}, "'user', which is nothing in the template"),
    ],
)
def test_rules_that_cannot_be_are_refused_at_the_door(changes, message, world, tmp_path):
    with pytest.raises(PtuneError, match=message):
        resolve.training(task(world, tmp_path / "out", **changes))


def test_what_a_causal_lm_does_by_itself_or_cannot_see_is_reported(world, tmp_path, capsys):
    """Rules that change nothing, and what stands behind the answer in any of the patterns."""
    for part in tiny.tiny("gpt2"):
        part.save_pretrained(world / "writes")
    text = YAML.replace("lm: ./lm", "lm: ./writes").replace("  - {hide: soft, from: fields}\n", "")
    text = text.replace("[x], from: user", "[user, mask], from: x").replace("encoder: table\n", "")
    patterns = ("{x} and {user} is {mask}", "{user} of {x} is {mask} !", "{user} {x} is {mask} .")
    lines = []
    more = {"method": "prompt-tuning", "template": "", "patterns": patterns}
    train(task(world, tmp_path / "out", text, **more), lines.append)
    assert "Left out of the template, since a causal LM cannot see it: ! and ." in lines
    more = {"method": "prompt-tuning", "template": "{soft:2} " + patterns[0]}
    train(task(world, tmp_path / "other", text, **more), lines.append)
    idle = (
        "{hide: [user, mask], from: x} in visibility changes nothing: in the template "
        "'{soft:2} {x} and {user} is {mask}' this LM hides that by itself"
    )
    assert idle in lines
    inspect(InspectConfig(what=str(tmp_path / "other"), row='{"x": "Rome", "user": "bob"}'))
    assert idle in " ".join(capsys.readouterr().out.split())


def test_commands_that_make_templates_refuse_rules(world, tmp_path):
    config = task(world, tmp_path / "out")
    with pytest.raises(ConfigError, match="method auto .* says visibility"):
        resolve.selection(config.model_copy(update={"method": "auto", "encoder": None}))
    file = world / "task.yaml"
    with pytest.raises(ConfigError, match="towns says visibility, and compare"):
        compare(CompareConfig(tasks=(str(file),), out=tmp_path / "compared"), print)
    with pytest.raises(ConfigError, match="towns has visibility, with which ptune search"):
        search(SearchConfig(by="pez", task=file, out=tmp_path / "searched"), print)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("visibility: {hide: a, from: b}", "visibility"),
        ("visibility: [{hide: x, of: user}]", "there is no key 'visibility.0.of'"),
        ("visibility: [{hide: x}]", "the key 'visibility.0.from' is missing"),
        ("visibility: [{hide: [], from: x}]", "visibility.0.hide"),
    ],
)
def test_rules_that_are_written_wrongly(line, message, world):
    text = "name: t\ntemplate: '{x} {user} {mask}'\n" + line
    (world / "wrong.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        yaml_task.read(world / "wrong.yaml")


def test_an_lm_that_cannot_hide_tokens_is_refused_with_the_reason():
    template = Template.parse("{soft:2} {x} is {mask}").with_visibility(RULES[:1])
    words = Verbalizer.from_words({"a": "great", "b": "bad"})
    for family, reason in (("deberta", "does not go through transformers' attention interface"),):
        model = PromptModel(LanguageModel(*tiny.tiny(family)))
        with pytest.raises(ConfigError, match=f"towns hides tokens .* cannot: it {reason}"):
            model.add(Task("towns", template, words))
    domain = Template.parse("is {mask}")
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    with pytest.raises(ConfigError, match="of which the rules say nothing"):
        model.add(Task("towns", template, words, domain=domain))
    with pytest.raises(ConfigError, match="gates of its prefix read the text of all fields"):
        model.add(Task("towns", template, words, prefix=PrefixSettings(gates="row")))


def test_other_forms_of_prompts_cannot_say_rules(tmp_path):
    model = PromptModel(LanguageModel(*tiny.tiny("gpt2")))
    template = Template.parse("{soft:2} {x} is {mask}").with_visibility(RULES[:1])
    model.add(Task("towns", template, Verbalizer.from_words({"a": "great", "b": "bad"})))
    with pytest.raises(ConfigError, match="it hides tokens from others .*to PEFT all see"):
        peft_format.export(model, tmp_path / "peft")
    for part in tiny.tiny("gpt2"):
        part.save_pretrained(tmp_path / "lm")
    prompt_folder.save(model, tmp_path / "prompt")
    config = ExportConfig(
        prompt=tmp_path / "prompt",
        to="google",
        out=tmp_path / "prompt.npy",
        lm=str(tmp_path / "lm"),
    )
    with pytest.raises(ConfigError, match="hides tokens from others .*Google's form"):
        export(config)


def test_inspect_draws_who_sees_whom(world, tmp_path, capsys):
    task(world, tmp_path / "out")
    config = InspectConfig(what=str(world / "task.yaml"), row='{"x": "Rome", "user": "bob"}')
    inspect(config)
    lines = capsys.readouterr().out.splitlines()
    picture = {line[:14].strip(): line[15:].split() for line in lines if line[:14].strip()}
    #       [CLS] soft soft rome and bob is [MASK] [SEP]
    assert picture["rome"][:4] == ["x", "-", "-", "x"]
    assert picture["soft 1"][:4] == ["x", "o", "o", "x"]
    of_user = picture["b"] if "b" in picture else picture["bob"]
    assert of_user[1:5] == ["-", "-", "-", "x"]
    assert any("Hidden by visibility (-): soft from fields" in line for line in lines)
    assert any("Hidden by visibility (-): x from user" in line for line in lines)
    train(task(world, tmp_path / "out"), lambda _: None)
    inspect(InspectConfig(what=str(tmp_path / "out"), row='{"x": "Rome", "user": "bob"}'))
    assert "Hidden by visibility (-): soft from fields" in capsys.readouterr().out


def test_inspect_draws_what_a_decoder_sees(tmp_path, capsys):
    for part in tiny.tiny("t5"):
        part.save_pretrained(tmp_path / "lm")
    (tmp_path / "t.yaml").write_text(
        "name: t\nlm: ./lm\ntemplate: '{soft:2} {x} is'\ntarget: y\nmethod: prompt-tuning\n"
        "visibility: [{hide: soft, from: mask}]\n"
    )
    inspect(InspectConfig(what=str(tmp_path / "t.yaml"), row='{"x": "Vienna"}'))
    lines = capsys.readouterr().out.splitlines()
    (decoder,) = (line[15:].split() for line in lines if line.startswith("   the decoder"))
    assert decoder[:3] == ["-", "-", "x"]


def test_a_named_rule_that_is_wrong_in_a_saved_prompt(world, tmp_path):
    train(task(world, tmp_path / "out"), lambda _: None)
    note = json.loads((tmp_path / "out" / "prompt.json").read_text())
    note["visibility"] = [{"hide": ["nobody"], "from": ["x"]}]
    (tmp_path / "out" / "prompt.json").write_text(json.dumps(note))
    with pytest.raises(TemplateError, match="'nobody', which is nothing"):
        prompt_folder.load(tmp_path / "out")
