import json
import signal
import time

import forked
import pytest
import tiny
import torch
from transformers import AutoModelForMaskedLM, BertConfig, BertModel

from ptune.answers.readers.next_sentence import PairHead
from ptune.base import files
from ptune.errors import ConfigError, DataError, DivergedError
from ptune.lm.language_model import LanguageModel
from ptune.pretraining import batches
from ptune.pretraining import loop as p
from ptune.pretraining.new_lm import KINDS
from ptune.pretraining.options import PretrainConfig
from ptune.pretraining.parts import Objective

SENTENCES = [
    f"The capital of {a} is {b} ."
    for a, b in zip("Austria France Italy Germany".split(), "Vienna Paris Rome Berlin".split())
]


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"{a}\n{b}" for a in SENTENCES for b in SENTENCES) + "\n"
    )
    return tmp_path / "text.txt"


def config(text, out, **settings):
    return PretrainConfig(
        **{
            "texts": [text],
            "out": out,
            "hidden_size": 32,
            "layers": 1,
            "heads": 2,
            "steps": 60,
            "batch_tokens": 256,
            "length": 32,
            "learning_rate": 5e-3,
            "vocabulary_size": 300,
            "held_out": 0.1,
            "save_minutes": 100,
            **settings,
        }
    )


def looks(out):
    return [json.loads(line) for line in (out / "training" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("objective", ["masked", "causal", "span-corruption", "prefix-lm"])
def test_every_objective_learns_and_makes_an_lm_that_loads(objective, text, tmp_path):
    said = []
    p.pretrain(config(text, tmp_path / "first", objective=objective, steps=1), said.append)
    p.pretrain(config(text, tmp_path / "lm", objective=objective), said.append)
    assert looks(tmp_path / "lm")[-1]["loss"] < 0.7 * looks(tmp_path / "first")[-1]["loss"]
    lm = LanguageModel.load(tmp_path / "lm", device="cpu")
    assert lm.kind == KINDS[objective] and "perplexity" in said[-1]


@pytest.mark.parametrize("settings", [{}, {"held_out": 0.0}, {"save_minutes": 0}])
def test_what_diverges_is_not_saved(settings, text, tmp_path):
    with pytest.raises(DivergedError, match=r"lower learning_rate \(it is 1e\+30\)"):
        p.pretrain(
            config(text, tmp_path / "lm", learning_rate=1e30, steps=4, **settings), lambda _: None
        )
    assert not (tmp_path / "lm" / "model.safetensors").exists()
    assert not (tmp_path / "lm" / "training" / "state.safetensors").exists()
    assert "nan" not in (
        log.read_text() if (log := tmp_path / "lm" / "training" / "log.jsonl").exists() else ""
    )


def test_weights_too_large_for_the_saved_format_are_not_saved(text, tmp_path, monkeypatch):
    train = p.PretrainingRun.train

    def grown(run, report):
        train(run, report)
        with torch.no_grad():
            next(run.lm.model.parameters()).mul_(1e8)

    monkeypatch.setattr(p.PretrainingRun, "train", grown)
    with pytest.raises(DivergedError, match="too large for float16"):
        p.pretrain(config(text, tmp_path / "lm", steps=2, save_dtype="float16"), lambda _: None)
    assert not (tmp_path / "lm" / "model.safetensors").exists()


def test_fp16_is_saved_and_the_vocabulary_cut(text, tmp_path):
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "old")
    tokenizer.save_pretrained(tmp_path / "old")
    (tmp_path / "words.txt").write_text("terrible\nvienna\n")
    p.pretrain(
        config(
            text,
            tmp_path / "new",
            lm=str(tmp_path / "old"),
            vocabulary_size=110,
            keep_words=tmp_path / "words.txt",
            steps=2,
            save_dtype="float16",
        )
    )
    tensors = files.read_tensors(tmp_path / "new" / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    lm = LanguageModel.load(tmp_path / "new", device="cpu")
    assert (
        lm.dtype == torch.float32
        and len(lm.tokens.plain("terrible")) == 1
        and len(lm.tokens.tokenizer) <= 110
    )


def test_an_encoder_without_a_head_gets_one(text, tmp_path):
    BertModel(BertConfig(vocab_size=len(tiny.wordpiece()), **tiny.SHAPE)).save_pretrained(
        tmp_path / "encoder"
    )
    tiny.wordpiece().save_pretrained(tmp_path / "encoder")
    p.pretrain(
        config(text, tmp_path / "lm", lm=str(tmp_path / "encoder"), vocabulary_size=None, steps=2)
    )
    assert LanguageModel.load(tmp_path / "lm", device="cpu").kind == "masked"


@pytest.mark.parametrize("relation", ["two-way", "three-way"])
def test_next_sentence_prediction(relation, tmp_path):
    """Documents of one country each: whether the second half goes on is told by the country."""
    countries = ["Austria Vienna", "France Paris", "Italy Rome", "Germany Berlin"]
    documents = [
        f"{c.split()[0]} is great and {c.split()[1]} is great .\n" * 4 for c in countries
    ] * 6
    (tmp_path / "t.txt").write_text("\n".join(documents))
    p.pretrain(
        config(
            tmp_path / "t.txt",
            tmp_path / "lm",
            next_sentence=relation,
            steps=300,
            length=24,
            learning_rate=3e-3,
            mask_share=0.1,
            held_out=0.2,
        )
    )
    head = PairHead.load(tmp_path / "lm")
    assert head.labels == batches.PAIRS[relation]
    assert looks(tmp_path / "lm")[-1]["pairs right"] > (0.75 if relation == "two-way" else 0.55)


def test_next_sentence_prediction_needs_documents(tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(SENTENCES * 4))
    with pytest.raises(DataError, match="several documents"):
        p.pretrain(config(tmp_path / "t.txt", tmp_path / "lm", next_sentence="two-way"))
    with pytest.raises(ConfigError, match="masked objective only"):
        p.pretrain(
            config(tmp_path / "t.txt", tmp_path / "lm", next_sentence="two-way", objective="causal")
        )


def test_a_killed_run_gives_the_same_lm(text, tmp_path):
    tiny.wordpiece().save_pretrained(tmp_path / "tokenizer")
    settings = {
        "texts": [str(text)],
        "tokenizer": str(tmp_path / "tokenizer"),
        "hidden_size": 32,
        "layers": 1,
        "heads": 2,
        "steps": 60,
        "batch_tokens": 256,
        "length": 32,
        "save_minutes": 0.0001,
    }
    lines = tmp_path / "lines"

    def work():
        with lines.open("w") as file:
            config = PretrainConfig(**settings, out=tmp_path / "killed")
            p.pretrain(config, lambda line: print(line, file=file, flush=True))

    process = forked.Forked(work, tmp_path)
    while not lines.exists() or len(lines.read_text().splitlines()) < 6:
        assert process.poll() is None, "the run was over before it was killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
    for name, resume in (("killed", True), ("whole", False)):
        p.pretrain(PretrainConfig(**settings, out=tmp_path / name, resume=resume))
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def test_folders_and_settings_that_do_not_go_together(text, tmp_path):
    p.pretrain(config(text, tmp_path / "lm", steps=1))
    with pytest.raises(ConfigError, match="holds a run of ptune pretrain already"):
        p.pretrain(config(text, tmp_path / "lm", steps=1))
    with pytest.raises(ConfigError, match="another learning_rate"):
        p.pretrain(config(text, tmp_path / "lm", steps=1, learning_rate=1e-4, resume=True))
    with pytest.raises(ConfigError, match="2 weights for 1 texts"):
        p.pretrain(config(text, tmp_path / "x", weights=[1, 2]))
    with pytest.raises(ConfigError, match="cannot be shared by 3 heads"):
        p.pretrain(config(text, tmp_path / "x", heads=3))
    with pytest.raises(DataError, match="none.txt cannot be read"):
        p.pretrain(config(tmp_path / "none.txt", tmp_path / "y"))


@pytest.mark.parametrize("content", [b"  \n", b"caf\xe9"])
def test_texts_that_are_refused_leave_a_folder_in_which_others_are_trained_on(
    text, tmp_path, content
):
    (tmp_path / "odd.txt").write_bytes(content)
    for model in tiny.tiny("bert"):
        model.save_pretrained(tmp_path / "lm")
    settings = {"lm": str(tmp_path / "lm"), "vocabulary_size": None, "steps": 1}
    with pytest.raises(DataError, match="odd.txt"):
        p.pretrain(config(tmp_path / "odd.txt", tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()
    p.pretrain(config(text, tmp_path / "out", **settings))
    with pytest.raises(ConfigError, match="holds a run of ptune pretrain already"):
        p.pretrain(config(text, tmp_path / "out", **settings))


def test_nothing_of_another_run_is_overwritten(text, tmp_path):
    """Neither the LM that is gone on from, nor one that something else wrote."""
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    before = (tmp_path / "lm" / "model.safetensors").read_bytes()
    for resume in (False, True):
        with pytest.raises(
            ConfigError, match="which this run did not write|There is no run of ptune pretrain"
        ):
            p.pretrain(
                config(
                    text,
                    tmp_path / "lm",
                    lm=str(tmp_path / "lm"),
                    vocabulary_size=None,
                    steps=1,
                    resume=resume,
                )
            )
    assert (tmp_path / "lm" / "model.safetensors").read_bytes() == before


def test_a_run_goes_on_with_the_same_texts_and_lm_alone(text, tmp_path):
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    settings = {"lm": str(tmp_path / "lm"), "vocabulary_size": None, "steps": 1}
    p.pretrain(config(text, tmp_path / "out", **settings))
    text.write_text(text.read_text().replace("Vienna", "Paris"))
    with pytest.raises(ConfigError, match="begun with another texts"):
        p.pretrain(config(text, tmp_path / "out", resume=True, **settings))
    text.write_text(text.read_text().replace("Austria is Paris", "Austria is Vienna"))
    tiny.tiny("bert", seed=1)[0].save_pretrained(tmp_path / "lm")
    with pytest.raises(ConfigError, match="begun with another lm."):
        p.pretrain(config(text, tmp_path / "out", resume=True, **settings))


@pytest.mark.parametrize("objective", ["masked", "span-corruption"])
def test_a_learned_vocabulary_is_that_of_every_run(objective, text, tmp_path):
    for name in ("one", "two"):
        p.pretrain(config(text, tmp_path / name, objective=objective, steps=2))
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "model.safetensors"
    ).read_bytes()


def test_several_texts_of_one_name(tmp_path):
    """w.en and w.de, and two files of one name in two folders, are each read for themselves."""
    for name in ("w.en", "w.de", "other/w.en"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(
            "\n\n".join(f"{sentence} {name}" for sentence in SENTENCES) + "\n"
        )
    texts = [tmp_path / name for name in ("w.en", "w.de", "other/w.en")]
    lm = LanguageModel(*tiny.tiny("gpt2"))
    read = batches.read(
        texts,
        lm,
        tmp_path / "text",
        objective=Objective("causal", "none", "characters", 0.15),
        length=32,
        held_out=0.0,
        seed=0,
    )
    corpora = read.corpora
    words = [lm.tokens.tokenizer.decode(text_corpus.ids.tolist()) for text_corpus in corpora]
    assert [(text.count("w.en"), text.count("w.de"), text.count("other/")) for text in words] == [
        (4, 0, 0),
        (0, 4, 0),
        (4, 0, 4),
    ]


def test_a_new_lm_is_one_that_transformers_knows(text, tmp_path):
    p.pretrain(config(text, tmp_path / "lm", steps=1))
    assert type(AutoModelForMaskedLM.from_pretrained(tmp_path / "lm")).__name__ == "BertForMaskedLM"


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"objective": "span-corruption", "tokenizer": "words"},
            "needs a tokenizer with sentinels",
        ),
        ({"length": 600, "lm": "old", "vocabulary_size": None}, "positions|length"),
    ],
)
def test_a_step_is_tried_before_anything_is_written(settings, message, text, tmp_path):
    tiny.wordpiece().save_pretrained(tmp_path / "words")
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "old")
    paths = {
        name: str(tmp_path / value) for name, value in settings.items() if value in ("words", "old")
    }
    with pytest.raises(ConfigError, match=message):
        p.pretrain(config(text, tmp_path / "lm", **{**settings, **paths}))
    assert not (tmp_path / "lm").exists()


def test_what_is_tried_changes_nothing(text, tmp_path, monkeypatch):
    """The LM of a run is the same as that of one of which no step was tried."""
    settings = {"steps": 3, "next_sentence": "two-way"}
    p.pretrain(config(text, tmp_path / "tried", **settings))
    monkeypatch.setattr(p, "_rehearse", lambda config, lm: None)
    p.pretrain(config(text, tmp_path / "plain", **settings))
    for name in ("model.safetensors", "pair_head.safetensors"):
        both = [(tmp_path / folder / name).read_bytes() for folder in ("tried", "plain")]
        assert both[0] == both[1]
