"""Tasks described by YAML files: trained, scored, answered."""

import copy
import functools
import io
import json
import pathlib
import re

import pytest
import tiny

from ptune.cli import main
from ptune.errors import ConfigError, DataError, StoreError, TemplateError, VerbalizerError
from ptune.experiments.answering import evaluate, predict
from ptune.experiments.options import EvaluateConfig, PredictConfig, ProbeConfig
from ptune.experiments.sweep.sweep_file import read_sweep
from ptune.experiments.train import train_task
from ptune.reports.schemas import Comparison, Run
from ptune.storage import prompt_folder, saved_prompt
from ptune.tasks import yaml_task
from ptune.tasks.rows.splits import read as read_splits
from ptune.tasks.schema import TaskConfig

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = ["great film", "terrible film", "the best", "the worst", "Vienna is great", "bad Rome"]
YAML = """
name: opinions
template: "{soft:2} {text|shorten} {soft:2} {mask}"
labels: {good: [great, best], bad: terrible film}
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
lm: ./lm
encoder: table
train: {epochs: 3, batch_size: 2}
out: trained
device: cpu
"""


@pytest.fixture
def task(tmp_path):
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"text": t, "label": ("good", "bad")[i % 2], "id": i}) + "\n"
            for i, t in enumerate(TEXTS)
        )
    )
    (tmp_path / "task.yaml").write_text(YAML)
    return tmp_path / "task.yaml"


def test_train_evaluate_predict(task, tmp_path, capsys):
    run = train_task.train(yaml_task.read(task))
    figures = run.figures
    assert set(figures) == {"accuracy"} and run.best["opinions"]["dev"] == max(
        evaluation["dev"] for evaluation in run.history["opinions"]
    )
    assert set(saved_prompt.read_saved_prompt(tmp_path / "trained").metrics) == {
        "dev accuracy",
        "dev loss",
        "test accuracy",
    }
    assert (
        evaluate.evaluate(
            EvaluateConfig(prompt=tmp_path / "trained", data=tmp_path / "rows.jsonl", device="cpu")
        )["accuracy"]
        == figures["accuracy"]
    )
    capsys.readouterr()
    predict.predict(
        PredictConfig(prompt=tmp_path / "trained", data=tmp_path / "rows.jsonl", device="cpu")
    )
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [a["id"] for a in answers] == list(range(6)) and all(
        abs(sum(a["ptune"]["scores"].values()) - 1) < 1e-5 for a in answers
    )
    assert sum(a["ptune"]["prediction"] == a["label"] for a in answers) / 6 == figures["accuracy"]
    predict.predict(
        PredictConfig(
            prompt=tmp_path / "trained",
            data=tmp_path / "rows.jsonl",
            out=tmp_path / "out.jsonl",
            top=1,
            device="cpu",
        )
    )
    assert [
        len(json.loads(line)["ptune"]["scores"])
        for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ] == [1] * 6


def test_predict_reads_standard_input_and_skips_what_is_bad_when_told(
    task, tmp_path, monkeypatch, capsys
):
    train_task.train(yaml_task.read(task))
    prompt, said = tmp_path / "trained", []
    lines = '{"text": "great"}\n{"text": \n{"x": 1}\n{"text": "bad"}\n'
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    capsys.readouterr()
    predict.predict(PredictConfig(prompt=prompt, skip_bad_lines=True, device="cpu"), said.append)
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == [
        "great",
        "bad",
    ]
    assert [line.split(":")[1] for line in said] == [
        " standard input, line 2",
        " standard input, line 3",
    ]
    assert "no field 'text'" in said[1]
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    with pytest.raises(DataError, match='line 2: not valid JSON .* such as {"text": "..."}'):
        predict.predict(PredictConfig(prompt=prompt, device="cpu"))
    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "great"}\n{"x": 1}\n'))
    with pytest.raises(
        DataError, match="standard input, line 2: .*no field 'text'.*--skip-bad-lines"
    ):
        predict.predict(PredictConfig(prompt=prompt, device="cpu"))


def test_fine_tuning_saves_the_lm_beside_the_prompt(task, tmp_path):
    config = yaml_task.read(task).model_copy(
        update={"method": "fine-tune", "template": "{text} is {mask}"}
    )
    figures = train_task.train(config).figures
    assert prompt_folder.load(tmp_path / "trained", device="cpu").lm.source.endswith("lm")
    assert (
        evaluate.evaluate(
            EvaluateConfig(prompt=tmp_path / "trained", data=tmp_path / "rows.jsonl", device="cpu")
        )["accuracy"]
        == figures["accuracy"]
    )
    with pytest.raises(StoreError, match="has other weights"):
        evaluate.evaluate(
            EvaluateConfig(
                prompt=tmp_path / "trained",
                data=tmp_path / "rows.jsonl",
                lm=str(tmp_path / "lm"),
                device="cpu",
            )
        )


def test_a_trained_folder_is_not_overwritten(task):
    train_task.train(yaml_task.read(task))
    with pytest.raises(ConfigError, match="holds a run of ptune train already"):
        train_task.train(yaml_task.read(task))


@pytest.mark.parametrize(
    "change, error, message",
    [
        (("template:", "tempalte:"), ConfigError, "no key 'tempalte'. Did you mean 'template'"),
        (
            ("epochs: 3", "epoch: 3"),
            ConfigError,
            "no key 'train.epoch'. Did you mean 'train.epochs'",
        ),
        (
            ("epochs: 3", "epochs: 0"),
            ConfigError,
            "train.epochs: Input should be greater than or equal to 1",
        ),
        (("name: opinions", ""), ConfigError, "the key 'name' is missing"),
        (("name: opinions", "name: ["), ConfigError, "is not valid YAML"),
        (
            ("labels: {good: [great, best], bad: terrible film}", ""),
            ConfigError,
            "a masked LM writes none",
        ),
        (("{mask}", ""), TemplateError, "no {mask}"),
        (("[great, best]", "[\u4e2d]"), VerbalizerError, "not in this LM's vocabulary"),
        (("[great, best]", "[]"), VerbalizerError, "has no word"),
        (
            ("out: trained", "epochs: 3"),
            ConfigError,
            "there is no key 'epochs' here; it belongs under train:",
        ),
        (("out: trained", "epoch: 3"), ConfigError, "Did you mean 'epochs' under train:?"),
        (("epochs: 3", "tempalte: x"), ConfigError, "Did you mean 'template' at the top level?"),
        (("epochs: 3", "foo: 3"), ConfigError, r"Known: 'optimiser', .*, 'context_mb'\.$"),
        (("out: trained", "from: x"), ConfigError, "in a file it is called 'continue_from'"),
        (
            ("{good: [great, best], bad: terrible film}", "[good, bad]"),
            ConfigError,
            "labels is a mapping of each label to its word, such as {good: good, bad: bad}",
        ),
        (
            ("train: rows.jsonl", "train: row.jsonl"),
            DataError,
            r"row.jsonl cannot be read: .* key data.train .* Did you mean '.*rows.jsonl'",
        ),
        (("train: rows.jsonl", "train: none.jsonl"), DataError, "none.jsonl cannot be read"),
        (
            ("{text|shorten}", "{texts}"),
            DataError,
            r"line 1 \(train\) has no field 'texts', which the task reads. Did you mean 'text'",
        ),
        (
            ("{mask}", "{maks}"),
            DataError,
            r"^The template has {maks}, and no row .* Did you mean {mask}\?[^\n]*$",
        ),
        (("data: {", "target: gold\ndata: {"), DataError, "'gold'"),
        (
            ("labels: {good: [great, best], bad: terrible film}", "vocabulary: none.txt"),
            DataError,
            "none.txt cannot be read",
        ),
        (("out: trained", "method: ptuning"), ConfigError, "Did you mean 'p-tuning'"),
        (
            ('template: "', 'template: {text}\ntitle: "'),
            ConfigError,
            r'template: \{text\} without quotation marks .* template: "\{text\} \{mask\}"',
        ),
        (
            ("out: trained", "patterns: [{text|shorten}]"),
            ConfigError,
            r"patterns.0: \{text\|shorten\} without quotation marks",
        ),
    ],
)
def test_faults_in_a_task(task, change, error, message):
    task.write_text(YAML.replace(*change))
    with pytest.raises(error, match=message):
        train_task.train(yaml_task.read(task))


def test_evaluation_runs_where_and_as_it_is_told(task, tmp_path):
    """Also where the LM is the one that the prompt names."""
    train_task.train(yaml_task.read(task))
    with pytest.raises(ConfigError, match="cuda:55"):
        evaluate.evaluate(
            EvaluateConfig(
                prompt=tmp_path / "trained", data=tmp_path / "rows.jsonl", device="cuda:55"
            )
        )


def test_a_missing_task_is_told_with_the_nearest_file_or_named_task(task, tmp_path):
    with pytest.raises(ConfigError, match=rf"Did you mean '{task}'\?$"):
        yaml_task.read(task.with_suffix(".yam"))
    with pytest.raises(ConfigError, match=r"No such file or directory\. Did you mean 'trec'\?$"):
        yaml_task.read(pathlib.Path("trek"))
    with pytest.raises(ConfigError, match="Tasks that come with ptune: agnews, .*, wsc"):
        yaml_task.read(tmp_path / "nowhere")


def test_a_folder_of_a_tasks_name_such_as_a_runs_hides_no_task(tmp_path, monkeypatch):
    for folder in ("trec", "classification/trec"):
        (tmp_path / folder).mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / "classification" / "trec" / f"{split}.jsonl").touch()
    (tmp_path / "sweep.yaml").write_text("tasks: trec\ngrid: {lm: [builtin]}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTUNE_DATA", str(tmp_path))
    assert yaml_task.read(pathlib.Path("trec")).name == "trec"
    assert read_sweep(tmp_path / "sweep.yaml")[0].parts.form.name == "trec"


def test_yaml_makes_no_objects(task, tmp_path):
    task.write_text(f"name: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n" + YAML)
    with pytest.raises(ConfigError, match="makes an object"):
        yaml_task.read(task)
    assert not (tmp_path / "made").exists()


def test_yes_and_no_are_words_and_numbers_are_labels(task):
    """YAML 1.1 would read both as booleans."""
    task.write_text(
        YAML.replace("{good: [great, best], bad: terrible film}", "{1: [Yes, on], 0: No}")
    )
    assert yaml_task.read(task).labels == {"1": ["Yes", "on"], "0": "No"}
    task.write_text(YAML.replace("out:", "resume: true\nout:"))
    assert yaml_task.read(task).resume is True


def test_labels_are_the_text_that_is_written(task):
    written = "{true: 010, 0: [7:30, 1.10], null: 2020-11-28}"
    task.write_text(YAML.replace("{good: [great, best], bad: terrible film}", written))
    assert yaml_task.read(task).labels == {
        "true": "010",
        "0": ["7:30", "1.10"],
        "null": "2020-11-28",
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ("name: a\nname: b", "line 2, column 1: the key 'name' stands twice"),
        ("name: 2020-13-45\nseed: !!int x", "no key 'seed'"),
        ("name: a\nmax_length: !!int x", "max_length: Input should be a valid integer"),
        (f"name: a\nmax_length: {'1' * 5000}", "max_length: Unable to parse"),
        ("name: a\nmetrics: accuracyy", "metrics: write a list, such as [accuracyy]."),
        ("name: a\npatterns: x {mask}", "patterns: write a list, such as [x {mask}]."),
        ("- a", "and holds a list"),
        ("", "and holds nothing"),
        ("name: a\ntrain: {learning_rate: .inf}", "train.learning_rate"),
        (
            "name: a\ntrain: {learning_rate: inf}",
            "train.learning_rate: Input should be a finite number",
        ),
        (f"name: a\ntrain: {{seed: {2**63}}}", "train.seed: Input should be less than"),
    ],
)
def test_yaml_that_no_task_can_be(task, text, message):
    task.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        yaml_task.read(task)
    assert len(str(error.value)) < 400


def test_paths_are_taken_from_the_files_folder(task, tmp_path):
    config = yaml_task.read(task)
    assert (
        config.data.train == tmp_path / "rows.jsonl"
        and config.out == tmp_path / "trained"
        and config.lm == str(tmp_path / "lm")
    )


EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
COMPARED = [path for path in EXAMPLES if path.read_text().startswith("# ptune compare examples/")]
WRITING = [path for path in EXAMPLES if "max_new_tokens" in path.read_text()]


@pytest.mark.parametrize("path", WRITING, ids=lambda p: p.stem)
def test_examples_that_write_run_as_they_stand_but_for_the_lm(path, tmp_path, request, monkeypatch):
    """On a tiny LM in place of the hub's, and on a few rows."""
    if "PTUNE_DATA" in path.read_text():
        monkeypatch.setenv("PTUNE_DATA", str(request.getfixturevalue("data").resolve()))
    network, tokenizer = tiny.tiny("t5" if "mask" not in path.read_text() else "opt")
    network.config.max_position_embeddings = 512
    network = type(network)(network.config)
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    assert path.read_text().startswith(f"# ptune train examples/{path.name} --out ")
    take = (
        ["--data.take.train", "6", "--data.take.dev", "2", "--data.take.test", "3"]
        if "take:" in path.read_text()
        else []
    )
    main.main(
        [
            "train",
            str(path),
            "--lm",
            str(tmp_path / "lm"),
            "--out",
            str(tmp_path / "out"),
            "--train.epochs",
            "1",
            "--decoding.max-new-tokens",
            "5",
            *take,
        ]
    )
    run = Run.model_validate_json((tmp_path / "out" / "run.json").read_text())
    assert (
        run.rows["test"] in (3, 6, 20, 68)
        and len(run.outputs) == run.rows["test"]
        and "rouge-l" in run.figures
    )


@pytest.mark.parametrize("path", COMPARED, ids=lambda p: p.stem)
def test_examples_of_comparisons_run_as_their_first_line_says_but_for_the_lm(
    path, data, tmp_path, monkeypatch
):
    """On a tiny LM, one step each, with few unlabelled rows."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PTUNE_DATA", str(data.resolve()))
    text = path.read_text()
    few = {"unlabeled: 500": "unlabeled: 20", "distil: {steps: 2000}": "distil: {steps: 1}"}
    assert all(much in text for much in few)
    shortened = functools.reduce(lambda text, much: text.replace(much, few[much]), few, text)
    (tmp_path / path.name).write_text(shortened)
    network, tokenizer = tiny.tiny("bert")
    tokenizer = copy.deepcopy(tokenizer)  # the other is that of all tests
    network.config.max_position_embeddings = tokenizer.model_max_length = 512
    network = type(network)(network.config)
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    command = (
        text.splitlines()[0]
        .removeprefix("# ptune ")
        .replace("--steps 60", "--steps 1 --test 6 --shots 4 --seeds 1")
        .replace(f"examples/{path.name}", str(tmp_path / path.name))
        .split()
    )
    main.main(
        [*command, "--lm", str(tmp_path / "lm"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    )
    cells = Comparison.model_validate_json((tmp_path / "out" / "results.json").read_text()).cells
    assert [cell.method for cell in cells] == [
        "majority",
        "tf-idf",
        "linear-probe",
        "manual",
        "head",
        "manual+fine-tune",
        "pet",
        "ipet",
    ] and all(cell.mean is not None for cell in cells)


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path not in [*WRITING, *COMPARED]], ids=lambda p: p.stem
)
def test_examples_run_as_their_first_line_says(path, tmp_path):
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# ptune train examples/{path.name} --out ")
    config = yaml_task.read(path)
    config = config.model_copy(
        update={"out": tmp_path, "train": config.train.model_copy(update={"epochs": 1})}
    )
    assert isinstance(config, TaskConfig)
    figures = train_task.train(config).figures
    assert figures["accuracy"] > 0.02


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_an_ensemble_is_its_members_in_one_batch(task, tmp_path, capsys, combine):
    config = yaml_task.read(task).model_copy(update={"prompts": 3, "combine": combine})
    run = train_task.train(config)
    folders = prompt_folder.folders_in(tmp_path / "trained")
    assert len(folders) == 3 and set(run.history) == {"opinions/1", "opinions/2", "opinions/3"}
    assert set(run.figures) == {
        "accuracy",
        "accuracy of the best member",
        "mean accuracy of the members",
    }
    rows = [{"text": t} for t in TEXTS]
    members = [prompt_folder.load(folder, device="cpu").predict(rows) for folder in folders]
    assert len({str(member) for member in members}) == 3, "members that answer alike show nothing"
    capsys.readouterr()
    predict.predict(
        PredictConfig(prompt=tmp_path / "trained", data=tmp_path / "rows.jsonl", device="cpu")
    )
    for number, answer in enumerate(
        json.loads(line) for line in capsys.readouterr().out.splitlines()
    ):
        of_members = [member[number] for member in members]
        shares = {
            label: sum(
                o["scores"][label] if combine == "mean" else o["prediction"] == label
                for o in of_members
            )
            / 3
            for label in ("good", "bad")
        }
        assert all(
            abs(answer["ptune"]["scores"][label] - share) < 1e-3 for label, share in shares.items()
        )
        assert answer["ptune"]["prediction"] == max(shares, key=shares.get)
    with pytest.raises(
        ConfigError, match="2 prompts of different seeds go with a method that trains prompts"
    ):
        train_task.train(
            config.model_copy(update={"prompts": 2, "method": "manual", "out": tmp_path / "other"})
        )


def test_pet_and_a_head_from_the_command_line(task, tmp_path, capsys):
    """The classifier that PET leaves behind is a prompt folder like others: it answers, and a
    second start leaves it alone."""
    text = YAML.replace(
        'template: "{soft:2} {text|shorten} {soft:2} {mask}"',
        'patterns: ["{text} {mask}", "{mask} , {text}"]',
    )
    text = text.replace("test: rows.jsonl}", "test: rows.jsonl, unlabeled: rows.jsonl}")
    task.write_text(text + "pet: {distil: {steps: 2, epochs: 1, lm_learning_rate: 0.001}}\n")
    run = [
        "train",
        str(task),
        "--method",
        "pet",
        "--train.steps",
        "2",
        "--out",
        str(tmp_path / "pet"),
    ]
    main.main(run)
    printed = capsys.readouterr().out
    assert "generation 0: 6 rows, weight" in printed and "Together on dev" in printed
    main.main(
        [
            "predict",
            str(tmp_path / "pet"),
            "--data",
            str(tmp_path / "rows.jsonl"),
            "--device",
            "cpu",
        ]
    )
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 6 and {answer["ptune"]["prediction"] for answer in answers} <= {
        "good",
        "bad",
    }
    assert set(answers[0]["ptune"]["scores"]) == {"good", "bad"}
    run_record = Run.model_validate_json((tmp_path / "pet" / "run.json").read_text())
    main.main(
        [
            "evaluate",
            str(tmp_path / "pet"),
            "--data",
            str(tmp_path / "rows.jsonl"),
            "--metrics",
            "accuracy",
            "f1-macro",
            "--device",
            "cpu",
        ]
    )
    assert f"accuracy {run_record.figures['accuracy']:.4f}, f1-macro" in capsys.readouterr().out
    main.main([*run, "--resume"])
    assert "is finished" in capsys.readouterr().out
    main.main(
        [
            "train",
            str(task),
            "--method",
            "head",
            "--train.epochs",
            "1",
            "--out",
            str(tmp_path / "head"),
        ]
    )
    assert (
        prompt_folder.load(tmp_path / "head", device="cpu").tasks[0].task.template.source
        == "{text|shorten}"
    )


def test_patterns_and_verbalizers_are_an_ensemble_weighted_by_dev(task, tmp_path):
    task.write_text(
        YAML.replace(
            'template: "{soft:2} {text|shorten} {soft:2} {mask}"',
            'patterns: ["{text} {mask}", "{mask} , {text}"]\nverbalizers: [{good: great, bad: '
            "bad}]\ncombine: weighted",
        )
    )
    for method, members in (("manual", 4), ("prompt-tuning-adamw", 4)):
        config = yaml_task.read(task).model_copy(
            update={"method": method, "out": tmp_path / method}
        )
        run = train_task.train(config)
        model = prompt_folder.load(prompt_folder.folders_in(tmp_path / method), device="cpu")
        assert len(model.tasks) == members and {"accuracy of the best member"} <= set(run.figures)
        weights = [fitted.weight for fitted in model.tasks]
        assert len(set(weights)) > 1 and all(0 <= weight <= 1 for weight in weights)
        if method != "manual":
            assert sorted(weights) == sorted(best["dev"] for best in run.best.values())


def test_calibration_and_word_lists_from_the_file(task, tmp_path):
    (tmp_path / "words.txt").write_text("good,the\nbad,is\n")
    task.write_text(
        YAML.replace("{soft:2} ", "").replace("terrible film", "worst")
        + "method: manual\nreading: {calibration: contextual, words: words.txt}\n"
    )
    train_task.train(yaml_task.read(task))
    loaded = prompt_folder.load(tmp_path / "trained", device="cpu").tasks[0]
    assert (
        loaded.task.verbalizer.words == (("great", "best", "good", "the"), ("worst", "bad", "is"))
        and len(loaded.offset) == 7
    )
    (tmp_path / "words.txt").write_text("good\n")
    with pytest.raises(ConfigError, match="has 1 lines, and the task 2 labels"):
        train_task.train(yaml_task.read(task).model_copy(update={"out": tmp_path / "other"}))


@pytest.mark.parametrize(
    "given, message",
    [
        ("{form: e2e, take: {train: 3}}", "data: take speaks of train, of which no file is given."),
        (
            "{train: rows.jsonl, shots: none}",
            "data.shots: Input should be a valid integer, unable to parse string as an integer "
            "(it is 'none').",
        ),
        (
            "{train: [a, b]}",
            "data.train: Input is not a valid path for <class 'pathlib.Path'> (it is a list).",
        ),
        (
            "{take: {train: 0}}",
            "data.take.train: Input should be greater than or equal to 1 (it is '0').",
        ),
    ],
)
def test_a_fault_of_the_data_is_told_without_what_was_parsed(task, given, message):
    task.write_text(YAML.replace("{train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}", given))
    with pytest.raises(ConfigError) as fault:
        yaml_task.read(task)
    assert str(fault.value) == f"{task}: {message}"


@pytest.mark.parametrize("source", ["trec", "boolq", "examples/e2e-prefix.yaml"])
def test_without_the_data_it_is_told_how_to_get_them(source, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PTUNE_DATA", raising=False)
    config = yaml_task.read(pathlib.Path(source))
    with pytest.raises(
        DataError,
        match=r"PTUNE_DATA is not set: export PTUNE_DATA=FOLDER .* or name a file of yours "
        r".*https://github.com/",
    ):
        read_splits(config.data, config.target, tuple(config.labels))
    monkeypatch.setenv("PTUNE_DATA", str(tmp_path))
    config = yaml_task.read(pathlib.Path(source))
    with pytest.raises(
        DataError, match=r"There is no file .* with the train rows.*https://github.com/"
    ):
        read_splits(config.data, config.target, tuple(config.labels))


def test_no_file_of_the_project_points_outside_it():
    for path in [*ROOT.glob("examples/*.yaml"), *yaml_task.NAMED.glob("*.yaml")]:
        assert "../.." not in path.read_text(), path


def test_a_path_from_the_users_home(tmp_path, monkeypatch):
    """In a task's file, among options, and in lists; another name that begins so is a name."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PTUNE_PLACE", "~/data")
    (tmp_path / "t.yaml").write_text(
        "name: t\ntemplate: '{x} {mask}'\nlabels: {a: yes, b: no}\nout: ~/out\nlm: ~/lm\n"
        "data: {train: ~/train.csv, dev: '${PTUNE_PLACE}/dev.csv', test: ~old.csv}\n"
    )
    task, home = yaml_task.read(tmp_path / "t.yaml"), tmp_path / "home"
    assert (task.out, task.lm) == (home / "out", str(home / "lm"))
    assert (task.data.train, task.data.dev) == (home / "train.csv", home / "data" / "dev.csv")
    assert task.data.test == tmp_path / "~old.csv"
    predict = PredictConfig(prompt="~/out", data="~/rows.csv", out="~/answers.csv")
    assert (predict.prompt, predict.data) == (home / "out", str(home / "rows.csv"))
    assert predict.out == home / "answers.csv"
    assert ProbeConfig(corpus=["~/a.txt", "b.txt"]).corpus == [
        home / "a.txt",
        pathlib.Path("b.txt"),
    ]
