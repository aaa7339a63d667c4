"""Saved prompts at work: they answer as what was trained, and a bad row costs no good one."""

import csv
import io
import json
import pathlib
from dataclasses import replace

import pytest
import tiny
import torch
from pydantic import BaseModel

from ptune.errors import ConfigError, DataError, PtuneError, StoreError
from ptune.experiments.answering import evaluate, generate, predict
from ptune.experiments.options import EvaluateConfig, GenerateConfig, PredictConfig
from ptune.experiments.train import train_task
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import labelled as figures_of
from ptune.model.prompt_model import PromptModel
from ptune.model.running import generate as generate_module
from ptune.model.running.generate import write_all
from ptune.settings import DecodingOverrides
from ptune.storage import prompt_folder
from ptune.tasks import model_task, task_members
from ptune.tasks.judging import judge_labels, judge_texts
from ptune.tasks.resolved import resolve
from ptune.tasks.schema import TaskConfig

pytestmark = pytest.mark.usefixtures("kept_lms")
FAR = "in the east of Austria on the Danube and in the west of Italy " * 2
TEXTS = [
    "great film",
    "terrible film",
    "the best",
    "the worst",
    "Vienna is great",
    "bad Rome",
    "is it great",
    "is it bad",
]
ROWS = [
    {
        "text": f"{text} {FAR}",
        "other": "a film",
        "label": ("good", "bad")[i % 2],
        "y": ["It is great", "great"],
        "user": "ab"[i // 4],
        "part": "pq"[i % 2],
    }
    for i, text in enumerate(TEXTS)
]
LABELS = {
    "name": "t",
    "template": "{soft:2} {text|shorten} {mask}",
    "labels": {"good": ["great", "best"], "bad": "bad film"},
    "encoder": "table",
    "train": {"epochs": 1, "batch_size": 4, "learning_rate": 0.05},
    "device": "cpu",
}
WRITES = {
    "name": "t",
    "template": "{prefix:2} {text|shorten} is {mask}",
    "target": "y",
    "method": "prefix-tuning",
    "prefix": {"hidden": 0},
    "train": {"epochs": 1, "batch_size": 4},
    "decoding": {"max_new_tokens": 4},
    "metrics": ["bleu"],
    "device": "cpu",
}

BOTH = {**WRITES, "template": "{prefix:2} {text|shorten} ="}
# What each field of a task is set to, to see that a saved prompt keeps it; or why it is nothing
# that an answer hangs on.
NOT_OF_ANSWERS = {
    "name",
    "title",
    "version",
    "out",
    "resume",
    "lm_sharding",
    "log",
    "device",  # names, places
    "method",
    "tune",
    "only",
    "prompts",
    "stop_by",  # what is trained, and when it ends
    "verbalizers",
    "patterns",
    "code",
    "preset",  # by which template, patterns and choices are taken
    "relations",  # members of an ensemble, each saved as a task of its own (below)
    "allow_unknown",
    "minutes",  # how long methods are tried
    "reading.temperature",  # of what is trained (tests/model/test_trusted_answers.py)
    "data.source",
    "continue_from",
    "transfer",  # where rows are to be had, and where a prompt begins
    "lm",
    "dtype",  # kept with the LM (test_saving)
    "data.train",
    "data.dev",
    "data.test",
    "data.unlabeled",
    "data.halve_dev",
    "data.take",
    "data.shots",
    "data.seed",
    "data.references",
    "data.dataset",
    "data.config",
    "data.revision",
    "data.split",
    "data.streaming",
    "chat",  # a template under another key
    # of words and passages: test_train_words.py and test_train_extractions.py
    "tag",
    "reading.pieces",
    "reading.scheme",
    "extract",
    "reading.longest",
    "reading.no_answer",
}  # which rows
TRAINING = ("train.", "pet.")
CHANGES: dict[str, tuple[dict, dict]] = {
    "template": (LABELS, {"template": "{soft:3} {text|shorten} {mask}"}),
    "visibility": (LABELS, {"visibility": [{"hide": ["soft"], "from": ["fields"]}]}),
    "labels": (LABELS, {"labels": {"bad": "terrible", "good": "great"}}),
    "choices": (LABELS, {"labels": {}, "choices": ["text", "other"]}),
    "span": (LABELS, {"labels": {}, "span": "other"}),
    "vocabulary": (LABELS, {"labels": {}, "vocabulary": "words.txt"}),
    "target": (LABELS, {"target": "other"}),
    "prompt_by": (LABELS, {"prompt_by": "user"}),
    "combine": (LABELS, {"combine": "vote"}),
    "neighbours": (LABELS, {"combine": "neighbours", "neighbours": 3}),
    "encoder": (LABELS, {"encoder": "mlp"}),
    "init": (LABELS, {"init": "great film"}),
    "loss": (LABELS, {"loss": "vocabulary", "labels": {"good": "great", "bad": "terrible"}}),
    "smoothing": (WRITES, {"smoothing": 0.1}),
    "target_length": (WRITES, {"target_length": 2}),
    "metrics": (LABELS, {"metrics": ["f1-macro"]}),
    "parts": (WRITES, {"parts": "part"}),
    "metric_words": (WRITES, {"metric_words": "char"}),
    "max_length": (LABELS, {"max_length": 12}),
    "reading.by": (LABELS, {"reading": {"by": "soft"}}),
    "reading.aggregate": (LABELS, {"reading": {"aggregate": "vote"}}),
    "reading.order": (LABELS, {"reading": {"order": "left-to-right"}}),
    "reading.calibration": (LABELS, {"reading": {"calibration": "contextual"}}),
    "reading.length": (LABELS, {"reading": {"length": "sum"}}),
    "reading.domain": (LABELS, {"reading": {"domain": "{soft:2} {mask}"}}),
    "reading.swap": (LABELS, {"reading": {"swap": ["text", "other"]}}),
    "reading.pooling": (
        LABELS,
        {"template": "{soft:3} {text}", "reading": {"by": "head", "pooling": "mean"}},
    ),
    "reading.layer": (
        LABELS,
        {"template": "{soft:3} {text}", "reading": {"by": "head", "layer": 1}},
    ),
    "reading.windows": (LABELS, {"max_length": 14, "reading": {"windows": "max"}}),
    "multi_label": (LABELS, {"multi_label": True}),
    "reading.threshold": (LABELS, {"multi_label": True, "reading": {"threshold": 0.3}}),
    "data.label_separator": (LABELS, {"multi_label": True, "data": {"label_separator": ";"}}),
    "reading.words": (LABELS, {"reading": {"words": "list.txt"}}),
    "reading.refine": (LABELS, {"reading": {"words": "list.txt", "refine": True}}),
    "prefix.hidden": (WRITES, {"prefix": {"hidden": 4}}),
    "prefix.init": (WRITES, {"prefix": {"hidden": 0, "init": "zeros"}}),
    "prefix.gates": (WRITES, {"prefix": {"hidden": 0, "gates": True}}),
    "prefix.attentions": (BOTH, {"prefix": {"hidden": 0, "attentions": ["decoder"]}}),
    "data.form": (LABELS, {"data": {"form": "boolq"}}),
    "data.language": (LABELS, {"data": {"form": "webnlg", "language": "ru"}}),
    "data.relabel": (LABELS, {"data": {"test": "x", "relabel": {"test": {"0": "good"}}}}),
    **{
        f"data.{name}": (LABELS, {"data": {name: value}})
        for name, value in {
            "separator": ";",
            "quoting": "none",
            "columns": ["text", "label"],
            "rename": {"Review Text": "text"},
            "encoding": "latin-1",
            "record_path": "data.rows",
            "skip_lines": 2,
        }.items()
    },
    **{
        f"decoding.{name}": (WRITES, {"decoding": {"max_new_tokens": 4, **more}})
        for name, more in {
            "max_new_tokens": {"max_new_tokens": 5},
            "min_new_tokens": {"min_new_tokens": 2},
            "beams": {"beams": 2},
            "length_penalty": {"length_penalty": 2.0},
            "sample": {"sample": True},
            "temperature": {"sample": True, "temperature": 0.5},
            "top_p": {"sample": True, "top_p": 0.5},
            "top_k": {"sample": True, "top_k": 3},
            "texts": {"beams": 2, "texts": 2},
            "no_repeat_ngram": {"no_repeat_ngram": 2},
            "banned": {"banned": ["great"]},
            "stop": {"stop": ["."]},
            "rows": {"rows": 3},
            "seed": {"seed": 7},
        }.items()
    },
}


def leaves(config: type[BaseModel], before: str = "") -> set[str]:
    """The names of all fields, with dots between."""
    names = set()
    for name, field in config.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        names |= leaves(field.annotation, f"{before}{name}.") if nested else {before + name}
    return names


def test_every_field_of_a_task_is_looked_at():
    asked = {name for name in leaves(TaskConfig) if not name.startswith(TRAINING)}
    assert asked == CHANGES.keys() | NOT_OF_ANSWERS and not CHANGES.keys() & NOT_OF_ANSWERS


@pytest.fixture(scope="module")
def lms():
    return {family: LanguageModel(*tiny.tiny(family)) for family in ("bert", "gpt2", "t5")}


def built(config: TaskConfig, lm: LanguageModel) -> PromptModel:
    model, form, method = PromptModel(lm), resolve.task_form(config), resolve.shown_method(config)
    model_task.add(
        model,
        form,
        task_members.members(form, method, lm)[0],
        ROWS,
        method=method,
        learning=resolve.learning(config),
        name="a" if config.prompt_by else None,
    )
    return model


@pytest.mark.parametrize("name", CHANGES)
def test_a_saved_prompt_keeps_every_field_of_its_task(name, lms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("words.txt").write_text("great\nterrible\nfilm\n")
    pathlib.Path("list.txt").write_text("best,film,great\nworst,bad\n")
    base, change = CHANGES[name]
    notes = []
    for number, raw in enumerate(({**base}, {**base, **change})):
        config = TaskConfig.model_validate(raw)
        model = built(config, lms["t5" if base is BOTH else "bert" if base is LABELS else "gpt2"])
        prompt_folder.save(model, tmp_path / str(number))
        notes.append(
            (tmp_path / str(number) / "prompt.json").read_text()
            + str((tmp_path / str(number) / "prompt.safetensors").read_bytes())
        )
    loaded = prompt_folder.load(tmp_path / "1", model.lm)
    fitted, again = model.tasks[0], loaded.tasks[0]
    if (
        fitted.task.prefix != again.task.prefix
    ):  # a prefix is saved with the attentions that it entered
        again = replace(again, task=replace(again.task, prefix=fitted.task.prefix))
    assert again == fitted and loaded.limit(0) == model.limit(0)
    assert notes[0] != notes[1], "it was not set"
    if config.data.form != "rows" or config.target == "other":
        return
    examples, same = model.encode(0, ROWS, labelled=False), loaded.encode(0, ROWS, labelled=False)
    assert [example.fills for example in examples] == [example.fills for example in same]
    if base is LABELS:
        assert all(map(torch.equal, model.scores(examples), loaded.scores(same)))
    else:
        assert generate_module.generate(loaded, ROWS) == generate_module.generate(model, ROWS)


# From training to answers.


def unheard(message: str) -> None:
    pass


def write(path: pathlib.Path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    for family in ("bert", "gpt2"):
        network, tokenizer = tiny.tiny(family)
        network.save_pretrained(tmp_path / family)
        tokenizer.save_pretrained(tmp_path / family)
    write(tmp_path / "rows.jsonl", ROWS)
    return tmp_path


def trained(folder, base=LABELS, **more):
    rows = folder / "rows.jsonl"
    data = {"train": rows, "dev": rows, "test": rows, **more.pop("data", {})}
    raw = {
        **base,
        "lm": str(folder / ("bert" if base is LABELS else "gpt2")),
        "out": folder / "out",
        "data": data,
        **more,
    }
    return train_task.train(TaskConfig.model_validate(raw), lambda message: None)


WAYS = {
    "p-tuning": (LABELS, {"max_length": 12, "metrics": ["f1-macro", "accuracy"]}),
    "manual": (
        LABELS,
        {
            "template": "{text|shorten} {mask}",
            "method": "manual",
            "max_length": 9,
            "reading": {"calibration": "prior"},
        },
    ),
    "users": (LABELS, {"prompt_by": "user", "max_length": 11}),
    "text": (WRITES, {"max_length": 16, "parts": "part", "metrics": ["bleu", "ter"]}),
    "ensemble": (
        LABELS,
        {
            "patterns": ["{text|shorten} {mask}", "It was {mask} {text|shorten}"],
            "method": "prompt-tuning",
            "template": "",
            "prompts": 6,
            "combine": "weighted",
            "max_length": 40,
            "init": "random",
        },
    ),
    "weights of words": (
        LABELS,
        {
            "template": "{text|shorten} {mask}",
            "method": "manual",
            "tune": "prompt",
            "reading": {"by": "weighted-words"},
            "train": {"epochs": 2, "batch_size": 4, "learning_rate": 0.5},
        },
    ),
    "neighbours": (
        LABELS,
        {
            "patterns": ["{text|shorten} {mask}", "It was {mask} {text|shorten}"],
            "verbalizers": [{"good": "Vienna", "bad": "Rome"}],
            "method": "manual",
            "template": "",
            "combine": "neighbours",
            "neighbours": 3,
            "max_length": 12,
        },
    ),
    "pet": (
        LABELS,
        {
            "patterns": ["{text|shorten} {mask}"],
            "method": "pet",
            "template": "",
            "train": {"steps": 2, "epochs": 1},
            "pet": {"distil": {"steps": 2, "epochs": 1}},
            "max_length": 14,
        },
    ),
    "tuned, bfloat16": (
        LABELS,
        {
            "template": "{text|shorten} {mask}",
            "method": "fine-tune",
            "dtype": "bfloat16",
            "max_length": 10,
        },
    ),
    "float64": (LABELS, {"dtype": "float64"}),
}


@pytest.mark.parametrize("name", WAYS)
def test_what_is_saved_answers_as_what_was_trained(name, folder, capsys):
    """Training's figures on a file are those of evaluate, those of the answers that predict gives,
    and those in Python."""
    base, more = WAYS[name]
    data = {"unlabeled": folder / "rows.jsonl"} if name == "pet" else {}
    run, rows, prompt = (
        trained(folder, base, data=data, **more),
        folder / "rows.jsonl",
        folder / "out",
    )
    assert run.figures
    assert evaluate.evaluate(EvaluateConfig(prompt=prompt, data=rows, device="cpu")) == {
        **run.figures,
        "rows": len(ROWS),
    }
    loaded = prompt_folder.load(prompt_folder.folders_in(prompt), device="cpu")
    capsys.readouterr()
    if base is WRITES:
        generate.generate(GenerateConfig(prompt=prompt, data=rows, device="cpu"), unheard)
        texts = [json.loads(line)["ptune"]["text"] for line in capsys.readouterr().out.splitlines()]
        assert (
            texts
            == [output.text for output in run.outputs]
            == generate_module.generate(loaded, ROWS)
        )
        assert (
            judge_texts.judge(
                loaded, ROWS, loaded.tasks[0].task.decoding, metrics=loaded.tasks[0].task.metrics
            ).figures
            == run.figures
        )
        return
    predict.predict(PredictConfig(prompt=prompt, data=rows, device="cpu"), unheard)
    said = [
        json.loads(line)["ptune"]["prediction"] for line in capsys.readouterr().out.splitlines()
    ]
    metrics = loaded.tasks[0].task.metrics or ("accuracy",)
    assert figures_of(metrics, ROWS, said) == {name: run.figures[name] for name in metrics}
    assert judge_labels.judge(loaded, ROWS, metrics) == run.figures


def test_members_of_an_ensemble_stay_in_their_order(lms, tmp_path):
    for number in range(1, 12):
        model = built(TaskConfig.model_validate({**LABELS, "name": f"t/{number}"}), lms["bert"])
        prompt_folder.save(model, tmp_path / "prompts" / f"{number}-x")
    loaded = prompt_folder.load(prompt_folder.folders_in(tmp_path), lms["bert"])
    assert [fitted.task.name for fitted in loaded.tasks] == [
        f"t/{number}" for number in range(1, 12)
    ]


# Files in a layout of their own.

BOOLQ = [
    {"question": f"is it {word}", "passage": f"{word} film", "label": word == "great", "idx": i}
    for i, word in enumerate(["great", "bad"] * 3)
]
ASKED = {
    "template": "{soft:2} {passage|shorten} {question} {mask}",
    "labels": {"true": "great", "false": "bad"},
}


def test_a_prompt_reads_files_as_it_was_trained_to(folder, capsys):
    write(folder / "boolq.jsonl", BOOLQ)
    data = {"form": "boolq", **dict.fromkeys(("train", "dev", "test"), folder / "boolq.jsonl")}
    run = trained(folder, data=data, **ASKED)
    assert (
        evaluate.evaluate(
            EvaluateConfig(prompt=folder / "out", data=folder / "boolq.jsonl", device="cpu")
        )["accuracy"]
        == run.figures["accuracy"]
    )
    predict.predict(
        PredictConfig(
            prompt=folder / "out",
            data=folder / "boolq.jsonl",
            out=folder / "answers.jsonl",
            overwrite=True,
            device="cpu",
        )
    )
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 6 and all(
        answer["ptune"]["prediction"] in ("true", "false") for answer in answers
    )
    plain = [{"question": "is it great", "passage": "great film", "label": "true"}]
    write(folder / "plain.jsonl", plain)
    with pytest.raises(DataError, match="of the form 'boolq'; give --form rows"):
        predict.predict(
            PredictConfig(prompt=folder / "out", data=folder / "plain.jsonl", device="cpu")
        )
    evaluated = evaluate.evaluate(
        EvaluateConfig(
            prompt=folder / "out", data=folder / "plain.jsonl", form="rows", device="cpu"
        )
    )
    assert evaluated["rows"] == 1


def test_options_of_written_answers_are_refused_where_labels_are_answered(folder):
    trained(folder)
    for given, message in (
        ({"decoding": {"beams": 3}}, "decoding says how answers are written"),
        ({"parts": "label"}, "parts gives the figures of written answers apart"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate.evaluate(
                EvaluateConfig(prompt=folder / "out", data=folder / "rows.jsonl", **given)
            )


def test_labels_are_renamed_as_they_were_in_training(folder):
    others = [{**row, "label": {"good": "4", "bad": "0"}[row["label"]]} for row in ROWS] + [
        {**ROWS[0], "label": "2"}
    ]
    write(folder / "stars.jsonl", others)
    run = trained(
        folder,
        data={"test": folder / "stars.jsonl", "relabel": {"test": {"4": "good", "0": "bad"}}},
    )
    assert evaluate.evaluate(
        EvaluateConfig(prompt=folder / "out", data=folder / "stars.jsonl", device="cpu")
    ) == {**run.figures, "rows": 8}
    plain = EvaluateConfig(prompt=folder / "out", data=folder / "rows.jsonl", device="cpu")
    assert evaluate.evaluate(plain.model_copy(update={"split": "none"})) == {
        **run.figures,
        "rows": 8,
    }
    with pytest.raises(DataError, match="--split none"):
        evaluate.evaluate(plain)


# Rows out.


@pytest.fixture(scope="module")
def prompts(lms, tmp_path_factory):
    """Saved prompts with label words and with text, and an ensemble that writes, each beside its
    LM's folder."""
    path = tmp_path_factory.mktemp("prompts")
    for family, lm in lms.items():
        lm.model.save_pretrained(path / family)
        lm.tokens.tokenizer.save_pretrained(path / family)
    for name, base, family in (("labels", LABELS, "bert"), ("writes", WRITES, "gpt2")):
        lm = LanguageModel.load(path / family, device="cpu")
        prompt_folder.save(
            built(TaskConfig.model_validate({**base, "max_length": 30}), lm), path / name
        )
        for number in (1, 2):
            member = TaskConfig.model_validate(
                {**base, "name": f"t/{number}", "train": {"seed": number}}
            )
            prompt_folder.save(built(member, lm), path / f"{name} twice" / "prompts" / str(number))
    return path


def answered(prompt, data, tmp_path, name="out.jsonl", **more):
    heard: list[str] = []
    options = {"overwrite": True, "device": "cpu", **more}
    config = (GenerateConfig if "writes" in prompt.name else PredictConfig)(
        prompt=prompt, data=data, out=tmp_path / name, **options
    )
    (generate.generate if "writes" in prompt.name else predict.predict)(config, heard.append)
    return (tmp_path / name).read_text(), heard


@pytest.mark.parametrize(
    "kind, parts", [("labels", {"prediction", "scores"}), ("writes", {"text"})]
)
def test_a_rows_own_fields_come_back_as_they_were(prompts, tmp_path, kind, parts):
    rows = [
        {
            "text": "great film",
            "prediction": 3,
            "scores": {"a": None},
            "texts": ["x"],
            "ö": "ü",
            "label": "good",
        }
    ]
    write(tmp_path / "rows.jsonl", rows)
    text, _ = answered(prompts / kind, tmp_path / "rows.jsonl", tmp_path)
    answer = json.loads(text)
    assert (
        {name: answer[name] for name in rows[0]} == rows[0]
        and set(answer) - set(rows[0]) == {"ptune"}
        and set(answer["ptune"]) == parts
    )
    (tmp_path / "again").mkdir()
    with pytest.raises(DataError, match="has a field 'ptune' already"):
        answered(prompts / kind, tmp_path / "out.jsonl", tmp_path / "again")
    assert not list((tmp_path / "again").iterdir())


@pytest.mark.parametrize(
    "kind, columns",
    [("labels", ["ptune_prediction", "ptune_probability"]), ("writes", ["ptune_text"])],
)
@pytest.mark.parametrize("suffix, delimiter", [(".csv", ","), (".tsv", "\t")])
def test_tables_keep_their_columns(prompts, tmp_path, kind, columns, suffix, delimiter):
    rows = [{"text": 'a "great", film', "note": "x\ty"}, {"text": "the worst", "note": ""}]
    with open(tmp_path / f"rows{suffix}", "w", newline="") as stream:
        table = csv.DictWriter(stream, ["text", "note"], delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)
    text, _ = answered(prompts / kind, tmp_path / f"rows{suffix}", tmp_path, f"out{suffix}")
    back = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    assert (
        list(back[0]) == ["text", "note", *columns]
        and [{name: row[name] for name in ("text", "note")} for row in back] == rows
    )
    (tmp_path / "lines").mkdir()
    lines, _ = answered(prompts / kind, tmp_path / f"rows{suffix}", tmp_path / "lines")
    for row, line in zip(back, map(json.loads, lines.splitlines())):
        if kind == "writes":
            assert row["ptune_text"] == line["ptune"]["text"]
        else:
            assert row["ptune_prediction"] == line["ptune"]["prediction"]
            assert float(row["ptune_probability"]) == max(line["ptune"]["scores"].values())
    with pytest.raises(ConfigError, match="should end in .jsonl, .csv, .tsv"):
        answered(prompts / kind, tmp_path / f"rows{suffix}", tmp_path, "out.txt")
    (tmp_path / "again").mkdir()
    with pytest.raises(DataError, match="have a column 'ptune_.*' already"):
        answered(prompts / kind, tmp_path / f"out{suffix}", tmp_path / "again", f"out{suffix}")


BAD = [
    b'{"text": ',
    b'{"text": "\xff"}',
    b'{"x": 1}',
    b"[1]",
    b'{"text": "\\ud800"}',
    b"[" * 100000,
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("where", ["file", "standard input"])
def test_a_bad_row_costs_no_good_one(prompts, tmp_path, monkeypatch, capsys, bad, where):
    """Those before it are answered; where bad ones are skipped, all others are."""
    good = [json.dumps({"text": text}).encode() for text in TEXTS]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([*good[:3], bad, *good[3:]]) + b"\n")

    def ask(**more):
        monkeypatch.setattr(
            "sys.stdin",
            io.TextIOWrapper(io.BytesIO((tmp_path / "rows.jsonl").read_bytes()), encoding="utf-8"),
        )
        heard: list[str] = []
        config = PredictConfig(
            prompt=prompts / "labels",
            data=tmp_path / "rows.jsonl" if where == "file" else None,
            device="cpu",
            **more,
        )
        capsys.readouterr()
        try:
            predict.predict(config, heard.append)
        finally:
            texts.append(
                [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
            )
        return heard

    texts: list[list[str]] = []
    with pytest.raises(PtuneError, match="[.?] --skip-bad-lines leaves such rows out"):
        ask()
    assert texts.pop() == TEXTS[:3]
    with pytest.raises(
        PtuneError, match="The answers that were finished by then are in .*out.jsonl.partial"
    ):
        ask(out=tmp_path / "out.jsonl")
    partial = (tmp_path / "out.jsonl.partial").read_text().splitlines()
    assert [json.loads(line)["text"] for line in partial] == TEXTS[:3] and not (
        tmp_path / "out.jsonl"
    ).exists()
    texts.clear()
    heard = ask(skip_bad_lines=True)
    assert texts == [TEXTS] and len([line for line in heard if line.startswith("Skipped")]) == 1
    ask(skip_bad_lines=True, out=tmp_path / "out.jsonl")
    assert (
        len((tmp_path / "out.jsonl").read_text().splitlines()) == len(TEXTS)
        and not (tmp_path / "out.jsonl.partial").exists()
    )


@pytest.mark.parametrize(
    "kind, bad",
    [
        ("labels", {"text": "", "label": "good"}),
        ("labels", {"text": "great film", "label": None}),
        ("labels", {"text": "great film", "label": "perhaps"}),
        ("labels", {"text": "great film"}),
        ("labels", {"label": "good"}),
        ("writes", {"text": "", "label": "great"}),
        ("writes", {"text": "great film", "label": None}),
        ("writes", {"text": "great film"}),
    ],
)
def test_evaluate_leaves_out_what_cannot_be_scored(prompts, tmp_path, kind, bad):
    right = {"labels": "good", "writes": "great"}[kind]
    target = prompt_folder.load([prompts / kind], device="cpu").tasks[0].task.target
    good = [{"text": text, target: right} for text in TEXTS]
    if "label" in bad:
        bad = {**bad, target: bad.pop("label")}

    def evaluated(rows, **more):
        heard: list[str] = []
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = EvaluateConfig(
            prompt=prompts / kind, data=tmp_path / "rows.jsonl", device="cpu", **more
        )
        return evaluate.evaluate(config, heard.append), heard

    mixed = [*good[:2], bad, *good[2:]]
    with pytest.raises(PtuneError, match=r"rows\.jsonl, line 3"):
        evaluated(mixed)
    figures, heard = evaluated(mixed, skip_bad_lines=True)
    assert figures == evaluated(good)[0]
    skipped = [line for line in heard if line.startswith("Skipped")]
    assert len(skipped) == 1 and "rows.jsonl, line 3" in skipped[0]
    with pytest.raises(PtuneError, match="no row that can be scored.*line 1"):
        evaluated([bad], skip_bad_lines=True)


def test_a_file_without_rows_has_no_answers_and_is_told(prompts, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("text\n")
    heard: list[str] = []
    config = PredictConfig(prompt=prompts / "labels", data=tmp_path / "rows.csv", device="cpu")
    predict.predict(config, heard.append)
    assert heard == [f"{tmp_path / 'rows.csv'} holds no rows."]
    assert not capsys.readouterr().out


@pytest.mark.parametrize("kind", ["labels", "writes"])
@pytest.mark.parametrize("more", [{}, {"explain": True}])
def test_a_table_of_a_header_alone_is_answered_by_the_header_of_the_answers(
    prompts, tmp_path, kind, more
):
    (tmp_path / "rows.csv").write_text("text,note\ngreat film,x\n")
    full, _ = answered(prompts / kind, tmp_path / "rows.csv", tmp_path, "full.csv", **more)
    (tmp_path / "rows.csv").write_text("text,note\n")
    alone, heard = answered(prompts / kind, tmp_path / "rows.csv", tmp_path, "alone.csv", **more)
    assert alone == full.splitlines()[0] + "\n" and heard[-1].startswith("0 rows answered")
    (tmp_path / "rows.csv").write_text("")
    with pytest.raises(DataError, match="not even a line that names the columns"):
        answered(prompts / kind, tmp_path / "rows.csv", tmp_path, "none.csv", **more)
    assert not (tmp_path / "none.csv").exists()


def test_a_pattern_that_no_file_matches_is_told_as_such(prompts, tmp_path):
    for out in ("out.csv", "folder", None):
        config = PredictConfig(
            prompt=prompts / "labels",
            data=str(tmp_path / "*.csvv"),
            out=out and tmp_path / out,
            device="cpu",
        )
        with pytest.raises(ConfigError, match=r"^No file matches .*\*\.csvv\.$"):
            predict.predict(config, print)


def test_an_empty_name_of_the_rows_is_refused_as_such(prompts):
    """As of a shell's variable that is not set; it is not standard input."""
    config = PredictConfig(prompt=prompts / "labels", data="", device="cpu")
    with pytest.raises(ConfigError, match="^--data is empty: name a file"):
        predict.predict(config, print)


def test_answers_grow_beside_the_file_that_they_become(prompts, tmp_path, monkeypatch):
    """They are not kept in memory, and what stood there stays until all are there."""
    write(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    (tmp_path / "out.jsonl").write_text("before")
    monkeypatch.setattr(predict, "ANSWERS_AT_ONCE", 2)
    sizes, real = [], PromptModel.scores

    def scores(*arguments, **more):
        sizes.append((tmp_path / "out.jsonl.partial").stat().st_size)
        assert (tmp_path / "out.jsonl").read_text() == "before"
        return real(*arguments, **more)

    monkeypatch.setattr(PromptModel, "scores", scores)
    answered(prompts / "labels", tmp_path / "rows.jsonl", tmp_path)
    assert sizes[0] == 0 and sizes == sorted(set(sizes)) and len(sizes) == len(TEXTS) / 2


def test_a_place_where_nothing_can_be_written_is_told_by_its_name(prompts, tmp_path):
    write(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS[:2]])
    with pytest.raises(StoreError, match=r"/null/a.csv cannot be written: [^:]+\.$"):
        answered(prompts / "labels", tmp_path / "rows.jsonl", tmp_path, "/dev/null/a.csv")


def test_answers_replace_a_file_only_where_that_is_asked_for(prompts, tmp_path):
    write(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS[:2]])
    (tmp_path / "out.jsonl").write_text("before")
    with pytest.raises(ConfigError, match="out.jsonl is there already: .* --overwrite"):
        answered(prompts / "labels", tmp_path / "rows.jsonl", tmp_path, overwrite=False)
    assert (tmp_path / "out.jsonl").read_text() == "before"
    _, heard = answered(prompts / "labels", tmp_path / "rows.jsonl", tmp_path)
    assert heard[-1] == f"2 rows answered: {tmp_path / 'out.jsonl'}"


class Killed(BaseException):
    """As if the process ended here."""


def killed_at(monkeypatch, call: int) -> None:
    """The LM is called so many times, and then never again."""
    real, calls = PromptModel.scores, []

    def scores(*arguments, **more):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return real(*arguments, **more)

    monkeypatch.setattr(PromptModel, "scores", scores)


ODD_TEXTS = ['is "it"\ngreat', "is it, bad", "is it\rgood " * 20_000, "is it\rbad", *TEXTS[:-4]]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("call", [1, 3, 4])
def test_a_killed_run_goes_on_behind_its_answers(prompts, tmp_path, monkeypatch, suffix, call):
    write(tmp_path / "rows.jsonl", [{"text": text, "n": 1.50} for text in ODD_TEXTS])
    monkeypatch.setattr(predict, "ANSWERS_AT_ONCE", 2)
    rows, name = tmp_path / "rows.jsonl", f"out.{suffix}"
    whole, _ = answered(prompts / "labels", rows, tmp_path, f"whole.{suffix}")
    with monkeypatch.context() as context:
        killed_at(context, call)
        with pytest.raises(Killed):
            answered(prompts / "labels", rows, tmp_path, name)
    partial = tmp_path / f"{name}.partial"
    with open(partial, "a") as stream:
        stream.write('{"text": "is')  # it was killed while it wrote
    calls, real = [], PromptModel.scores
    monkeypatch.setattr(PromptModel, "scores", lambda *a, **k: calls.append(1) or real(*a, **k))
    text, _ = answered(prompts / "labels", rows, tmp_path, name, resume=True)
    assert text == whole and len(calls) == len(TEXTS) / 2 - (call - 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["rows.jsonl", name, f"whole.{suffix}"]
    )


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_answers_that_others_would_follow_are_refused(prompts, tmp_path, monkeypatch, suffix):
    rows, name = tmp_path / "rows.jsonl", f"out.{suffix}"
    write(rows, [{"text": text} for text in TEXTS])
    with pytest.raises(ConfigError, match="no .*partial to go on with: leave --resume out"):
        answered(prompts / "labels", rows, tmp_path, name, resume=True)
    monkeypatch.setattr(predict, "ANSWERS_AT_ONCE", 2)
    with monkeypatch.context() as context:
        killed_at(context, 3)
        with pytest.raises(Killed):
            answered(prompts / "labels", rows, tmp_path, name)
    before = (tmp_path / f"{name}.partial").read_text()
    for prompt, differs, more in (
        ("labels", "top", {"top": 1}),
        ("labels twice", "prompts", {}),
        ("labels", "dtype", {"dtype": "float64"}),
    ):
        with pytest.raises(ConfigError, match=f"given with another .*{differs}"):
            answered(prompts / prompt, rows, tmp_path, name, resume=True, **more)
    for others in ([{"text": "another"}, *({"text": text} for text in TEXTS[1:])], ROWS[:2]):
        write(tmp_path / "others.jsonl", others)
        with pytest.raises(DataError, match="are of other rows"):
            answered(prompts / "labels", tmp_path / "others.jsonl", tmp_path, name, resume=True)
    assert (tmp_path / f"{name}.partial").read_text() == before
    answered(prompts / "labels", rows, tmp_path, name, resume=True)
    with pytest.raises(ConfigError, match="goes on with a file of answers: give --out"):
        predict.predict(PredictConfig(prompt=prompts / "labels", data=rows, resume=True))


def test_a_place_below_a_file_is_told_before_rows_are_read(prompts, tmp_path):
    (tmp_path / "file").write_text("mine")
    config = PredictConfig(prompt=prompts / "labels", data="none", out=tmp_path / "file" / "a.csv")
    with pytest.raises(ConfigError, match=r"a\.csv cannot be: .*file is a file, and no folder"):
        predict.predict(config)


def test_a_mended_row_lets_a_stopped_run_go_on(prompts, tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    write(rows, [{"text": text} for text in TEXTS[:4]])
    monkeypatch.setattr(predict, "ANSWERS_AT_ONCE", 2)
    whole, _ = answered(prompts / "labels", rows, tmp_path, "whole.jsonl")
    write(rows, [*({"text": text} for text in TEXTS[:3]), {"x": 1}])
    with pytest.raises(PtuneError, match="--resume goes on behind them"):
        answered(prompts / "labels", rows, tmp_path)
    write(rows, [{"text": text} for text in TEXTS[:4]])
    assert answered(prompts / "labels", rows, tmp_path, resume=True)[0] == whole


@pytest.mark.parametrize(
    "name",
    ["out.jsonl", "link.jsonl", "hard.jsonl", "out.jsonl.partial", "out.jsonl.partial.json"],
)
def test_answers_never_overwrite_the_rows(prompts, tmp_path, name):
    rows = tmp_path / name
    write(tmp_path / "out.jsonl", [{"text": text} for text in TEXTS])
    if name.startswith("link"):
        rows.symlink_to(tmp_path / "out.jsonl")
    elif name.startswith("hard"):
        rows.hardlink_to(tmp_path / "out.jsonl")
    else:
        write(rows, [{"text": text} for text in TEXTS])
    before = rows.read_text()
    with pytest.raises(ConfigError, match="would overwrite it: choose another name"):
        answered(prompts / "labels", rows, tmp_path)
    assert rows.read_text() == before and (tmp_path / "out.jsonl").read_text() == before
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        answered(prompts / "labels", rows, tmp_path, "folder.jsonl")


def test_what_an_lm_cannot_read_is_told_by_row_and_refused_in_figures(prompts, tmp_path, capsys):
    texts = ["great film", "\u5305\u88c5\u5f88\u597d", "\u200b", "great film \u5305"]
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{text},good\n" for text in texts))
    said = []
    predict.predict(
        PredictConfig(prompt=prompts / "labels", data=path, explain=True, device="cpu"), said.append
    )
    answers = [json.loads(line)["ptune"] for line in capsys.readouterr().out.splitlines()]
    shares = [answer["unknown"] for answer in answers]
    assert shares[:3] == [0.0, 1.0, 1.0] and 0 < shares[3] < 0.5
    assert any(
        "Chinese characters. Take a Chinese LM (bert-base-chinese)" in line
        and "2 rows are mostly unknown to the LM" in line
        and f"{path}, line 3, {path}, line 4" in line
        for line in said
    )
    config = EvaluateConfig(prompt=prompts / "labels", data=path, device="cpu")
    with pytest.raises(DataError, match="The rows: .*Chinese.*--allow-unknown"):
        evaluate.evaluate(config)
    evaluate.evaluate(config.model_copy(update={"allow_unknown": True}), said.append)
    assert any("unknown to this LM's vocabulary" in line for line in said)


@pytest.mark.parametrize("kind", ["labels", "writes"])
def test_shortened_rows_are_told_and_marked(prompts, tmp_path, kind):
    write(
        tmp_path / "rows.jsonl",
        [{"text": "great"}, {"text": "film " * 50}, *([{"text": "bad"}] * 6)],
    )
    text, heard = answered(prompts / kind, tmp_path / "rows.jsonl", tmp_path, explain=True)
    cut = [json.loads(line)["ptune"]["shortened"] for line in text.splitlines()]
    assert [number for number, tokens in enumerate(cut) if tokens] == [1]
    assert heard[:-1] == [
        f"Warning: 1 of 8 rows were shortened to fit, by {cut[1]} tokens at most. The LM does not "
        "see what was cut off; an input may "
        f"have 30 tokens here (max_length)."
    ]
    text, _ = answered(prompts / kind, tmp_path / "rows.jsonl", tmp_path, "out.csv", explain=True)
    assert [int(row["ptune_shortened"]) for row in csv.DictReader(io.StringIO(text))] == cut


def test_a_length_penalty_without_beams_is_refused(prompts, tmp_path):
    write(tmp_path / "rows.jsonl", ROWS[:3])
    rows, message = tmp_path / "rows.jsonl", "--decoding: length_penalty is of a search with beams"
    with pytest.raises(ConfigError, match=message):
        answered(prompts / "writes", rows, tmp_path, decoding=DecodingOverrides(length_penalty=9))
    both = DecodingOverrides(length_penalty=9, beams=2)
    assert answered(prompts / "writes", rows, tmp_path, decoding=both)[0].count("\n") == 3


def test_an_ensemble_gives_the_texts_of_all_its_members(prompts, tmp_path):
    write(tmp_path / "rows.jsonl", ROWS[:3])
    several = DecodingOverrides(beams=2, texts=2)
    text, _ = answered(
        prompts / "writes twice", tmp_path / "rows.jsonl", tmp_path, decoding=several
    )
    apart = []
    for folder in prompt_folder.folders_in(prompts / "writes twice"):
        member = prompt_folder.load(folder, device="cpu")
        decoding = member.tasks[0].task.decoding.model_copy(update={"beams": 2, "texts": 2})
        apart.append(
            write_all(
                member,
                member.encode(0, ROWS[:3], labelled=False, room=decoding.max_new_tokens),
                decoding,
            )
        )
    assert [json.loads(line)["ptune"]["texts"] for line in text.splitlines()] == [
        [*first, *second] for first, second in zip(*apart)
    ]


def test_files_are_read_as_the_prompts_own_were(folder):
    table = folder / "rows.csv"
    table.write_text("\n".join(f"{row['label']};{row['text']}" for row in ROWS), encoding="latin-1")
    as_it_is = {
        "train": table,
        "dev": table,
        "test": table,
        "columns": ["label", "Review"],
        "rename": {"Review": "text"},
        "separator": ";",
        "encoding": "latin-1",
    }
    run = trained(folder, data=as_it_is)
    figures = evaluate.evaluate(EvaluateConfig(prompt=folder / "out", data=table), unheard)
    assert figures["accuracy"] == run.figures["accuracy"] and figures["rows"] == len(ROWS)
    assert evaluate.evaluate(
        EvaluateConfig(prompt=folder / "out", data=folder / "rows.jsonl"), unheard
    )["rows"] == len(ROWS)
    table.write_text("good;K\u00f6ln\n", encoding="utf-8")
    predict.predict(
        PredictConfig(
            prompt=folder / "out", data=table, out=folder / "answers.jsonl", overwrite=True
        ),
        unheard,
    )
    assert "K\u00f6ln" in (folder / "answers.jsonl").read_text(), (
        "an encoding that was kept is not put upon UTF-8"
    )
    with pytest.raises(DataError, match="1 fields where data: {columns: ...} names 2"):
        evaluate.evaluate(EvaluateConfig(prompt=folder / "out", data=table, separator="|"), unheard)


def test_answers_to_whole_rows_and_texts_are_no_conll_file(prompts, tmp_path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "answers.conll"
    write(rows, ROWS)
    given = {"data": rows, "out": out, "device": "cpu"}
    with pytest.raises(ConfigError, match="a label for each word, and .*labels gives one answer"):
        predict.predict(PredictConfig(prompt=prompts / "labels", **given))
    with pytest.raises(ConfigError, match="a label for each word, and ptune generate writes texts"):
        generate.generate(GenerateConfig(prompt=prompts / "writes", **given))
    assert not out.exists()
