"""Tables of many files: answered piece by piece as one file is; a kill costs one piece at most."""

import csv
import gzip
import json
import pathlib

import killing
import pytest
import tiny

from ptune.base import files
from ptune.errors import ConfigError, DataError, PtuneError, StoreError
from ptune.experiments.answering import generate, predict
from ptune.experiments.options import GenerateConfig, PredictConfig
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.storage import prompt_folder
from ptune.tasks import model_task, task_members
from ptune.tasks.resolved import resolve
from ptune.tasks.schema import TaskConfig

LABELS = {
    "name": "t",
    "template": "{soft:2} {text|shorten} {mask}",
    "labels": {"good": "great", "bad": "bad"},
    "encoder": "table",
}
TEXTS = {
    "name": "t",
    "template": "{prefix:2} {text|shorten} is {mask}",
    "target": "y",
    "method": "prefix-tuning",
    "prefix": {"hidden": 0},
    "decoding": {"max_new_tokens": 2},
}
WORDS = "great terrible film best worst Vienna Rome bad".split()
ROWS = [
    {"id": number, "text": f"{word} {other}", "n": number / 2}
    for number, (word, other) in enumerate(zip(WORDS * 3, WORDS[1:] * 4))
]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """A saved prompt with label words and one that writes, each with its LM in memory."""
    path = tmp_path_factory.mktemp("prompts")
    models = {}
    for name, raw, family in (("labels", LABELS, "bert"), ("texts", TEXTS, "gpt2")):
        model = PromptModel(LanguageModel(*tiny.tiny(family)))
        config = TaskConfig.model_validate(raw)
        rows = [{"text": "great film", "label": "good", "y": "bad"}]
        form, method = resolve.task_form(config), resolve.shown_method(config)
        member = task_members.members(form, method, model.lm)[0]
        learning = resolve.learning(config)
        model_task.add(model, form, member, rows, method=method, learning=learning, name=None)
        prompt_folder.save(model, path / name)
        models[path / name] = model
    return models


@pytest.fixture
def answer(prompts, monkeypatch, tmp_path):
    """Answers rows by a prompt that is in memory; returns what was reported."""
    monkeypatch.setattr(generate, "load_model", lambda prompt, *source: prompts[prompt])
    monkeypatch.setattr(predict, "load_model", lambda prompt, *source: prompts[prompt])
    monkeypatch.setattr(predict, "ANSWERS_AT_ONCE", 2)

    def run(data, out="out", name="labels", **more):
        prompt = next(folder for folder in prompts if folder.name == name)
        options, command = {
            "labels": (PredictConfig, predict.predict),
            "texts": (GenerateConfig, generate.generate),
        }[name]
        lines: list[str] = []
        more = {"device": "cpu", **({} if pathlib.Path(out).suffix else {"shard_rows": 4}), **more}
        command(options(prompt=prompt, data=data, out=tmp_path / out, **more), lines.append)
        return lines

    return run


def write(path: pathlib.Path, rows) -> None:
    """Write rows in the form that the name says."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix in (".parquet", ".arrow", ".feather"):
        write_columns(path, rows)
        return
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as stream:
        if ".csv" in path.name:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)


def write_columns(path: pathlib.Path, rows) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, which writes such files, is missing")
    from pyarrow import feather, ipc, parquet

    types = {"id": pyarrow.int16(), "text": pyarrow.string(), "n": pyarrow.float32()}
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in rows[0]])
    table = pyarrow.Table.from_pylist(rows, schema)
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=3)
    elif path.suffix == ".feather":
        feather.write_feather(table, path)
    else:
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, 3)


def read(path: pathlib.Path) -> list[dict]:
    from ptune.data.rows import read_rows

    return read_rows(path)


def parts(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("part-*"))


def answer_of(row: dict) -> dict:
    """The answer in a row, its probability as a number."""
    if "ptune" in row:
        scores = {name: float(score) for name, score in row["ptune"]["scores"].items()}
        return {"prediction": row["ptune"]["prediction"], **scores}
    return {"prediction": row["ptune_prediction"], "best": float(row["ptune_probability"])}


def rows_in(folder: pathlib.Path) -> list[dict]:
    return [row for part in parts(folder) for row in read(part)]


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "settings.json"
    }


def spread(folder: pathlib.Path, ending: str, rows=ROWS) -> pathlib.Path:
    """The rows in three files of unequal length in a folder."""
    for number, (first, last) in enumerate([(0, 8), (8, 9), (9, len(rows))]):
        write(folder / f"rows-{number}.{ending}", rows[first:last])
    return folder


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather", "csv", "csv.gz", "jsonl"])
def test_shards_are_answered_as_one_file_is(ending, answer, tmp_path):
    data = spread(tmp_path / "rows", ending)
    (data / "_SUCCESS").touch()
    single = ".csv" if ending in ("parquet", "arrow", "feather", "csv", "csv.gz") else ".jsonl"
    write(tmp_path / f"all{single}", ROWS)
    answer(tmp_path / f"all{single}", f"answers{single}")
    heard = answer(data)
    assert heard[-1] == f"{len(ROWS)} rows answered, in 7 files: {tmp_path / 'out'}"
    answers, expected = rows_in(tmp_path / "out"), read(tmp_path / f"answers{single}")
    assert len(answers) == len(ROWS) == 24 and list(answers[0]) == list(expected[0])
    for got, right in zip(answers, expected, strict=True):
        assert [str(got[name]) for name in ROWS[0]] == [str(right[name]) for name in ROWS[0]]
        assert answer_of(got) == pytest.approx(answer_of(right), abs=1e-5)
    assert len({str(row.get("ptune_prediction", row.get("ptune"))) for row in answers}) > 1
    records = read(tmp_path / "out" / "manifest.jsonl")
    assert [record["rows"] for record in records] == [4, 4, 1, 4, 4, 4, 3]
    assert records[3]["from"] == f"rows-2.{ending}" and sum(r["rows"] for r in records) == 24


ENTITY = {"kind": "PER", "start": 0, "end": 1, "words": ["great"]}
ANSWERS = {
    "sets of labels": (
        [
            {"prediction": names, "scores": dict.fromkeys(names or ["a"], 0.5)}
            for names in ([], ["a"])
        ],
        {"prediction": "list<element: string>", "probability": "list<element: double>"},
    ),
    "words": (
        [
            {"prediction": ["O"], "scores": [0.5], "entities": entities}
            for entities in ([], [ENTITY])
        ],
        {
            "prediction": "list<element: string>",
            "probability": "list<element: double>",
            "entities": "list<element: struct<kind: string, start: int64, end: int64, words: "
            "list<element: string>>>",
        },
    ),
    "parts of texts": (
        [{"prediction": text, "scores": {text: 0.5}, "start": 0, "end": 1} for text in ("", "a")],
        {"prediction": "string", "probability": "double", "start": "int64", "end": "int64"},
    ),
    "sure answers": (
        [
            {"prediction": name, "scores": {"a": 0.5}, "set": ["a"][:n]}
            for n, name in enumerate([None, "a"])
        ],
        {"prediction": "string", "probability": "double", "set": "list<element: string>"},
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_columns_of_answers_have_their_types_in_every_file(kind, answer, tmp_path, monkeypatch):
    """Also in files whose rows have no label, no entity, or nothing sure."""
    answers, types = ANSWERS[kind]
    data = tmp_path / "rows.parquet"
    write(data, ROWS[:4])
    following = iter([answers[0], answers[0], *answers])
    monkeypatch.setattr(PromptModel, "answer", lambda *arguments: next(following))
    answer(data, shard_rows=2, at_least=0.5)
    from pyarrow import dataset, parquet

    schemas = [parquet.read_schema(part) for part in parts(tmp_path / "out")]
    assert len(schemas) == 2
    for schema in schemas:
        assert {
            name.removeprefix("ptune_"): str(schema.field(name).type)
            for name in schema.names[len(ROWS[0]) :]
        } == types
    rows = dataset.dataset(parts(tmp_path / "out")).to_table().to_pylist()
    assert [row["ptune_prediction"] for row in rows[2:]] == [one["prediction"] for one in answers]
    assert rows[3].get("ptune_entities") == answers[1].get("entities")


def test_columns_keep_their_types_and_written_text_has_one(answer, tmp_path):
    data = spread(tmp_path / "rows", "parquet")
    answer(f"{data}/rows-*.parquet", name="texts", explain=True)
    from pyarrow import parquet

    schemas = {str(parquet.read_schema(part)) for part in parts(tmp_path / "out")}
    assert len(schemas) == 1
    expected = ["id: int16", "text: string", "n: float", "ptune_text: string"]
    assert schemas.pop().splitlines()[:4] == expected
    answer(data / "rows-1.parquet", "more", name="texts")  # a single file
    assert rows_in(tmp_path / "more")[0]["ptune_text"] == rows_in(tmp_path / "out")[8]["ptune_text"]


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_kill_after_any_file_loses_and_doubles_no_row(ending, answer, tmp_path, monkeypatch):
    data = spread(tmp_path / "rows", ending)
    answer(data, "whole")

    def run():
        begun = (tmp_path / "out" / "settings.json").exists()
        answer(data, resume=begun)

    names = killing.killed_after_every_file(run, monkeypatch)
    assert len(names) == 8  # the note and the files of answers
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("call", [1, 2, 4, 9])
def test_a_kill_between_files_costs_one_piece(call, answer, tmp_path, monkeypatch):
    data = spread(tmp_path / "rows", "jsonl")
    answer(data, "whole")
    calls, scores = [], PromptModel.scores

    def counted(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise killing.Stop
        return scores(*arguments)

    monkeypatch.setattr(PromptModel, "scores", counted)
    with pytest.raises(killing.Stop):
        answer(data)
    if call > 2:  # the line that was being written
        with open(tmp_path / "out" / "manifest.jsonl", "a") as stream:
            stream.write('{"file": "part-0000')
    answer(data, resume=call > 2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(calls) <= 13 + 2  # batches of the table, and those of one piece
    answer(data, resume=True)  # nothing is left to do
    assert len(calls) <= 13 + 2


def test_bad_rows_are_left_out_and_named(answer, tmp_path):
    data = tmp_path / "rows"
    write(data / "a.jsonl", [*ROWS[:2], {"x": 1}, ROWS[3]])
    with open(data / "a.jsonl", "a") as stream:
        stream.write("no json\n")
    write(data / "b.jsonl", [*ROWS[4:7], {"id": 9}])
    with pytest.raises(PtuneError, match=r"a\.jsonl, line 3.*--skip-bad-lines"):
        answer(data)
    answer(data, resume=(tmp_path / "out").exists(), skip_bad_lines=True)
    assert [row["id"] for row in rows_in(tmp_path / "out")] == [0, 1, 3, 4, 5, 6]
    records = read(tmp_path / "out" / "manifest.jsonl")
    left_out = [message for record in records for message in record["left_out"]]
    assert len(left_out) == 3 and "a.jsonl, line 5" in left_out[1] and "b.jsonl" in left_out[2]


def test_rows_of_parquet_that_are_left_out_take_no_answer_of_another(answer, tmp_path):
    rows = [{**row, "text": None if row["id"] in (1, 6) else row["text"]} for row in ROWS[:9]]
    write(tmp_path / "rows" / "a.parquet", rows)
    answer(tmp_path / "rows", skip_bad_lines=True)
    write(tmp_path / "good.parquet", [row for row in rows if row["text"]])
    answer(tmp_path / "good.parquet", "good")
    assert rows_in(tmp_path / "out") == rows_in(tmp_path / "good")
    assert len(rows_in(tmp_path / "out")) == 7


def test_what_is_wrong_with_a_table_is_told_before_the_first_step(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(PromptModel, "scores", lambda *arguments: pytest.fail("it was begun"))
    data, out = tmp_path / "rows", tmp_path / "out"

    def refused(error, match, place=data, **more):
        with pytest.raises(error, match=match):
            answer(place, **more)
        assert not out.exists()

    data.mkdir()
    refused(ConfigError, "There is no file of rows in|No file matches")
    write(data / "a.csv", ROWS[:2])
    write(data / "b.csv", [{"id": 1, "text": "great"}])
    refused(DataError, r"b\.csv has the columns id, text, and a\.csv has id, text, n")
    write(data / "b.csv", [{"id": 1, "words": "great", "n": 1}])
    refused(PtuneError, "text", f"{data}/b.csv")
    write(data / "b.jsonl", ROWS[:2])
    refused(ConfigError, r"several forms, such as a\.csv and b\.jsonl")
    (data / "README.md").write_text("rows")
    refused(ConfigError, r"README\.md is of no known form")
    refused(ConfigError, r"would add others", out=pathlib.Path("rows") / "out")
    refused(ConfigError, "--out a folder", out="answers.jsonl")
    refused(ConfigError, "--overwrite replaces a file", overwrite=True)
    refused(ConfigError, "name them with --data", None)


def test_rows_of_a_file_are_refused_where_there_is_one_file(answer, tmp_path):
    data = spread(tmp_path / "rows", "jsonl")
    with pytest.raises(ConfigError, match="--shard-rows is of answers that go into a folder"):
        answer(next(data.iterdir()), "answers.jsonl", shard_rows=4)


def test_an_empty_file_is_refused_and_hidden_ones_are_named(answer, tmp_path):
    data = spread(tmp_path / "rows", "jsonl")
    (data / "_SUCCESS").write_text("")
    (data / ".part.jsonl").write_text('{"text": "great"}')
    lines = answer(data)
    assert "Not read, since a name begins with a dot or a line: .part.jsonl, _SUCCESS" in lines
    (data / "empty.jsonl").touch()
    with pytest.raises(DataError, match="empty.jsonl is empty: mend it, or take it out of"):
        answer(data, "other")
    with pytest.raises(ConfigError, match="There is no file or folder .*nowhere"):
        answer(tmp_path / "nowhere", "third")


def test_parquet_files_of_other_columns_or_damaged_are_refused(answer, tmp_path):
    data = spread(tmp_path / "rows", "parquet")
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"id": ["1"], "text": ["great"], "n": [1.0]})
    parquet.write_table(table, data / "rows-3.parquet")
    with pytest.raises(DataError, match=r"rows-3\.parquet has other.*'id' is string, and int16"):
        answer(data)
    parquet.write_table(table.select(["id", "n"]), data / "rows-3.parquet")
    with pytest.raises(DataError, match=r"rows-3\.parquet has other.*"):
        answer(data)
    whole = (data / "rows-2.parquet").read_bytes()
    (data / "rows-3.parquet").write_bytes(whole[:200])
    with pytest.raises(DataError, match=r"rows-3\.parquet cannot be read as a Parquet file"):
        answer(data)
    assert not (tmp_path / "out").exists()


def test_a_folder_goes_on_with_the_same_run_alone(answer, tmp_path, monkeypatch):
    data = spread(tmp_path / "rows", "jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(files, "place", killing_after(5))
        with pytest.raises(killing.Stop):
            answer(data)
    before = contents(tmp_path / "out")
    with pytest.raises(ConfigError, match="go on with --resume"):
        answer(data)
    with pytest.raises(ConfigError, match="another shard rows"):
        answer(data, resume=True, shard_rows=5)
    with pytest.raises(ConfigError, match="holds a run of ptune predict"):
        answer(data, name="texts", resume=True)
    write(data / "rows-0.jsonl", ROWS[1:8])
    with pytest.raises(ConfigError, match=r"begun with another rows\.rows-0\.jsonl"):
        answer(data, resume=True)
    assert contents(tmp_path / "out") == before
    spread(tmp_path / "rows", "jsonl")
    (tmp_path / "out" / "part-000000.jsonl").write_text("")
    with pytest.raises(StoreError, match=r"part-000000\.jsonl is changed"):
        answer(data, resume=True)


def killing_after(count: int):
    """What places files, and ends the process with the last of so many."""
    place, placed = files.place, []

    def placing(whole, path):
        place(whole, path)
        placed.append(path)
        if len(placed) == count:
            raise killing.Stop

    return placing


def test_files_elsewhere_are_answered_as_those_here(answer, tmp_path):
    fsspec = pytest.importorskip("fsspec", reason="fsspec, which reads URLs, is missing")
    data = spread(tmp_path / "rows", "jsonl")
    memory = fsspec.filesystem("memory")
    for path in data.iterdir():
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    answer(data, "here")
    for number, url in enumerate(("memory://bucket", "memory://bucket/rows-*.jsonl")):
        answer(url, f"there-{number}")
        assert rows_in(tmp_path / f"there-{number}") == rows_in(tmp_path / "here")
    with pytest.raises(DataError, match="cannot be read"):
        answer("memory://bucket/nothing.jsonl", "more")
    memory.pipe("/bucket/rows-3.jsonl", b"no rows\n")
    with pytest.raises(DataError, match=r"memory://.*rows-3\.jsonl, line 1"):
        answer("memory://bucket", "more")
