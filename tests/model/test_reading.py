"""How label words are read, against transformers called directly a row at a time: several words a
label, words of several tokens in every order, both orders of a pair, the domain's share taken off,
and answers that rows bring along. Each test first shows that a wrong way is far outside the
tolerance."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
import reference
import tiny
import torch
from by_hand import Pieces, Plain, of_labels

from ptune.answers.from_row import Choices
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, DataError, VerbalizerError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.template.language import Template

TOLERANCE = 1e-5
FAR = 100 * TOLERANCE
FAMILIES = ("bert", "roberta", "electra", "deberta", "gpt2", "llama", "t5", "bart")
WORDS = {
    "good": ["great", "good film"],
    "bad": ["bad", "No", "a bad film"],
    "other": ["a great city"],
}
ROWS = [
    {"a": "Vienna lies on the Danube", "b": "Rome", "label": "good"},
    {"a": "It was", "b": "it was a film", "label": "other"},
    {"a": "Paris", "b": "Berlin is great and Rome is bad", "label": "bad"},
]


@dataclass(frozen=True)
class Case:
    """A way to read, and the pieces of a row before its answer."""

    template: str
    pieces: Callable[[Mapping[str, str]], Pieces]
    aggregate: str = "probability"
    order: str | None = None
    swap: tuple[str, str] | None = None
    domain: str | None = None
    domain_pieces: Pieces = ()

    def task(self, name: str) -> Task:
        return Task(
            name,
            Template.parse(self.template),
            Verbalizer.from_words(WORDS, self.aggregate, self.order),
            encoder="table",
            swap=self.swap,
            domain=Template.parse(self.domain) if self.domain else None,
        )

    def scores(
        self, plain: Plain, row: Mapping[str, str], vectors: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The labels' scores [C]."""
        rows = (
            [row]
            if self.swap is None
            else [row, {**row, self.swap[0]: row[self.swap[1]], self.swap[1]: row[self.swap[0]]}]
        )
        words = [
            plain.words(self.pieces(variant), WORDS.values(), self.order, vectors)
            for variant in rows
        ]
        if self.domain:
            empty = plain.words(self.domain_pieces, WORDS.values(), self.order, vectors)
            words = [
                [one - of_none for one, of_none in zip(word_scores, empty)] for word_scores in words
            ]
        return torch.stack([of_labels(word_scores, self.aggregate) for word_scores in words]).mean(
            0
        )


def soft(row: Mapping[str, str]) -> Pieces:
    return [0, 1, f" {row['a']}", 2, " It was"]


def pair(row: Mapping[str, str]) -> Pieces:
    return [f"{row['a']} and {row['b']} ?", 0, 1]


SOFT, PAIR = "{soft:2} {a} {soft:1} It was {mask}", "{a} and {b} ? {soft:2} {mask}"
CASES = {
    "probability": Case("{a} It was {mask}", lambda row: [f"{row['a']} It was"]),
    "logit": Case(SOFT, soft, "logit"),
    "pair": Case(PAIR, pair, swap=("a", "b")),
    "domain": Case(
        SOFT,
        soft,
        domain="Question : {soft:2} {soft:1} It was {mask}",
        domain_pieces=["Question :", 0, 1, 2, " It was"],
    ),
    "pair with a domain": Case(
        PAIR, pair, "logit", swap=("a", "b"), domain="It was {mask}", domain_pieces=["It was"]
    ),
}
ORDERED = {
    "left to right": Case(SOFT, soft, order="left-to-right"),
    "likeliest": Case(SOFT, soft, "logit", order="most-probable-first"),
    "pair, left to right": Case(PAIR, pair, order="left-to-right", swap=("a", "b")),
    "pair with a domain, likeliest": Case(
        PAIR,
        pair,
        order="most-probable-first",
        swap=("a", "b"),
        domain="It was {mask}",
        domain_pieces=["It was"],
    ),
}
WRONG = {
    "logit": {"aggregate": "probability"},
    "probability": {"aggregate": "logit"},
    "pair": {"swap": None},
    "domain": {"domain": None},
    "pair with a domain": {"domain": None},
    "left to right": {"order": "parallel"},
    "likeliest": {"order": "left-to-right"},
    "pair, left to right": {"swap": ("b", "b")},
    "pair with a domain, likeliest": {"order": "left-to-right"},
}


def build(family: str, cases: Mapping[str, Case]) -> tuple[PromptModel, Plain]:
    """A model with every case as a task, with wide soft vectors, and its LM by hand."""
    model, plain = PromptModel(LanguageModel(*tiny.tiny(family))), Plain(family)
    for name, case in cases.items():
        model.add(case.task(name))
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(
            parameter, 0, 0.5, generator=torch.Generator().manual_seed(parameter.numel())
        )
    return model, plain


def vectors(model: PromptModel, task: int) -> torch.Tensor | None:
    prompt = model.tasks[task].prompt
    return model.bank.encoders[prompt]() if prompt >= 0 else None


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_scores_of_all_ways_in_one_batch(family):
    cases = CASES | (ORDERED if family in tiny.MASKED else {})
    model, plain = build(family, cases)
    examples = [
        example
        for task in range(len(cases))
        for example in model.encode(task, ROWS, labelled=False)
    ]
    actual = iter(model.scores(examples, rows=50))
    for task, (name, case) in enumerate(cases.items()):
        wanted = torch.stack([case.scores(plain, row, vectors(model, task)) for row in ROWS])
        wrong = torch.stack(
            [
                dataclasses.replace(case, **WRONG[name]).scores(plain, row, vectors(model, task))
                for row in ROWS
            ]
        )
        assert (wrong - wanted).abs().max() > FAR, (
            f"{name}: {WRONG[name]} does not show, so this test could not fail"
        )
        ours = torch.stack([next(actual) for _ in ROWS])
        torch.testing.assert_close(
            ours,
            wanted,
            atol=TOLERANCE,
            rtol=TOLERANCE,
            msg=lambda message, name=name: f"{name}: {message}",
        )


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "t5"])
def test_losses_and_gradients_of_all_ways_in_one_batch(family):
    """A word that is scored by its likeliest token first is learned with all its tokens at once, as
    PET does."""
    cases = CASES | (ORDERED if family in tiny.MASKED else {})
    model, plain = build(family, cases)
    losses = model.losses(
        [example for task in range(len(cases)) for example in model.encode(task, ROWS)]
    )
    wanted, wrong = [], []
    for task, (name, case) in enumerate(cases.items()):
        learned = (
            dataclasses.replace(case, order="parallel")
            if case.order == "most-probable-first"
            else case
        )
        for row in ROWS:
            label = list(WORDS).index(row["label"])
            wanted.append(-learned.scores(plain, row, vectors(model, task)).log_softmax(0)[label])
            if WRONG[name].get("order", "parallel") == "parallel":
                wrong.append(
                    -dataclasses.replace(case, **WRONG[name])
                    .scores(plain, row, vectors(model, task))
                    .log_softmax(0)[label]
                    - wanted[-1]
                )
    assert torch.stack(wrong).abs().reshape(-1, len(ROWS)).amax(1).min() > FAR, (
        "a wrong way does not show, so this test could not fail"
    )
    torch.testing.assert_close(losses, torch.stack(wanted), atol=TOLERANCE, rtol=TOLERANCE)
    trained_parameters = [parameter for parameter in model.bank.parameters() if parameter.numel()]
    for ours, theirs in zip(
        torch.autograd.grad(losses.sum(), trained_parameters),
        torch.autograd.grad(torch.stack(wanted).sum(), trained_parameters),
    ):
        assert theirs.abs().max() > FAR
        torch.testing.assert_close(
            ours, theirs, atol=TOLERANCE * float(theirs.abs().max().clamp(min=1)), rtol=0
        )


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
@torch.no_grad()
def test_a_deep_prefix_stands_before_every_fill_and_not_before_a_domain_without_it(family):
    """Beside a task without a prefix. The domain has the same prefix in the first task, and none of
    it in the second."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    order = "left-to-right" if model.lm.kind == "masked" else None
    for name, domain in (("with", "{prefix:3} It was {mask}"), ("without", "It was {mask}")):
        model.add(
            Task(
                name,
                Template.parse("{prefix:3} {a} It was {mask}"),
                Verbalizer.from_words(WORDS, order=order),
                domain=Template.parse(domain),
                prefix=PrefixSettings(0),
            )
        )
    model.add(
        Task("none", Template.parse("{a} It was {mask}"), Verbalizer.from_words(WORDS, order=order))
    )
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(
            parameter, 0, 0.7, generator=torch.Generator().manual_seed(parameter.numel())
        )
    examples = [
        example for task in range(3) for example in model.encode(task, ROWS, labelled=False)
    ]

    def spelt(example, template, prefix=True):
        fitted, actual = model.tasks[example.task], []
        for ids in fitted.verbalizer.ids:
            ways = (
                [[*ids[:position], *[None] * (len(ids) - position)] for position in range(len(ids))]
                if order
                else [[*ids[:-1], None]]
            )
            total = torch.zeros(())
            for number, answer in enumerate(ways):
                row = template.encode(
                    example.row,
                    model.lm.tokens,
                    model.lm.kind,
                    max_length=None,
                    answer=answer,
                    start=model.lm.start,
                )
                values = reference.log_probs(
                    model, example.task, row if prefix else dataclasses.replace(row, prefix=())
                )
                total = total + (
                    values[number, ids[number]]
                    if order
                    else sum(values[position, id_] for position, id_ in enumerate(ids))
                )
            actual.append(total)
        return torch.stack(actual)

    wanted, wrong = [], []
    for example in examples:
        fitted = model.tasks[example.task]
        words = spelt(example, fitted.template)
        wanted.append(
            model.tasks[0].verbalizer.of_labels(
                (words - spelt(example, fitted.domain) if fitted.domain else words)[None]
            )[0]
        )
        if fitted.domain:
            other = (
                Template.parse("It was {mask}")
                if fitted.task.name == "with"
                else Template.parse("{prefix:3} It was {mask}")
            )
            wrong.append(
                model.tasks[0].verbalizer.of_labels(
                    (words - spelt(example, other.for_lm(model.lm.tokens, model.lm.kind)[0]))[None]
                )[0]
                - wanted[-1]
            )
    assert torch.stack(wrong).abs().amax(1).min() > FAR, "the domain's prefix does not show"
    torch.testing.assert_close(
        torch.stack(model.scores(examples, rows=40)),
        torch.stack(wanted),
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )


def test_a_domain_has_the_whole_prompt_or_none_of_it():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    for domain in ("{soft:3} It was {mask}", "{soft:1} {mask}", "{prefix:2} {mask}"):
        with pytest.raises(ConfigError, match="the template's soft tokens and prefix, or none"):
            model.add(
                Task(
                    "t",
                    Template.parse("{soft:2} {a} {mask}"),
                    Verbalizer.from_words(WORDS),
                    domain=Template.parse(domain),
                )
            )
    model.add(
        Task(
            "t",
            Template.parse("{soft:2} {a} {mask}"),
            Verbalizer.from_words(WORDS),
            domain=Template.parse("{soft:1} It was {soft:1} {mask}"),
        )
    )


def test_the_first_piece_is_not_the_word():
    """OpenPrompt scores a word by its first piece, whatever comes behind it."""
    model, plain = build("bert", {"one": CASES["probability"]})
    row = ROWS[0]
    pieces = [f"{row['a']} It was"]
    first = [
        torch.stack(
            [plain.logits(pieces).log_softmax(-1)[0, plain.word(word)[0]] for word in label_words]
        )
        for label_words in WORDS.values()
    ]
    assert (of_labels(first) - CASES["probability"].scores(plain, row)).abs().max() > 1


def test_a_word_of_several_tokens_is_unlike_in_each_order():
    """The orders are told apart where a word's likeliest token is not its first."""
    plain = Plain("bert")
    ids, pieces = plain.word("a great city"), ["Vienna lies on the Danube It was"]
    values = plain.logits(pieces, [None] * 3).log_softmax(-1)
    assert max(range(3), key=lambda position: values[position, ids[position]]) != 0
    actual = [
        float(plain.spelt(pieces, ids, order))
        for order in ("parallel", "left-to-right", "most-probable-first")
    ]
    assert min(abs(a - b) for i, a in enumerate(actual) for b in actual[:i]) > FAR


def test_orders_that_an_lm_has_not():
    for family in ("gpt2", "t5"):
        model = PromptModel(LanguageModel(*tiny.tiny(family)))
        for order in ("parallel", "most-probable-first"):
            with pytest.raises(VerbalizerError, match=f"{order}' is for masked LMs"):
                model.add(
                    Task(
                        "t",
                        Template.parse("{a} It was {mask}"),
                        Verbalizer.from_words(WORDS, order=order),
                    )
                )
        model.add(
            Task(
                "t",
                Template.parse("{a} It was {mask}"),
                Verbalizer.from_words(WORDS, order="left-to-right"),
            )
        )


def test_a_domain_and_both_orders_have_no_say_in_the_whole_vocabulary():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    for more in (
        {"swap": ("a", "b")},
        {"domain": Template.parse("It was {mask}")},
        {"reader": READERS["soft"]},
    ):
        with pytest.raises(ConfigError, match='set loss to "labels"'):
            model.add(
                Task(
                    "t",
                    Template.parse("{a} {b} {mask}"),
                    Verbalizer.from_words(WORDS),
                    loss="vocabulary",
                    **more,
                )
            )
    model.add(
        Task("u", Template.parse("{a} {mask}"), Verbalizer.from_words(WORDS), swap=("a", "b"))
    )
    with pytest.raises(DataError, match="Row 1 of u: The row has no field 'b', which is exchanged"):
        model.encode(0, [{"a": "Vienna"}], labelled=False)


# Answers that each row brings along.

COPA = [
    {"premise": "It was great", "c1": "Vienna lies on the Danube", "c2": "Rome", "label": 1},
    {"premise": "the film", "c1": "bad", "c2": "the best", "label": 0},
    {"premise": "Berlin", "c1": "No", "c2": "Madrid or London", "label": "1"},
]
LISTED = [
    {"premise": "It was great", "all": ["Vienna", "vienna", "the capital of Italy"], "label": 2},
    {"premise": "the film", "all": ["Rome", "Paris"], "label": 0},
]
BOTH = "{soft:2} {c1} or {c2} ? {premise} {soft:1} so {mask}"


def choices(family: str, order: str | None = None) -> tuple[PromptModel, Plain]:
    model, plain = PromptModel(LanguageModel(*tiny.tiny(family))), Plain(family)
    model.add(Task("fields", Template.parse(BOTH), Choices(("c1", "c2"), order), encoder="table"))
    model.add(Task("list", Template.parse("{premise} so {mask}"), Choices(("all",), order)))
    model.add(
        Task(
            "swapped",
            Template.parse(BOTH),
            Choices(("c1", "c2"), order),
            encoder="table",
            swap=("c1", "c2"),
        )
    )
    model.add(Task("words", Template.parse("{premise} so {mask}"), Verbalizer.from_words(WORDS)))
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(
            parameter, 0, 0.5, generator=torch.Generator().manual_seed(parameter.numel())
        )
    return model, plain


def chosen(
    plain: Plain,
    row: Mapping,
    order: str | None,
    vectors: torch.Tensor | None,
    swap: bool = False,
    texts: list[str] | None = None,
) -> torch.Tensor:
    """The scores of a row's answers by hand [C]."""
    if "all" in row:
        return torch.stack(
            [plain.spelt([f"{row['premise']} so"], plain.word(text), order) for text in row["all"]]
        )
    texts = texts or [row["c1"], row["c2"]]
    pieces = [0, 1, f" {row['c1']} or {row['c2']} ? {row['premise']}", 2, " so"]
    spelt = torch.stack([plain.spelt(pieces, plain.word(text), order, vectors) for text in texts])
    return (
        (
            spelt
            + chosen(plain, {**row, "c1": row["c2"], "c2": row["c1"]}, order, vectors, texts=texts)
        )
        / 2
        if swap
        else spelt
    )


@pytest.mark.parametrize(
    "family, order",
    [
        *((family, None) for family in FAMILIES),
        ("bert", "left-to-right"),
        ("roberta", "most-probable-first"),
    ],
)
def test_choices_of_different_lengths_in_one_batch(family, order):
    model, plain = choices(family, order)
    examples = [
        *model.encode(0, COPA),
        *model.encode(1, LISTED),
        *model.encode(2, COPA),
        *model.encode(3, [{"premise": "It was", "label": "bad"}]),
    ]
    for losing in (False, True):
        learned = "parallel" if losing and order == "most-probable-first" else order
        wanted = [chosen(plain, row, learned, vectors(model, 0)) for row in COPA] + [
            chosen(plain, row, learned, None) for row in LISTED
        ]
        unswapped = torch.stack([chosen(plain, row, learned, vectors(model, 2)) for row in COPA])
        wanted += [chosen(plain, row, learned, vectors(model, 2), swap=True) for row in COPA]
        assert (torch.stack(wanted[-3:]) - unswapped).abs().max() > FAR, "both orders do not show"
        wanted.append(of_labels(plain.words(["It was so"], WORDS.values())))
        if losing:
            labels = [1, 0, 1, 2, 0, 1, 0, 1, 1]
            label_losses = torch.stack(
                [-scores.log_softmax(0)[label] for scores, label in zip(wanted, labels)]
            )
            losses = model.losses(examples)
            torch.testing.assert_close(losses, label_losses, atol=TOLERANCE, rtol=TOLERANCE)
            parameters = [parameter for parameter in model.bank.parameters() if parameter.numel()]
            for ours, theirs in zip(
                torch.autograd.grad(losses.sum(), parameters),
                torch.autograd.grad(label_losses.sum(), parameters),
            ):
                assert theirs.abs().max() > FAR
                torch.testing.assert_close(
                    ours, theirs, atol=TOLERANCE * float(theirs.abs().max().clamp(min=1)), rtol=0
                )
        else:
            for ours, theirs in zip(model.scores(examples, rows=7), wanted):
                torch.testing.assert_close(ours, theirs.detach(), atol=TOLERANCE, rtol=TOLERANCE)
    assert len({len(plain.word(text)) for row in COPA for text in (row["c1"], row["c2"])}) > 2


def test_choices_that_are_the_same_to_the_lm_share_a_score():
    model, _ = choices("bert")
    scores = model.scores(model.encode(1, LISTED, labelled=False))[0]
    assert scores[0] == scores[1] != scores[2]
    answer = model.predict(LISTED, "list")
    assert list(answer[0]["scores"]) == ["0", "1", "2"] and list(answer[1]["scores"]) == ["0", "1"]


def test_choices_against_the_whole_vocabulary():
    """As P-tuning's LAMA code compares: the right answer's tokens, each with every token of the
    LM."""
    for family in ("bert", "gpt2", "t5"):
        model, plain = PromptModel(LanguageModel(*tiny.tiny(family))), Plain(family)
        model.add(
            Task(
                "t", Template.parse("{premise} so {mask}"), Choices(("c1", "c2")), loss="vocabulary"
            )
        )
        losses = model.losses(model.encode(0, COPA))
        wanted = torch.stack(
            [
                -plain.spelt(
                    [f"{row['premise']} so"], plain.word([row["c1"], row["c2"]][int(row["label"])])
                )
                for row in COPA
            ]
        )
        torch.testing.assert_close(losses, wanted, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    "fields, row, message",
    [
        (("c1", "c2"), {"c1": "Rome"}, "no field 'c2', which should hold an answer to choose"),
        (("all",), {"all": ["Rome"]}, "two texts or more"),
        (("all",), {"all": "Rome"}, "two texts or more"),
        (("all",), {"all": []}, "two texts or more"),
        (("c1", "c2"), {"c1": "Rome", "c2": 3}, "two texts or more"),
        (("c1", "c2"), {"c1": "Rome", "c2": " "}, "two texts or more"),
        (("all",), {"all": ["Rome", None]}, "two texts or more"),
        (
            ("c1", "c2"),
            {"c1": "Rome", "c2": "\u4e2d"},
            "'\u4e2d' .label '1'. is not in this LM's vocabulary",
        ),
        (("c1", "c2"), {"c1": "Rome", "c2": "Paris", "label": 2}, "no label '2'"),
        (("c1", "c2"), {"c1": "Rome", "c2": "Paris", "label": "c1"}, "no label 'c1'"),
    ],
)
def test_rows_without_a_choice(fields, row, message):
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    model.add(Task("t", Template.parse("{premise} so {mask}"), Choices(fields)))
    with pytest.raises(VerbalizerError, match=f"Row 1 of t: .*{message}"):
        model.encode(0, [{"premise": "Vienna", "label": 0, **row}])


def test_choices_have_no_reader_and_no_foreign_order():
    model = PromptModel(LanguageModel(*tiny.tiny("gpt2")))
    with pytest.raises(ConfigError, match="nothing for a reader .head. to tell apart"):
        model.add(
            Task(
                "t",
                Template.parse("{premise} so {mask}"),
                Choices(("c1", "c2")),
                reader=READERS["head"],
            )
        )
    model.add(
        Task(
            "t", Template.parse("{premise} so {mask}"), Choices(("c1", "c2"), "most-probable-first")
        )
    )
    with pytest.raises(VerbalizerError, match="Row 1 of t: .*is for masked LMs"):
        model.encode(0, COPA)
