"""The tasks that come with ptune: their files, and the real rows that they name."""

import functools
import pathlib
import re

import pytest
import tiny

import ptune
from ptune.answers.from_row import Span
from ptune.answers.label_words import Verbalizer
from ptune.cli.train import read_task
from ptune.errors import ConfigError, TemplateError
from ptune.experiments.compare.compare_rows import read_tasks
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.tasks import model_task, yaml_task
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.task_form import USUAL
from ptune.tasks.rows.splits import SPLITS, read
from ptune.tasks.schema import TaskConfig
from ptune.tasks.task_members import Member
from ptune.template.language import Sep, Soft, Template
from ptune.template.tokenizer import Tokens
from ptune.training.methods import METHODS

GPT2 = Tokens(tiny.byte_level(False))
FOLDER = pathlib.Path(ptune.__file__).parent / "tasks" / "named"
# Of each task how many patterns, those of them that a causal LM can read, its verbalizers, and its
# metrics.
TASKS = {
    "boolq": (3, 2, 2, "accuracy"),
    "cb": (5, 1, 2, "accuracy f1-macro"),
    "cb-full": (5, 1, 2, "accuracy f1-macro"),
    "copa": (2, 2, 0, "accuracy"),
    "multirc": (3, 3, 1, "f1a em accuracy"),
    "record": (1, 0, 0, "record-f1 record-em"),
    "rte": (5, 1, 2, "accuracy"),
    "rte-full": (5, 1, 2, "accuracy"),
    "wic": (3, 3, 1, "accuracy"),
    "wsc": (3, 3, 0, "accuracy"),
    "sst2": (5, 3, 2, "accuracy"),
    "sst5": (5, 3, 2, "accuracy"),
    "mr": (5, 3, 2, "accuracy"),
    "trec": (5, 2, 2, "accuracy"),
    "agnews": (6, 2, 2, "accuracy"),
}
LABELS = {"copa": {"0", "1"}, "wsc": {"true", "false"}}
# How many rows of each split there are in all.
ROWS = {
    "boolq": (32, 32, 3270, 0),
    "cb": (32, 32, 56, 0),
    "cb-full": (250, 28, 28, 0),
    "copa": (32, 32, 100, 400),
    "multirc": (154, 167, 4848, 1000),
    "record": (32, 16, 16, 0),
    "rte": (32, 32, 277, 0),
    "rte-full": (2490, 139, 138, 0),
    "wic": (32, 32, 638, 1000),
    "wsc": (32, 32, 104, 554),
    "sst2": (32, 32, 500, 0),
    "sst5": (80, 80, 500, 0),
    "mr": (32, 32, 500, 1000),
    "trec": (96, 96, 500, 1000),
    "agnews": (64, 64, 500, 0),
}


def config_of(name: str) -> TaskConfig:
    return yaml_task.read(FOLDER / f"{name}.yaml")


@functools.cache
def rows_of(name, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTUNE_DATA", str(data))
        config = config_of(name)
        return config, read(config.data, config.target, tuple(config.labels))


@pytest.fixture(scope="module")
def lm(minilm_mlm):
    return LanguageModel.load(minilm_mlm, device="cpu", dtype="float32")


def test_every_file_is_a_task():
    assert {path.stem for path in FOLDER.iterdir()} == set(TASKS) == set(ROWS)


@pytest.mark.parametrize("name", TASKS)
def test_what_a_file_says(name):
    config, (patterns, causal, verbalizers, metrics) = config_of(name), TASKS[name]
    command, what, *_ = (FOLDER / f"{name}.yaml").read_text("utf-8").splitlines()
    assert (
        command.startswith(f"# ptune compare {name} ")
        and what.startswith("# ")
        and what.endswith(".")
    )
    version = (
        2 if any("|strip}" in text for text in config.patterns) else 1
    )  # bare strip takes other signs off since
    assert (config.name, config.version, len(config.patterns), config.metrics) == (
        name,
        version,
        patterns,
        tuple(metrics.split()),
    )
    assert len(set(config.patterns)) == patterns and not any(
        isinstance(part, Soft) for text in config.patterns for part in Template.parse(text).parts
    )
    assert any(isinstance(part, Soft) for part in Template.parse(config.template).parts)
    assert len([words for words in (config.labels, *config.verbalizers) if words]) == verbalizers
    assert all(tuple(words) == tuple(config.labels) for words in config.verbalizers)
    assert bool(config.labels) + bool(config.choices) + bool(config.span) == 1
    assert config.data.relabel == (
        {"train": {"0": "0", "1": "0", "3": "1", "4": "1"}} if name == "sst2" else {}
    )
    readable = []
    for text in (config.template, *config.patterns):
        try:
            readable.append(Template.parse(text).for_lm(GPT2, "causal")[0])
        except TemplateError as error:
            assert "which a causal LM cannot see" in str(error)
    assert len(readable) == causal + (name != "record") and not any(
        isinstance(part, Sep) for template in readable for part in template.parts
    )


# Of each task that knows its papers' code, what it asks of a row there, first P-tuning's.
CODE = {
    "boolq": ["It -- it is.. [P] Question: is it so? Answer: __."],
    "cb": ["It may be. | it is? [P] answer: __"],
    "copa": [
        "it fell or it flew? It broke so [P] __.",
        '"it fell" or "it flew"? It broke, so __.',
        "it fell or it flew? It broke, so __.",
    ],
    "multirc": ["It rains.. Question: what falls?? Is it rain? [P] __."],
    "record": [None, "- Ann met Bob. Then __ left."],
    "rte": ["It may be. Question: it is? [P] Answer: __."],
    "wic": [
        "a bank. | the bank. [P] *bank *? __",
        '"a bank." / "the bank." Similar sense of "bank"? __.',
        "a bank. the bank. Does bank have the same meaning in both sentences? __",
    ],
    "wsc": [
        "Ann saw *her* . [P] pronoun '*her*' refers to __.",
        "Ann saw *her* . The pronoun '*her*' refers to __.",
        "Ann saw *her* . In the previous sentence, the pronoun '*her*' refers to __.",
        "Ann saw *her* . Question: In the passage above, what does the pronoun '*her*' refer to? "
        "Answer: __.",
    ],
}
CODE_ROW = {
    "passage": "It rains.",
    "question": "what falls?",
    "answer": "rain",
    "premise": "It may be.",
    "hypothesis": "it is",
    "lower1": "it fell",
    "lower2": "it flew",
    "connective": "so",
    "pause": ",",
    "dashed": "- Ann met Bob.",
    "before": "Then",
    "after": " left.",
    "word": "bank",
    "sentence1": "a bank.",
    "sentence2": "the bank.",
    "marked": "Ann saw *her* .",
    "pronoun": "her",
}
CODE_ROWS = {
    "boolq": {"passage": "It -- it is.", "question": "is it so"},
    "copa": {"premise": "It broke."},
}


@pytest.mark.parametrize("name", CODE)
def test_the_papers_code(name):
    config, paper = yaml_task.read(pathlib.Path(name), "code"), config_of(name)
    assert (config.preset, config.pet.fractions) == ("code", "cut")
    assert (paper.preset, paper.pet.fractions, paper.code) == (None, "round", None)
    assert config.choices == (("lower1", "lower2") if name == "copa" else paper.choices)
    wanted = CODE[name]
    row = CODE_ROW | CODE_ROWS.get(name, {})
    if wanted[0] is None:
        assert config.template == paper.template
    else:
        assert written(config.template, row) == wanted[0]
    if wanted[1:]:
        assert [written(text, row) for text in config.patterns] == wanted[1:]
    else:
        assert config.patterns == paper.patterns


def written(text: str, row: dict[str, str]) -> str:
    """A template with a row's texts in it; one soft token is [P], a separator |, the answer __."""
    signs = {"soft:1": "[P]", "sep": "|", "mask": "__"}

    def of(part: re.Match[str]) -> str:
        value = signs.get(part[1]) or row[part[1]]
        return value.rstrip(".") if "strip" in part[2] else value

    return re.sub(r"\{([^|}]+)([^}]*)\}", of, Template.parse(text).source)


def test_a_task_without_its_papers_code_is_refused():
    with pytest.raises(ConfigError, match="trec.yaml says nothing under code.*leave preset out"):
        yaml_task.read(pathlib.Path("trec"), "code")


def test_the_commands_take_the_papers_code(tmp_path):
    task = read_task(["copa", "--preset", "code", "--out", str(tmp_path)])
    assert task.template == yaml_task.read(pathlib.Path("copa"), "code").template
    given = read_task(["copa", "--preset=code", "--template", "{premise} {soft:2} {mask}"])
    assert given.template == "{premise} {soft:2} {mask}"
    assert given.choices == ("lower1", "lower2")
    assert read_task(["copa"]).preset is None
    with pytest.raises(SystemExit):  # what stands under code is for the file alone
        read_task(["copa", "code:code-config"])
    (compared,) = read_tasks(["copa"], "code")
    assert compared.form.answers.choices == ("lower1", "lower2")
    file = tmp_path / "t.yaml"
    file.write_text((FOLDER / "copa.yaml").read_text("utf-8") + "preset: code\n", "utf-8")
    assert yaml_task.read(file).choices == ("lower1", "lower2")
    assert read_task([str(file), "--preset", "None"]).choices == ("choice1", "choice2")


@pytest.mark.parametrize("name", TASKS)
def test_rows_and_labels_of_the_real_files(name, data):
    config, rows = rows_of(name, data)
    assert tuple(len(rows[split]) for split in SPLITS) == ROWS[name]
    wanted = set(config.labels) or LABELS.get(name)
    for split in ("dev", "test") if name in ("wsc", "cb-full") else ("train", "dev", "test"):
        there = {row[config.target] for row in rows[split]}
        assert (
            there == wanted
            or wanted is None
            and all(
                int(label) < len(row["entities"]) for row in rows[split] for label in [row["label"]]
            )
        )
    assert not any(config.target in row for row in rows["unlabeled"])


def some(rows):
    """The first rows and the longest."""
    return [*rows[:4], *sorted(rows, key=lambda row: -len(str(row)))[:3]]


@pytest.mark.parametrize("name", TASKS)
def test_real_rows_in_a_masked_lm(name, data, lm):
    config, rows = rows_of(name, data)
    form = resolve.task_form(config)
    assert all(
        set(Template.parse(text).fields) <= set(rows["test"][0])
        for text in (config.template, *config.patterns)
    )
    for text in (config.template, *config.patterns):
        for words in (config.labels, *config.verbalizers):
            model = PromptModel(lm)
            member = Member(text, words)
            task = model_task.task_of(form, lm, member, method=METHODS["p-tuning"], learning=USUAL)
            model.add(task)
            for split in SPLITS if words is config.labels else ():
                for example in model.encode(0, some(rows[split]), labelled=split != "unlabeled"):
                    assert (
                        example.length <= 512
                        and example.has_labels
                        and (example.label is None) == (split == "unlabeled")
                    )
            if isinstance(task.verbalizer, Verbalizer):
                assert all(len(ids) == 1 for ids in model.tasks[0].verbalizer.ids), (
                    "a label word is split"
                )
            else:
                assert isinstance(task.verbalizer, Span) == (name == "wsc")


@pytest.mark.parametrize("name", TASKS)
def test_real_rows_in_a_causal_lm(name, data):
    config, rows = rows_of(name, data)
    tokens = Tokens(tiny.byte_level(False))
    for text in (config.template, *config.patterns):
        try:
            template = Template.parse(text).for_lm(GPT2, "causal")[0]
        except TemplateError:
            continue
        for row in some(rows["test"]):
            encoded = template.encode(row, tokens, "causal")
            assert encoded.answer_positions == (len(encoded.ids) - 1,) and template.place in (
                "spaced",
                "joined",
            )


FIELDS = {
    "passage": "It rains.",
    "question": "Is it dry?",
    "answer": "No.",
    "premise": "It rains.",
    "hypothesis": "It is wet.",
    "sentence_1": "It rains.",
    "sentence_2": "It is wet.",
    "choice1": "He fell.",
    "choice2": "He flew.",
    "connective": "so",
    "before": "Then ",
    "after": " fell.",
    "word": "cup",
    "sentence1": "A cup.",
    "sentence2": "He cups it.",
    "marked": "Ann saw *her*.",
    "pronoun": "her",
    "sentence": '"it rains , so"',
    "span1": "Ann",
}
SAID = {
    "boolq": (
        "it rains. {0} question : is it dry? answer : _.",
        "it rains. question : is it dry? answer : _.",
        "it rains. based on the previous passage, is it dry? _.",
        "based on the following passage, is it dry? _. it rains.",
    ),
    "copa": (
        "he fell or he flew? it rains so {0} _",
        '" he fell " or " he flew "? it rains, so _',
        "he fell or he flew? it rains, so _",
    ),
    "multirc": (
        "it rains. question : is it dry? is it no? {0} _.",
        "it rains. question : is it dry? is it no? _.",
        'it rains. question : is it dry? is the correct answer " no "? _.',
        'it rains. based on the previous passage, is it dry? is " no " a correct answer? _.',
    ),
    "record": ("it rains. {0} then _ fell.", "it rains. then _ fell."),
    "wic": (
        "a cup. he cups it. {0} cup? _.",
        '" a cup. " / " he cups it. ". similar sense of " cup "? _.',
        "a cup. he cups it. does cup have the same meaning in both sentences? _",
        "a cup. he cups it. cup? _.",
    ),
    "wsc": (
        "{0} ann saw * her *. {0} pronoun ' * her * ' refers to _.",
        "ann saw * her *. the pronoun ' * her * ' refers to _.",
        "ann saw * her *. in the previous sentence, the pronoun ' * her * ' refers to _.",
        "ann saw * her *. in the passage above, what does the pronoun ' * her * ' refer to? "
        "answer : _.",
    ),
    "trec": (
        "it rains, so {0} type : _.",
        "_ : it rains, so",
        "_ question : it rains, so",
        "[ category : _ ] it rains, so",
        "it rains, so ( _ )",
        "question : it rains, so type : _.",
    ),
    "agnews": (
        '" it rains, so " {0} category : _.',
        '_ : " it rains, so "',
        '_ - " it rains, so "',
        '" it rains, so " ( _ )',
        '_ news : " it rains, so "',
        '[ category : _ ] " it rains, so "',
        '" it rains, so " category : _.',
    ),
    **dict.fromkeys(
        ("cb", "rte", "cb-full", "rte-full"),
        (
            "it rains. question : it is wet? {0} answer : _.",
            "it rains. question : it is wet? answer : _.",
            "it is wet? | _, it rains.",
            '" it is wet "? | _, " it rains. "',
            "it is wet? | _. it rains.",
            '" it is wet "? | _. " it rains. "',
        ),
    ),
    **dict.fromkeys(
        ("sst2", "sst5", "mr"),
        (
            "it rains, so {0} it was _.",
            "it rains, so it was _.",
            "it was _. it rains, so",
            "just _! it rains, so",
            "it rains, so all in all, it was _.",
            "it rains, so in summary, the movie is _.",
        ),
    ),
}


WORDS = {
    "boolq": "No Yes, False True",
    "copa": "",
    "record": "",
    "wsc": "",
    "wic": "No Yes",
    "multirc": "No Yes",
    "agnews": "World Sports Business Tech, politics football economy science",
    "sst5": "terrible bad okay good great, awful poor average nice excellent",
    "trec": "Description Entity Expression Human Location Number, definition thing acronym person "
    "place number",
    **dict.fromkeys(("cb", "cb-full"), "Yes No Maybe, True False Neither"),
    **dict.fromkeys(("rte", "rte-full"), "Yes No, True False"),
    **dict.fromkeys(("sst2", "mr"), "terrible great, negative positive"),
}


@pytest.mark.parametrize("name", TASKS)
def test_what_the_lm_may_answer(name):
    config = config_of(name)
    assert (
        ", ".join(" ".join(words.values()) for words in (config.labels, *config.verbalizers))
        == WORDS[name]
    )


@pytest.mark.parametrize("name", TASKS)
def test_what_the_lm_is_asked(name, lm):
    config, tokenizer = config_of(name), lm.tokens.tokenizer
    said = []
    for text in (config.template, *config.patterns):
        encoded = Template.parse(text).encode(FIELDS, lm.tokens, "masked")
        pieces = [
            "{0}" if slot >= 0 else piece
            for piece, slot in zip(tokenizer.convert_ids_to_tokens(encoded.ids), encoded.soft_slots)
        ][1:-1]
        joined = (
            tokenizer.convert_tokens_to_string(pieces).replace("[MASK]", "_").replace("[SEP]", "|")
        )
        said.append(" ".join(joined.replace("{0} {0} {0}", "{0}").split()))
    assert tuple(said) == SAID[name]
