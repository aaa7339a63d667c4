"""The probe from facts to report, on a tiny LM and a table of its own."""

import json
import pathlib
import re
import signal
import time
from random import Random

import forked
import pytest
import tiny

from ptune.answers.label_words import Verbalizer
from ptune.cli import main
from ptune.errors import ConfigError, DataError, DivergedError, TemplateError
from ptune.experiments.options import ProbeConfig
from ptune.experiments.probe import probe_setup
from ptune.experiments.probe.probe import probe
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.reports.schemas import Results
from ptune.template.language import Template

ROOT = pathlib.Path(__file__).parents[2]
WORDS = (
    "vienna paris rome berlin madrid london austria france italy germany euro film city "
    "people east capital danube great"
).split()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny LM's folder and facts in LAMA's layout: three relations, the second with ambiguous
    subjects."""
    path = tmp_path_factory.mktemp("world")
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(path / "lm")
    tokenizer.save_pretrained(path / "lm")
    lines = []
    for number in range(3):
        for split, count in (("train", 14), ("dev", 6), ("test", 8)):
            folder = path / "facts" / "original" / f"R{number}"
            folder.mkdir(parents=True, exist_ok=True)
            rows = [
                {
                    "sub_label": f"{WORDS[(i * 5 + number) % 18]} {WORDS[i % 7]} {split}",
                    "obj_label": WORDS[(i * (number + 2)) % 9],
                }
                for i in range(count)
            ]
            (folder / f"{split}.jsonl").write_text(
                "".join(
                    json.dumps(row) + "\n"
                    for row in [*rows, {"sub_label": "x", "obj_label": "Timbuktu"}]
                )
            )
        lines.append(
            json.dumps(
                {
                    "relation": f"R{number}",
                    "template": "[X] is in [Y] .",
                    "label": f"is in {number}",
                    "wordings": ["[X] is in [Y] .", "The [X] of [Y] .", "[Y] is [X] ."],
                }
            )
        )
    (path / "facts" / "relations.jsonl").write_text("\n".join(lines) + "\n")
    return path


def config(world, out, **more):
    return ProbeConfig(
        **{
            "lm": str(world / "lm"),
            "facts": str(world / "facts"),
            "out": out,
            "device": "cpu",
            "wordings": True,
            "train": {"epochs": 3, "batch_size": 4},
            **more,
        }
    )


def read(out):
    return json.loads((out / "results.json").read_text())


def test_all_methods(world, tmp_path, capsys):
    said = []
    results = probe(config(world, tmp_path, seeds=2, methods="all"), said.append)
    assert any(line.startswith("This takes ") for line in said)
    raw = read(tmp_path)
    assert list(raw["methods"]) == ["manual", "p-tuning", "fine-tune", "manual+fine-tune"]
    assert raw == json.loads(results.model_dump_json()) and Results.model_validate(raw)
    assert raw["methods"]["p-tuning"]["relations"]["R1"]["rows"] == 8 and raw["dropped"] == {
        "R0": 3,
        "R1": 3,
        "R2": 3,
    }
    for name, method in raw["methods"].items():
        values = [relation["p@1"] for relation in method["relations"].values()]
        assert (
            method["p@1"] == pytest.approx(sum(values) / 3) == pytest.approx(method["micro"]["p@1"])
            and method["filtered p@1"] >= method["p@1"]
        )
        assert method["seeds"] == (1 if name == "manual" else 2)
    manual, tuned = raw["methods"]["manual"], raw["methods"]["fine-tune"]
    assert (manual["trained_parameters"], manual["kept_parameters"]) == (0, 0) and tuned[
        "trained_parameters"
    ] == tuned["kept_parameters"] > 10_000
    assert raw["methods"]["p-tuning"]["kept_parameters"] == 9 * 32
    assert (
        len(raw["wordings"]["R0"]) == 3
        and raw["settings"]["allowed"] > 10
        and "torch" in raw["versions"]
    )
    assert sum(line.startswith("p-tuning") for line in said) == 6
    page = (tmp_path / "report.html").read_text()
    for wanted in (
        "P-tuning",
        "Manual prompt + fine-tuning",
        "is in 2",
        "<svg",
        "Learned tokens",
        "The same question in other words",
        "3 relations, 4 methods",
    ):
        assert wanted in page
    assert "P@1 on test rows" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "prompts").iterdir()) == sorted(
        f"p-tuning.@r{r}.{s}" for r in range(3) for s in range(2)
    )
    assert not (tmp_path / "checkpoints").exists() or not any((tmp_path / "checkpoints").iterdir())


def test_optiprompt_trains_the_words_of_the_manual_prompt(world, tmp_path):
    results = probe(config(world, tmp_path, methods="manual,optiprompt"), lambda line: None)
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("prompts/*/prompt.json")]
    assert [one["template"] for one in kept] == ['{subject} {soft:"is in"} {mask} .'] * 3
    assert results.methods["optiprompt"].trained_parameters == 2 * 32


def test_the_lm_is_as_it_was_after_each_tuning(world, tmp_path):
    """Fine-tuning one relation must not help the next, nor a method that comes later."""
    after = probe(config(world, tmp_path / "a", methods="fine-tune,manual"))
    before = probe(config(world, tmp_path / "b", methods="manual,fine-tune"))
    assert after.methods == before.methods
    alone = probe(config(world, tmp_path / "c", methods="fine-tune", relations="R2"))
    assert alone.methods["fine-tune"].relations["R2"] == after.methods["fine-tune"].relations["R2"]


def test_together_or_one_by_one(world, tmp_path):
    together = probe(config(world, tmp_path / "a", methods="p-tuning", together=3))
    apart = probe(config(world, tmp_path / "b", methods="p-tuning", together=1))
    for name, relation in together.methods["p-tuning"].relations.items():
        other = apart.methods["p-tuning"].relations[name]
        assert relation.model_extra == pytest.approx(other.model_extra, abs=1e-6)


def test_a_finished_run_is_only_read_again(world, tmp_path, monkeypatch):
    probe(config(world, tmp_path, methods="manual,p-tuning"))
    first = (tmp_path / "results.json").read_bytes()
    (tmp_path / "results.json").unlink()
    monkeypatch.setattr("ptune.experiments.probe.probe_trials.fit", None)
    probe(config(world, tmp_path, methods="manual,p-tuning", resume=True))
    assert (tmp_path / "results.json").read_bytes() == first
    with pytest.raises(
        ConfigError, match="holds a run of ptune probe already: go on with --resume"
    ):
        probe(config(world, tmp_path, methods="manual,p-tuning"))
    with pytest.raises(ConfigError, match=r"begun with another seeds \(1, now 2\)"):
        probe(config(world, tmp_path, methods="manual,p-tuning", seeds=2, resume=True))
    with pytest.raises(ConfigError, match="begun with another methods"):
        probe(
            config(
                world,
                tmp_path,
                methods="manual,p-tuning",
                resume=True,
                train={"epochs": 4, "batch_size": 4},
            )
        )


def test_a_real_kill(world, tmp_path):
    """kill -9 at a random moment, and the same results.json; ``test_kills`` dies between every two
    writes."""
    options = "--methods manual,p-tuning --device cpu --wordings True --together 1"
    training = "--epochs 5 --patience 0 --batch-size 2 --save-seconds 0".replace("--", "--train.")
    given = ["--lm", world / "lm", "--facts", world / "facts", *f"{options} {training}".split()]
    out = tmp_path / "killed"
    process = forked.command(["probe", *given, "--out", out], tmp_path)
    while len(list(out.glob("results/*/*.json"))) < 4:
        assert process.poll() is None, "the run was over before it was killed"
        time.sleep(0.005)
    time.sleep(Random(time.time_ns()).random() * 0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
    main.main(["probe", *map(str, given), "--out", str(out), "--resume"])
    train = {"epochs": 5, "patience": 0, "batch_size": 2}
    probe(config(world, tmp_path / "whole", methods="manual,p-tuning", together=1, train=train))
    assert (out / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()


def test_a_probe_that_diverges_tells_no_figures(world, tmp_path, capsys):
    """No score is greater than NaN, so that every answer would be the first."""
    said, hot = [], {"epochs": 2, "lm_learning_rate": 1e30, "clip": 0.0}
    with pytest.raises(
        DivergedError, match=r"Every training diverged.*lower lm_learning_rate \(it is 1e\+30\)"
    ):
        probe(config(world, tmp_path, methods="fine-tune", relations="R0", train=hot), said.append)
    raw = read(tmp_path)["methods"]["fine-tune"]
    assert "p@1" not in raw and (raw["diverged"], raw["lost"]) == (1, 1) == (
        raw["relations"]["R0"]["diverged"],
        raw["relations"]["R0"]["lost"],
    )
    assert any(line.startswith("fine-tune") and "diverged, no figures" in line for line in said)
    assert any(
        "R0, fine-tune, seed 0: the training diverged; it had no finite state" in line
        for line in said
    )
    assert (
        "diverged" in capsys.readouterr().out
        and "diverged" in (tmp_path / "report.html").read_text()
    )


def test_relations_of_any_name_get_their_report(tmp_path, world):
    rows = "".join(
        f"{WORDS[i % 18]} {i},{WORDS[i % 3]},{name}\n" for i in range(40) for name in ("0", "P1.2")
    )
    (tmp_path / "t.csv").write_text("subject,object,relation\n" + rows)
    probe(
        config(
            world,
            tmp_path / "out",
            facts=str(tmp_path / "t.csv"),
            manual="[X] is in [Y] .",
            methods="manual",
            allow_unknown=True,
        )
    )
    assert "P1.2" in (tmp_path / "out" / "report.html").read_text()


def test_a_causal_lm_and_a_table(tmp_path):
    network, tokenizer = tiny.tiny("gpt2")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    (tmp_path / "t.csv").write_text(
        "subject,object\n"
        + "".join(f"{WORDS[i % 18]} {i},{['the', 'is', 'of'][i % 3]}\n" for i in range(40))
    )
    (tmp_path / "words.txt").write_text("the\nis\nof\nand\nfilm\n")
    said = []
    given = {
        "lm": str(tmp_path / "lm"),
        "facts": str(tmp_path / "t.csv"),
        "vocab": tmp_path / "words.txt",
    }
    results = probe(
        config(
            tmp_path, tmp_path / "out", **given, manual="[X] is in [Y] .", methods="manual,p-tuning"
        ),
        said.append,
    )
    assert set(results.methods) == {"manual", "p-tuning"}
    assert any("without '.'" in line for line in said) and any(
        "without '{soft:3}'" in line for line in said
    )
    with pytest.raises(ConfigError, match="no hand-written prompt"):
        probe(config(tmp_path, tmp_path / "other", **given, methods="manual"))
    with pytest.raises(ConfigError, match="no hand-written prompt"):
        probe(
            config(
                tmp_path,
                tmp_path / "other",
                **given,
                manual="[Y] is where [X] is .",
                methods="manual",
            ),
            said.append,
        )
    assert "which a causal LM cannot see" in said[-1]


def test_rows_that_bring_their_sentence_are_asked_as_they_stand(world, tmp_path):
    sentences = {"the film is a [MASK].": "city", "the best [MASK] in Rome": "film"}
    sentences |= {"Vienna lies on the [MASK].": "Danube", "it was a great [MASK] .": "film"}
    rows = [{"masked_sentences": [text], "obj_label": word} for text, word in sentences.items()]
    (tmp_path / "Squad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["city", "film", "Danube", "euro", "people"]
    (tmp_path / "words.txt").write_text("\n".join(words))
    given = {"facts": str(tmp_path / "Squad.jsonl"), "vocab": tmp_path / "words.txt"}
    results = probe(config(world, tmp_path / "out", **given, methods="manual"))
    figures = read(tmp_path / "out")["methods"]["manual"]["relations"]["Squad"]
    assert figures["rows"] == 4 and results.majority == {"Squad": 0.5}
    model = PromptModel(LanguageModel.load(world / "lm", device="cpu"))
    ranks = []
    for number, (text, word) in enumerate(sentences.items()):
        labels = Verbalizer.from_words({word: word for word in words})
        template = Template.parse(text.replace("[MASK]", "{mask}"))
        task = model.add(Task(str(number), template, labels, "y", loss="vocabulary"))
        (scores,) = model.scores(model.encode(task, [{"y": word}]))
        ranks.append(1 + int((scores > scores[words.index(word)]).sum()))
    assert figures["p@1"] == sum(rank == 1 for rank in ranks) / 4
    assert figures["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / 4)
    with pytest.raises(ConfigError, match="bring their sentences .* p-tuning would learn"):
        probe(config(world, tmp_path / "other", **given))


def test_wrong_arguments(world, tmp_path):
    for more, message in (
        ({"methods": "p-tunning"}, "Did you mean 'p-tuning'"),
        ({"relations": "R7"}, "no relation 'R7'"),
        ({"methods": ","}, "No method is named"),
        ({"methods": "manual", "init": "zeros"}, "--init is of methods that train a prompt"),
        ({"methods": "fine-tune", "train": {"learning_rate": 1}}, "not trained by fine-tune"),
        *(
            ({f"search_{name}": 3}, f"--search-{name} is of")
            for name in ("rows", "steps", "budget")
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            probe(config(world, tmp_path / "x", **more))
    assert not (tmp_path / "x").exists()


def test_every_method_is_tried_before_the_first(world, tmp_path):
    """The last method is at fault: there are no unlabelled rows for the auxiliary loss."""
    faulty = {"epochs": 1, "batch_size": 4, "auxiliary": 0.1}
    with pytest.raises(ConfigError, match="unlabelled rows"):
        probe(config(world, tmp_path / "out", methods="manual,fine-tune", train=faulty))
    assert not (tmp_path / "out").exists()


def test_rows_that_are_shortened_are_told(world, tmp_path):
    """With how many of which split, by how many tokens at most; as a warning where it is more than
    one in ten."""
    rows = [f"{WORDS[i % 18]} {i},{WORDS[i % 3]}" for i in range(60)]
    rows[0] = f"{'vienna ' * 300},{WORDS[0]}"
    (tmp_path / "t.csv").write_text("subject,object\n" + "\n".join(rows) + "\n")
    said = []
    given = {"facts": str(tmp_path / "t.csv"), "methods": "p-tuning", "relations": ""}
    given["allow_unknown"] = True
    template = "{soft:2} {subject|shorten} {mask}"
    probe(config(world, tmp_path / "out", **given, template=template), said.append)
    shortened = [line for line in said if "were shortened" in line]
    assert len(shortened) == 1, shortened
    sentence = shortened[0]
    assert re.search(
        r"1 of \d+ (train|dev|test) rows were shortened to fit, by \d+ tokens", sentence
    )
    with pytest.raises(TemplateError, match="The row needs"):
        probe(config(world, tmp_path / "whole", **given, template="{soft:2} {subject} {mask}"))
    assert not (tmp_path / "whole").exists()


def test_a_result_of_another_probe_is_refused(world, tmp_path):
    """A file that was copied from another folder."""
    given = {"methods": "manual", "relations": "R0"}
    probe(config(world, tmp_path / "a", **given))
    probe(config(world, tmp_path / "b", **given, wordings=False))
    file = pathlib.Path("results") / "manual" / "@r0.0.json"
    (tmp_path / "a" / file).write_bytes((tmp_path / "b" / file).read_bytes())
    with pytest.raises(ConfigError, match=r"another settings.wordings \(false, now true\)"):
        probe(config(world, tmp_path / "a", **given, resume=True))


def test_the_published_schema_is_that_of_the_results():
    """Where the lines of a description break is no part of it."""
    schema = json.dumps(Results.model_json_schema()).replace("\\n", " ")
    published = json.loads((ROOT / "docs" / "results.schema.json").read_text())
    assert published == json.loads(" ".join(schema.split()))


def test_subjects_that_the_lm_does_not_know_are_refused_or_told(tmp_path):
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    rows = [f"\u56fd{number},vienna\n" for number in range(30)]
    (tmp_path / "facts.csv").write_text("subject,object\n" + "".join(rows))
    given = {"lm": str(tmp_path / "lm"), "facts": str(tmp_path / "facts.csv")}
    asked = config(tmp_path, tmp_path / "out", **given, manual="[X] is in [Y] .", methods="manual")
    with pytest.raises(DataError, match="The subjects of the train rows: .*--allow-unknown"):
        probe(asked, lambda line: None)
    said = []
    probe(asked.model_copy(update={"allow_unknown": True}), said.append)
    assert sum("unknown to this LM's vocabulary" in line for line in said) == 3


def test_the_vocabulary_of_the_papers_stands_beside_the_facts(tmp_path):
    lm = LanguageModel(*tiny.tiny("bert"))
    config = ProbeConfig(facts=str(tmp_path), vocab=pathlib.Path("paper"))
    with pytest.raises(ConfigError, match="29k-vocab.json"):
        probe_setup.allowed_words(config.vocab, config.facts, lm)
    (tmp_path / "29k-vocab.json").write_text('{"bert-base-cased": ["great"], "roberta": ["Ġbad"]}')
    assert probe_setup.allowed_words(config.vocab, config.facts, lm) == ["great"]
