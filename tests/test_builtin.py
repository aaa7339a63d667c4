"""The LMs and the prompts that come with ptune, and the example that writes: nothing of it asks the
network."""

import io
import json
import pathlib
import random
import re
import socket
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from scripts_kit import load_script

from ptune import LanguageModel, load, read_rows
from ptune.cli import main
from ptune.settings import BUILTIN_LMS
from ptune.tasks import yaml_task

ROOT = pathlib.Path(__file__).parents[1]
COUNTRIES = ROOT / "examples" / "countries"
FACTS = ROOT / "src" / "ptune" / "builtin" / "facts"
KINDS = {"builtin": "masked", "builtin-causal": "causal"}
MEGABYTES = {"builtin": 30, "builtin-causal": 6}
VALUES = ("country", "capital", "continent", "language", "currency")


@pytest.fixture(scope="module", autouse=True)
def without_network():
    """No connection can be made."""

    def refuse(*_):
        raise AssertionError("the network was asked")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


def rows_of(split):
    return read_rows(COUNTRIES / f"{split}.jsonl")


def share_exact(rows, texts):
    """The share of the values of rows that stand in their texts."""
    stands = [row[value] in text for row, text in zip(rows, texts) for value in VALUES]
    return sum(stands) / len(stands)


@pytest.mark.parametrize("name", BUILTIN_LMS)
def test_an_lm_that_comes_along(name):
    folder = BUILTIN_LMS[name]
    lm = LanguageModel.load(name, device="cpu")
    assert lm.kind == KINDS[name] and lm.source == name
    assert bool(lm.capabilities.writing) == (lm.kind == "causal") and lm.capabilities.prefix
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < MEGABYTES[name] * 1e6
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {str(weights.get_tensor(key).dtype) for key in weights.keys()} == {"torch.float16"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    count = sum(parameter.numel() for parameter in lm.model.parameters())
    assert f"{count / 1e6:.1f} M parameters" in card and "license: apache-2.0" in card


def test_the_card_has_the_command_that_makes_the_lm():
    """As the script has it."""
    script = (ROOT / "scripts" / "make_causal_lm.sh").read_text(encoding="utf-8")
    card = (BUILTIN_LMS["builtin-causal"] / "README.md").read_text(encoding="utf-8")
    commands = script[script.index("python ") : script.index("\nfor ")]
    assert commands.replace('"$1"', "FACTBOOK.txt") in card


def test_the_rows_of_the_example_are_what_the_script_makes(tmp_path):
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_country_texts.py", FACTS, tmp_path],
        check=True,
        capture_output=True,
    )
    for split in ("train", "dev", "test"):
        lines = (tmp_path / f"{split}.jsonl").read_bytes()
        assert lines == (COUNTRIES / f"{split}.jsonl").read_bytes()
    names = [row["country"] for split in ("train", "dev", "test") for row in rows_of(split)]
    assert len(set(names)) == len(names) == 156
    for row in rows_of("test"):
        assert share_exact([row] * len(row["text"]), row["text"]) == 1


@pytest.fixture(scope="module")
def tables():
    """Documents as the built-in causal LM has read them."""
    module = load_script("make_tables")
    world, draw = module.countries(FACTS), random.Random(1)
    return [module.document(world, draw) for _ in range(4000)]


def test_the_lm_read_no_table_of_a_test_country_and_no_text_of_the_example(tables):
    world = load_script("make_tables").countries(FACTS)
    asked = {row["country"] for split in ("dev", "test") for row in rows_of(split)}
    assert {row["country"] for row in rows_of("train")} <= {*world.known}
    assert not asked & {*world.known, *world.names}
    subjects = {
        match[1]
        for line in tables
        if (match := re.match(r"(?:country|name|state)(?::| =) ([^|,;=>]+?)(?: [|=-]|[,;])", line))
    }
    assert len(subjects) > 200 and not asked & subjects
    text = "\n".join(tables)
    sentences = [
        sentence.strip(" .")
        for split in ("train", "dev", "test")
        for row in rows_of(split)
        for one in row["text"]
        for sentence in one.split(". ")
        if not re.search(r" lies in \w+\.?$", sentence)  # the one that is worded so there too
    ]
    assert len(sentences) > 600 and not [one for one in sentences if one in text]


def test_a_text_says_all_that_its_table_says(tables):
    """Each value of a field that stands in the table stands in the text behind it."""
    seen = 0
    for line in tables:
        joint = re.search(r" -> | Text: | In words: ", line)
        end = joint.start() if joint else line.rindex(" = ")
        cells, text = line[:end], line[end:]
        for cell in re.split(r" \| |, |; ", cells):
            name, value = re.split(r": | = ", cell)
            if name not in ("country", "name", "state"):
                assert value.lower() in text.lower(), line
                seen += 1
    assert seen > 10_000


def test_it_began_as_an_lm_that_says_again_what_stood_before(tmp_path, tables):
    """Rows of tokens at random, twice: the second time their next token is the first choice. With
    the weights of either layer at random it is not."""
    module = load_script("make_copying_lm")
    (tmp_path / "text.txt").write_text("\n".join(tables), encoding="utf-8")
    module.main(tmp_path / "lm", tmp_path / "text.txt")
    lm = LanguageModel.load(tmp_path / "lm", device="cpu")
    ids = torch.randint(300, len(lm.tokens.tokenizer), (16, 30), generator=torch.manual_seed(0))
    twice = torch.cat([ids, ids], 1)

    def right():
        with torch.no_grad():
            chosen = lm.model(twice).logits[:, 30:-1].argmax(-1)
        return float((chosen == twice[:, 31:]).float().mean())

    assert right() > 0.75
    for layer in (0, 1):
        weight = lm.model.model.layers[layer].self_attn.q_proj.weight
        kept = weight.detach().clone()
        torch.nn.init.normal_(weight, 0, 0.02)
        assert right() < 0.1
        weight.data.copy_(kept)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A prompt of the example, trained on fewer rows for fewer steps."""
    folder = tmp_path_factory.mktemp("learned")
    task = (ROOT / "examples" / "countries.yaml").read_text(encoding="utf-8")
    task = task.replace(" countries/", f" {COUNTRIES}/").replace("epochs: 5", "steps: 60")
    task = task.replace("data: {", "data: {take: {dev: 4, test: 4}, ")
    (folder / "countries.yaml").write_text(task, encoding="utf-8")
    main.main(
        ["train", str(folder / "countries.yaml"), "--device", "cpu"]
        + ["--out", str(folder / "countries")]
    )
    return folder / "countries"


def test_the_example_writes_the_facts_of_test_countries(learned, monkeypatch, capsys):
    rows = [{value: row[value] for value in VALUES} for row in rows_of("test")[:12]]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(row) + "\n" for row in rows)))
    main.main(["generate", str(learned), "--device", "cpu"])
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    texts = [row["ptune"]["text"] for row in written]
    assert [row["country"] for row in written] == [row["country"] for row in rows]
    assert share_exact(rows, texts) > 0.6, texts
    others = rows[1:] + rows[:1]
    swapped = [{**other, "country": row["country"]} for row, other in zip(rows, others)]
    texts = load(learned, device="cpu").generate(swapped)
    assert share_exact(swapped, texts) > 0.5, "the row decides, not what the LM has read"


def test_the_server_writes(learned):
    pytest.importorskip("fastapi", reason="fastapi is missing: pip install 'ptune[serve]'")
    from starlette.testclient import TestClient

    from ptune.serving.http.app import create_app
    from ptune.serving.options import ServeConfig
    from ptune.serving.server import PromptServer

    row = {value: rows_of("test")[0][value] for value in VALUES}
    server = PromptServer(ServeConfig(prompts=(learned,), device="cpu"))
    try:
        server.start()
        with TestClient(create_app(server), base_url="http://127.0.0.1") as client:
            asked = {"model": "countries", "prompt": json.dumps(row)}
            answer = client.post("/v1/completions", json=asked).json()
    finally:
        server.scheduler.abandon()
        server.close()
    (expected,) = load(learned, device="cpu").generate([row])
    assert answer["choices"][0]["text"].strip() == expected.strip() != ""


def test_a_saved_prompt_names_the_lm_and_no_place_of_this_machine(learned, capsys):
    lm = json.loads((learned / "prompt.json").read_text(encoding="utf-8"))["lm"]
    assert lm["source"] == "builtin-causal"
    assert lm["absolute"] is None and lm["relative"] is None
    main.main(["push", str(learned), "me/countries", "--dry-run"])
    printed = capsys.readouterr().out
    assert "Nothing was sent" in printed and "base_model" not in printed.partition("# ")[0]


def test_a_folder_of_its_name_is_not_taken_for_it(tmp_path):
    for name in ("builtin-causal", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / "task.yaml").write_text(f"name: t\nlm: {name}\ntemplate: '{{x}} {{mask}}'\n")
        read = yaml_task.read(tmp_path / "task.yaml").lm
        assert read == (name if name == "builtin-causal" else str(tmp_path / name))


def test_a_task_for_text_on_the_one_that_fills_masks_is_told_of_it(capsys, tmp_path):
    task = str(ROOT / "examples" / "countries.yaml")
    with pytest.raises(SystemExit) as ended:
        main.main(["train", task, "--lm", "builtin", "--out", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "builtin-causal needs no download" in capsys.readouterr().err


def test_a_probe_says_that_it_has_read_the_facts(tmp_path, capsys):
    main.main(
        ["probe", "--lm", "builtin-causal", "--relations", "P30", "--methods", "manual"]
        + ["--device", "cpu", "--out", str(tmp_path / "probe")]
    )
    assert "read sentences that state the test facts" in capsys.readouterr().out
