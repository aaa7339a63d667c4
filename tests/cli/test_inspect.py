"""A template and a prompt, drawn."""

import pytest
import tiny

from ptune.answers.label_words import Verbalizer
from ptune.cli.inspect import inspect
from ptune.cli.options import InspectConfig
from ptune.errors import ConfigError, DataError, TemplateError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.storage import prompt_folder
from ptune.template.language import Template


@pytest.fixture
def lm(tmp_path):
    def saved(family):
        network, tokenizer = tiny.tiny(family)
        network.save_pretrained(tmp_path / family)
        tokenizer.save_pretrained(tmp_path / family)
        return str(tmp_path / family)

    return saved


def picture(capsys):
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("who (down)"))
    return lines, [line[15:].split() for line in lines[start + 1 :] if line[15:].strip()]


def test_a_masked_lm_sees_everything(lm, capsys):
    inspect(
        InspectConfig(
            what="{soft:2} {country} {mask} .", lm=lm("bert"), row='{"country": "Austria"}'
        )
    )
    lines, seen = picture(capsys)
    assert len(seen) == len(seen[0]) and {mark for line in seen for mark in line} == {"o", "x"}
    assert all(line[1:3] == ["o", "o"] for line in seen), (
        "[CLS] comes first, then the two soft tokens"
    )
    assert any("soft token 2" in line for line in lines) and any(
        "the answer is read here" in line for line in lines
    )


def test_a_causal_lm_looks_back_and_drops_what_is_behind(lm, capsys):
    inspect(InspectConfig(what="{x} {soft:2} {mask} .", lm=lm("gpt2"), row='{"x": "Vienna"}'))
    lines, seen = picture(capsys)
    assert all(mark == "." for position, line in enumerate(seen) for mark in line[position + 1 :])
    assert all(mark != "." for position, line in enumerate(seen) for mark in line[: position + 1])
    assert any("Left out" in line for line in lines)


def test_a_saved_prompt_shows_its_nearest_words(lm, capsys, tmp_path):
    model = PromptModel(LanguageModel.load(lm("bert"), device="cpu"))
    model.add(
        Task(
            "t",
            Template.parse('{soft:"Vienna is"} {x} {mask}'),
            Verbalizer.from_words({"a": "Yes", "b": "No"}),
            encoder="table",
        )
    )
    prompt_folder.save(model, tmp_path / "prompt")
    inspect(InspectConfig(what=str(tmp_path / "prompt"), words=2))
    lines = capsys.readouterr().out.splitlines()
    nearest = [line for line in lines if "vienna" in line.lower() and "1" in line]
    assert nearest, "a soft token that began as a word and was not trained is nearest to it"


def test_of_several_prompts_the_one_that_is_shown_is_named(lm, capsys, tmp_path):
    model = PromptModel(LanguageModel.load(lm("bert"), device="cpu"))
    for name in ("a", "b"):
        words = Verbalizer.from_words({"a": "Yes", "b": "No"})
        model.add(Task(name, Template.parse("{x} {mask}"), words))
        prompt_folder.save(model, tmp_path / "prompts" / name, task=name)
    inspect(InspectConfig(what=str(tmp_path)))
    text = " ".join(capsys.readouterr().out.split())
    assert "holds 2 prompts, and this is prompts/a" in text


@pytest.mark.parametrize("what", ["a-fodler", "a.txt", "nothing at all"])
def test_what_is_neither_a_folder_nor_a_template_is_told_as_that(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ConfigError, match="is no folder of a saved prompt, no") as fault:
        inspect(InspectConfig(what=what))
    assert ("Did you mean 'a-folder'?" in str(fault.value)) == (what == "a-fodler")


def test_a_bad_row(lm):
    with pytest.raises(DataError, match="a JSON object is expected"):
        inspect(InspectConfig(what="{x} {mask}", lm=lm("bert"), row="[1]"))


@pytest.mark.parametrize(
    "asked, shown",
    [
        ('method: pet\npatterns: ["It is {mask} : {text}", "{text} ( {mask} )"]\n', "[MASK]"),
        ('method: regression\ntemplate: "{text}"\n', "[CLS]"),
    ],
)
def test_a_task_is_shown_as_its_method_asks_it(asked, shown, lm, tmp_path, capsys):
    """By its first pattern where it has no template, and without a mask where it needs none."""
    file = tmp_path / "task.yaml"
    labels = "labels: {good: good, bad: bad}\ntarget: label\ndata: {train: rows.csv}\n"
    file.write_text(f"name: films\nlm: {lm('bert')}\n{asked}{labels}")
    inspect(InspectConfig(what=str(file), row='{"text": "Austria"}'))
    read_at = next(line for line in capsys.readouterr().out.splitlines() if "is read here" in line)
    assert shown in read_at


def test_a_row_that_lacks_a_field_is_refused_and_none_is_drawn_with_names(lm, capsys):
    inspect(InspectConfig(what="{city} {mask}", lm=lm("bert")))
    assert "6 positions" in capsys.readouterr().out, "< city > stands for the field"
    for row in ('{"citi": "Vienna"}', "{}"):
        with pytest.raises(TemplateError, match="The row has no field 'city'"):
            inspect(InspectConfig(what="{city} {mask}", lm=lm("bert"), row=row))


@pytest.mark.parametrize("row", ["city=Vienna", ""])
def test_what_is_no_row_is_answered_with_one_of_the_templates_fields(lm, row):
    with pytest.raises(DataError, match=r"""Write --row '\{"city": "\.\.\."\}'\."""):
        inspect(InspectConfig(what="{city} {mask}", lm=lm("bert"), row=row))
