"""Tasks whose answer is text, from the YAML file to the report: training, users with prompts of
their own, writing, figures."""

import io
import json
import pathlib

import pytest
import tiny
import torch

from ptune.cli import main
from ptune.data.rows import read_rows
from ptune.errors import ConfigError, DataError, StoreError, TemplateError
from ptune.experiments import report_runs
from ptune.experiments.answering import evaluate, generate
from ptune.experiments.options import EvaluateConfig, GenerateConfig
from ptune.experiments.train import train_model, train_task
from ptune.reports.schemas import Run
from ptune.settings import DecodingConfig, DecodingOverrides
from ptune.storage import prompt_folder
from ptune.tasks import yaml_task
from ptune.tasks.judging import judge_texts
from ptune.tasks.resolved import resolve
from ptune.tasks.rows.splits import by_prompt
from ptune.tasks.schema import TaskConfig

CITIES = {"Austria": "Vienna", "France": "Paris", "Italy": "Rome", "Germany": "Berlin"}
ROWS = [
    {
        "x": country,
        "y": [f"{city} is great", f"It is {city}"],
        "user": ("anna", "bob/../b")[i % 2],
        "part": "ab"[i % 2],
    }
    for i, (country, city) in enumerate(CITIES.items())
]
YAML = """
name: cities
template: "{prefix:2} {x|shorten} is {mask}"
target: y
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
lm: ./lm
method: prefix-tuning
prefix: {hidden: 4}
metrics: [bleu, rouge-l, ter]
train: {epochs: 2, batch_size: 2, learning_rate: 0.05}
decoding: {max_new_tokens: 6}
out: trained
device: cpu
"""


@pytest.fixture(params=["gpt2", "t5"])
def task(tmp_path, request):
    network, tokenizer = tiny.tiny(request.param)
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "task.yaml").write_text(
        YAML if request.param == "gpt2" else YAML.replace(" is {mask}", " =")
    )
    return tmp_path / "task.yaml"


def change(config: TaskConfig, **more) -> TaskConfig:
    return TaskConfig.model_validate({**config.model_dump(), **more})


def test_train_evaluate_generate(task, tmp_path, capsys):
    run = train_task.train(change(yaml_task.read(task), parts="part"))
    assert (
        set(run.figures) == {"bleu", "rouge-l", "ter"}
        and set(run.parts) == {"a", "b"}
        and len(run.outputs) == 4
    )
    assert (
        Run.model_validate_json((tmp_path / "trained" / "run.json").read_text()) == run
        and (tmp_path / "trained" / "report.html").exists()
    )
    losses = [evaluation["dev_loss"] for evaluation in run.history["cities"]]
    assert (
        len(losses) == 2
        and losses[1] < losses[0]
        and run.kept_parameters < run.trained_parameters < run.lm_parameters
    )
    model = prompt_folder.load(tmp_path / "trained")
    rows = read_rows(tmp_path / "rows.jsonl")
    lengths = [len(example.answer) for example in model.encode(0, rows)]
    expected = sum(lengths) / len(lengths)
    assert run.answer_tokens == {"cities": {"train": expected, "dev": expected}}
    again = evaluate.evaluate(
        EvaluateConfig(
            prompt=tmp_path / "trained",
            data=tmp_path / "rows.jsonl",
            metrics=("bleu", "ter"),
            device="cpu",
        )
    )
    assert again == {"bleu": run.figures["bleu"], "ter": run.figures["ter"], "rows": 4}
    capsys.readouterr()
    generate.generate(
        GenerateConfig(prompt=tmp_path / "trained", data=tmp_path / "rows.jsonl", device="cpu")
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["ptune"]["text"] for line in lines] == [
        output.text for output in run.outputs
    ] and [line["x"] for line in lines] == list(CITIES)
    generate.generate(
        GenerateConfig(
            prompt=tmp_path / "trained",
            data=tmp_path / "rows.jsonl",
            out=tmp_path / "out.jsonl",
            device="cpu",
            decoding=DecodingOverrides(beams=2, texts=2),
        )
    )
    assert all(
        len(json.loads(line)["ptune"]["texts"]) == 2
        for line in (tmp_path / "out.jsonl").read_text().splitlines()
    )
    capsys.readouterr()
    arguments = [
        "generate",
        str(tmp_path / "trained"),
        "--data",
        str(tmp_path / "rows.jsonl"),
        "--device",
        "cpu",
    ]
    main.main([*arguments, "--decoding.max-new-tokens", "1"])
    shorter = [json.loads(line)["ptune"]["text"] for line in capsys.readouterr().out.splitlines()]
    assert sum(map(len, shorter)) < sum(len(line["ptune"]["text"]) for line in lines)
    with pytest.raises(SystemExit):
        main.main([*arguments, "--decoding.texts", "3"])
    assert "3 texts a row need sampling" in capsys.readouterr().err


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:`past_key_values` is deprecated:FutureWarning",  # PEFT's own, from transformers 5.24 on
    "ignore:Both `past_key_values` and `cache` are set:FutureWarning",
)
def test_peft_loads_a_trained_folder_as_it_is(tmp_path, task):
    from peft import PeftModel

    train_task.train(yaml_task.read(task))
    causal = "mask" in yaml_task.read(task).template
    assert (tmp_path / "trained" / "adapter_config.json").exists() == causal, (
        "PEFT has no prefix for an encoder"
    )
    if causal:
        network, _ = tiny.tiny("gpt2")
        with torch.no_grad():
            logits = PeftModel.from_pretrained(network, tmp_path / "trained")(
                input_ids=torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 3)
            ).logits
        plain, _ = tiny.tiny("gpt2")
        assert logits.shape[-1] == plain.config.vocab_size and not torch.allclose(
            logits, plain(torch.tensor([[5, 6, 7]])).logits
        )


def test_a_finished_run_is_not_run_again(task, tmp_path):
    run, said = train_task.train(yaml_task.read(task)), []
    before = (tmp_path / "trained" / "prompt.safetensors").read_bytes()
    assert (
        train_task.train(change(yaml_task.read(task), resume=True), said.append) == run
        and "is finished" in said[0]
    )
    assert (tmp_path / "trained" / "prompt.safetensors").read_bytes() == before
    with pytest.raises(ConfigError, match="go on with --resume, or choose another"):
        train_task.train(yaml_task.read(task))


def test_what_cannot_be_written_for_is_skipped_when_told(task, tmp_path, monkeypatch, capsys):
    train_task.train(yaml_task.read(task))
    monkeypatch.setattr("sys.stdin", io.StringIO('{"x": "Austria"}\n{"z": 1}\n'))
    capsys.readouterr()
    said = []
    generate.generate(
        GenerateConfig(prompt=tmp_path / "trained", skip_bad_lines=True, device="cpu"), said.append
    )
    assert len(capsys.readouterr().out.splitlines()) == 1 and "standard input, line 2" in said[0]
    with pytest.raises(StoreError, match="There is no folder .*should hold a saved prompt"):
        generate.generate(GenerateConfig(prompt=tmp_path / "nothing", device="cpu"))


def test_every_method_trains_and_stands_in_one_table(task, tmp_path, capsys):
    config, causal = yaml_task.read(task), "mask" in yaml_task.read(task).template
    behind = "is {mask}" if causal else "="
    tasks = {
        "prefix": {},
        "direct": {"prefix": {"hidden": 0, "init": "the capital of"}},
        "zeros": {"prefix": {"hidden": 4, "init": "zeros"}},
        "soft": {"method": "prompt-tuning", "template": "{soft:3} {x} " + behind},
        "tuned": {"method": "fine-tune", "template": "{x} " + behind},
        "adamw": {
            "method": "prompt-tuning-adamw",
            "template": "{soft:3} {x} " + behind,
            "init": "random",
        },
        "manual": {"method": "manual", "template": "{x} " + behind},
        "both": {"template": "{prefix:2} {soft:2} {x} " + behind},
    }
    tasks |= (
        {"infix": {"template": "{x} {prefix:2} is {mask}", "title": "Infix"}}
        if causal
        else {"decoder": {"prefix": {"attentions": ["decoder"]}}}
    )
    runs = {
        name: train_task.train(change(config, out=tmp_path / name, **more))
        for name, more in tasks.items()
    }
    assert runs["manual"].trained_parameters == 0 and runs["manual"].history == {}
    assert (
        runs["tuned"].trained_parameters
        == runs["tuned"].kept_parameters
        == runs["tuned"].lm_parameters
    )
    assert (
        runs["both"].kept_parameters
        == runs["prefix"].kept_parameters + runs["soft"].kept_parameters * 2 // 3
    )
    for name, run in runs.items():  # what was saved writes what training wrote
        model = prompt_folder.load(tmp_path / name, device="cpu")
        judged = judge_texts.judge(model, ROWS, config.decoding, metrics=["bleu"])
        assert [o.text for o in judged.outputs] == [o.text for o in run.outputs], name
    report_runs.report([tmp_path / name for name in tasks], tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Prompt Tuning" in page and ("Infix" in page) == causal


def test_dev_is_looked_at_by_what_is_written(task, tmp_path):
    run = train_task.train(
        change(
            yaml_task.read(task),
            stop_by="rouge-l",
            train={"epochs": 1, "evaluate_every": 1, "batch_size": 2},
        )
    )
    looks = run.history["cities"]
    assert (
        len(looks) == 4
        and run.dev_score == "rouge-l"
        and all(0 <= evaluation["dev"] <= 100 for evaluation in looks)
    )
    assert run.best["cities"]["dev"] == max(evaluation["dev"] for evaluation in looks)
    with pytest.raises(ConfigError, match="no metric 'blue'. Did you mean 'bleu'"):
        train_task.train(change(yaml_task.read(task), stop_by="blue", out=tmp_path / "other"))


def built(config, lm, rows):
    """The untrained model of a task, and its tasks."""
    parts = resolve.training(config)
    return train_model.build(
        lm,
        rows,
        form=parts.form,
        method=parts.method,
        learning=parts.learning,
        output=parts.output,
    )


def test_of_a_figure_that_should_be_low_less_is_more(task, monkeypatch):
    from ptune.lm.language_model import LanguageModel

    model, _ = built(
        yaml_task.read(task),
        LanguageModel.load(yaml_task.read(task).lm, device="cpu"),
        {None: ROWS},
    )
    for text, figure in (("Vienna is great", 0.0), ("Vienna is", -100 / 3)):
        monkeypatch.setattr(judge_texts, "write", lambda *_, text=text: [text])
        assert judge_texts.dev_score("ter", DecodingConfig(max_new_tokens=6))(
            model, 0, ROWS[:1]
        ) == pytest.approx(figure)
        assert (
            judge_texts.dev_score("rouge-l", DecodingConfig(max_new_tokens=6))(model, 0, ROWS[:1])
            > 79
        )
    assert judge_texts.dev_score("loss", DecodingConfig()) is None


def users(task, tmp_path, **more) -> Run:
    return train_task.train(change(yaml_task.read(task), prompt_by="user", **more))


def test_a_prompt_for_each_user(task, tmp_path, capsys):
    run = users(task, tmp_path)
    folders = sorted(folder.name for folder in (tmp_path / "trained" / "prompts").iterdir())
    assert len(folders) == 2 and folders == ["anna", "bob%2f%2e%2e%2fb"], "a user's name is no path"
    assert set(run.history) == {"cities/anna", "cities/bob/../b"}
    capsys.readouterr()
    generate.generate(
        GenerateConfig(prompt=tmp_path / "trained", data=tmp_path / "rows.jsonl", device="cpu")
    )
    texts = [json.loads(line)["ptune"]["text"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(texts) == sorted(output.text for output in run.outputs)
    with pytest.raises(DataError, match="The row's user is 'ana', and there is no prompt for it.$"):
        prompt_folder.load(prompt_folder.folders_in(tmp_path / "trained"), device="cpu").tasks_for(
            {"x": "Italy", "user": "ana"}
        )
    with pytest.raises(DataError, match="no field 'user'"):
        prompt_folder.load(prompt_folder.folders_in(tmp_path / "trained"), device="cpu").tasks_for(
            {"x": "Italy"}
        )


def test_users_are_added_continued_and_deleted_alone(task, tmp_path):
    users(task, tmp_path)

    def stored() -> dict[str, bytes]:
        return {
            file.parent.name: file.read_bytes()
            for file in sorted((tmp_path / "trained" / "prompts").glob("*/prompt.safetensors"))
        }

    before = stored()
    with pytest.raises(ConfigError, match="name those to train with --only"):
        users(task, tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"begun with another smoothing .*, decoding.max_new_tokens .*: go on with the same",
    ):
        users(task, tmp_path, only=["anna"], smoothing=0.1, decoding={"max_new_tokens": 5})
    assert stored() == before
    users(task, tmp_path, only=["anna"])
    after = stored()
    assert [before[name] == after[name] for name in before] == [False, True], (
        "anna goes on, the other stays as it was"
    )
    with open(tmp_path / "rows.jsonl", "a") as stream:
        stream.write(
            json.dumps({"x": "Austria", "y": "It was Vienna", "user": "carl", "part": "a"}) + "\n"
        )
    users(task, tmp_path, only=["carl"])
    assert len(stored()) == 3 and all(stored()[name] == after[name] for name in after)
    for file in (tmp_path / "trained" / "prompts").glob("anna/*"):
        file.unlink()
    model = prompt_folder.load(prompt_folder.folders_in(tmp_path / "trained"), device="cpu")
    assert {fitted.task.by[1] for fitted in model.tasks} == {"bob/../b", "carl"}
    with pytest.raises(ConfigError, match="No training row has user 'dora'"):
        users(task, tmp_path, only=["dora"])


def test_a_fault_is_told_with_its_own_row(task, tmp_path):
    rows = [*ROWS, {"x": " ", "y": "Rome", "user": "anna", "part": "a"}]
    train_task.train(change(yaml_task.read(task), prompt_by="user"))
    model = prompt_folder.load(prompt_folder.folders_in(tmp_path / "trained"), device="cpu")
    with pytest.raises(TemplateError, match="Row 5 of cities/anna: The row is empty"):
        judge_texts.judge(model, rows, DecodingConfig(max_new_tokens=3), metrics=["bleu"])
    with pytest.raises(
        DataError, match="Row 5: The row's user is 'zoe', and there is no prompt for it"
    ):
        judge_texts.judge(
            model,
            [*ROWS, {**ROWS[0], "user": "zoe"}],
            DecodingConfig(max_new_tokens=3),
            metrics=["bleu"],
        )


def test_a_users_gradient_comes_from_his_own_rows_alone(task):
    config = change(yaml_task.read(task), prompt_by="user")
    from ptune.lm.language_model import LanguageModel

    model, tasks = built(
        config, LanguageModel.load(config.lm, device="cpu"), by_prompt(ROWS, "user", "train")
    )
    batch = [example for row in ROWS for example in model.encode(tasks[row["user"]], [row])]
    rows_of_anna = [
        number for number, row in enumerate(ROWS) for _ in row["y"] if row["user"] == "anna"
    ]
    losses = model.losses(batch)
    mine, others = (
        model.bank.parameters_of(model.tasks[tasks[name]].prompt) for name in ("anna", "bob/../b")
    )
    assert all(
        gradient.abs().max() > 0
        for gradient in torch.autograd.grad(losses[:1].sum(), mine, retain_graph=True)
    )
    gradients = torch.autograd.grad(losses[:1].sum(), others, retain_graph=True)
    assert rows_of_anna and all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"prompt_by": "nobody"}, r"rows.jsonl, line 1 \(train\) has no field 'nobody'"),
        ({"prompt_by": "user", "method": "fine-tune"}, "trains none"),
        ({"only": ["anna"]}, "only names values of prompt_by"),
        ({"parts": "prt"}, "no field 'prt'"),
        ({"metrics": ["blue"]}, "Did you mean 'bleu'"),
        (
            {
                "prefix": {"attentions": ["cross"], "hidden": 0},
                "template": "{prefix:2} {x} is {mask}",
            },
            "no attention 'cross'",
        ),
        ({"target": "z"}, "field 'z'"),
    ],
)
def test_faults_of_a_task(tmp_path, more, message):
    network, tokenizer = tiny.tiny("gpt2")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "task.yaml").write_text(YAML)
    with pytest.raises((ConfigError, DataError), match=message):
        train_task.train(change(yaml_task.read(tmp_path / "task.yaml"), **more))


def test_paths_from_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "task.yaml"
    path.write_text(
        'name: t\ntemplate: "{x} {mask}"\ndata: {train: "${PTUNE_HERE}/a.jsonl", dev: '
        '"${PTUNE_NOT_SET:-../b}/c.jsonl"}\n'
    )
    with pytest.raises(ConfigError, match="PTUNE_HERE}, which is not set"):
        yaml_task.read(path)
    monkeypatch.setenv("PTUNE_HERE", "/data")
    data = yaml_task.read(path).data
    assert data.train == pathlib.Path("/data/a.jsonl") and data.dev == tmp_path / "../b/c.jsonl"


@pytest.mark.parametrize(
    "line",
    ['lm: "hub/${SECRET}"', 'data: {train: "${SECRET:-x}/a.jsonl"}', 'data: {test: "${HOME}"}'],
)
def test_other_variables_of_the_environment_are_not_read(line, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "task.yaml").write_text(f'name: t\ntemplate: "{{x}} {{mask}}"\n{line}\n')
    with pytest.raises(ConfigError, match="only variables whose name begins with PTUNE_") as error:
        yaml_task.read(tmp_path / "task.yaml")
    assert "hunter2" not in str(error.value)
