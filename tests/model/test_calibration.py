"""Calibration and the thinning out of words, against transformers called directly. Each test first
shows that scores without it are far off."""

import math

import pytest
import tiny
import torch
from by_hand import Plain, of_labels

from ptune.answers.from_row import Choices
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, VerbalizerError
from ptune.lm.language_model import LanguageModel
from ptune.model.calibration import CONTENT_FREE, calibrate, refine
from ptune.model.prompt_model import PromptModel, Task
from ptune.storage import prompt_folder
from ptune.template.language import Template

TOLERANCE = 1e-5
FAR = 100 * TOLERANCE
ROWS = [
    {"a": "Vienna lies on the Danube", "b": "Rome", "label": "good"},
    {"a": "It was", "b": "it was a film", "label": "other"},
    {"a": "Paris", "b": "Berlin is great and Rome is bad", "label": "bad"},
]
WORDS = {"good": ["great", "good film"], "bad": ["bad", "No"], "other": ["a great city"]}
LONG = {**WORDS, "other": ["the most terrible question in the capital of Germany"]}
SOFT, PAIR = "{soft:2} {a} {soft:1} It was {mask}", "{a} and {b} ? {soft:2} {mask}"


def soft(row):
    return [0, 1, f" {row['a']}", 2, " It was"]


def pair(row):
    return [f"{row['a']} and {row['b']} ?", 0, 1]


def build(family: str, *tasks: Task) -> PromptModel:
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    for task in tasks:
        model.add(task)
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(
            parameter, 0, 0.5, generator=torch.Generator().manual_seed(parameter.numel())
        )
    return model


def task(
    name: str, template: str, words=WORDS, aggregate="probability", order=None, **more
) -> Task:
    return Task(
        name,
        Template.parse(template),
        Verbalizer.from_words(words, aggregate, order),
        encoder="table",
        **more,
    )


def vectors(model: PromptModel, number: int) -> torch.Tensor:
    return model.bank.encoders[model.tasks[number].prompt]().detach()


def rescored(words: list[torch.Tensor], offset: list[float], aggregate: str) -> torch.Tensor:
    """The labels' scores with the offset taken off each word."""
    taken = iter(offset)
    return of_labels(
        [torch.stack([one - next(taken) for one in label_words]) for label_words in words],
        aggregate,
    )


@pytest.mark.parametrize("how", ["contextual", "prior"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "gpt2", "llama", "t5", "bart"])
@torch.no_grad()
def test_calibrated_scores(family, how):
    """Contextual calibration: what the words' share among all words is, on average, where the row
    says nothing. Prior: how probable each is, on average over rows. Words of one token and of very
    many; the mean of logits; a pair in both orders; and beside them a task that is not
    calibrated."""
    order = "left-to-right" if family in tiny.MASKED else None
    ways = [
        (SOFT, soft, LONG, "probability", order),
        (PAIR, pair, WORDS, "logit", None),
        (SOFT, soft, WORDS, "probability", None),
    ]
    model, plain = (
        build(
            family,
            *(
                task(
                    str(number),
                    template,
                    words,
                    aggregate,
                    order,
                    swap=("a", "b") if template == PAIR else None,
                )
                for number, (template, _, words, aggregate, order) in enumerate(ways)
            ),
        ),
        Plain(family),
    )
    for number in range(2):
        calibrate(model, number, how, ROWS)
    examples = [example for number in range(3) for example in model.encode(number, ROWS)]
    actual, losses = model.scores(examples, rows=20), model.losses(examples)
    for number, (template, pieces, words, aggregate, order) in enumerate(ways):
        soft_vectors = vectors(model, number)
        seen = ROWS if how == "prior" else [{"a": text, "b": text} for text in CONTENT_FREE]
        shares = [
            torch.cat(plain.words(pieces(row), words.values(), order, soft_vectors)).double()
            for row in seen
        ]
        shares = [each if how == "prior" else each - each.exp().sum().log() for each in shares]
        offset = [
            math.log(sum(math.exp(float(each[word])) for each in shares) / len(seen))
            for word in range(len(shares[0]))
        ]
        scores = []
        for row in ROWS:
            rows = [row, {"a": row["b"], "b": row["a"]}] if template == PAIR else [row]
            found_words = [
                plain.words(pieces(each), words.values(), order, soft_vectors) for each in rows
            ]
            without = torch.stack([of_labels(each, aggregate) for each in found_words]).mean(0)
            scores.append(
                torch.stack([rescored(each, offset, aggregate) for each in found_words]).mean(0)
                if number < 2
                else without
            )
            assert number == 2 or (scores[-1] - without).abs().max() > FAR, (
                "calibration does not show"
            )
        wanted = torch.stack(scores)
        torch.testing.assert_close(
            torch.stack(actual[number * len(ROWS) : (number + 1) * len(ROWS)]),
            wanted,
            atol=5 * TOLERANCE,
            rtol=TOLERANCE,
        )
        message = -wanted.log_softmax(1)[
            range(len(ROWS)), [list(words).index(row["label"]) for row in ROWS]
        ]
        torch.testing.assert_close(
            losses[number * len(ROWS) : (number + 1) * len(ROWS)],
            message,
            atol=5 * TOLERANCE,
            rtol=TOLERANCE,
        )


@torch.no_grad()
def test_a_row_that_says_nothing_is_answered_with_no_preference():
    """What contextual calibration is for: of one such text alone, all words would be equally
    likely."""
    model = build("bert", task("t", SOFT, {"good": "great", "bad": "bad", "other": "Maybe"}))
    before = torch.stack(
        model.scores(model.encode(0, [{"a": text} for text in CONTENT_FREE], labelled=False))
    ).softmax(1)
    calibrate(model, 0, "contextual")
    after = torch.stack(
        model.scores(model.encode(0, [{"a": text} for text in CONTENT_FREE], labelled=False))
    ).softmax(1)
    assert (before.mean(0) - 1 / 3).abs().max() > 0.1 > (after.mean(0) - 1 / 3).abs().max()
    calibrate(model, 0, "none")
    assert torch.equal(
        after,
        torch.stack(
            model.scores(model.encode(0, [{"a": text} for text in CONTENT_FREE], labelled=False))
        ).softmax(1),
    )


def test_words_that_are_filled_in_by_their_likeliest_token_are_calibrated_so():
    model, plain = build("bert", task("t", SOFT, order="most-probable-first")), Plain("bert")
    calibrate(model, 0, "prior", ROWS)
    with torch.no_grad():
        for order, near in (("most-probable-first", True), ("parallel", False)):
            words = torch.stack(
                [
                    torch.cat(plain.words(soft(row), WORDS.values(), order, vectors(model, 0)))
                    for row in ROWS
                ]
            )
            apart = float(
                (words.exp().mean(0).log() - torch.tensor(model.tasks[0].offset)).abs().max()
            )
            assert apart < TOLERANCE if near else apart > FAR


def test_a_saved_task_keeps_its_calibration(tmp_path):
    model = build("bert", task("t", SOFT))
    plain = model.scores(model.encode(0, ROWS))
    calibrate(model, 0, "contextual")
    prompt_folder.save(model, tmp_path)
    loaded = prompt_folder.load(tmp_path, model.lm)
    scores = loaded.scores(loaded.encode(0, ROWS))
    assert all(map(torch.equal, model.scores(model.encode(0, ROWS)), scores)) and not torch.equal(
        plain[0], scores[0]
    )


def test_rows_that_say_nothing_have_all_fields_that_a_task_takes():
    model = build(
        "bert",
        Task(
            "u", Template.parse("{a} It was {mask}"), Verbalizer.from_words(WORDS), swap=("a", "b")
        ),
    )
    calibrate(model, 0, "contextual")
    assert model.tasks[0].offset is not None


def test_what_cannot_be_calibrated():
    model = build(
        "bert",
        task("words", SOFT),
        task("soft", SOFT, reader=READERS["soft"]),
        task("head", SOFT, reader=READERS["head"]),
    )
    model.add(
        Task(
            "domain",
            Template.parse("{a} It was {mask}"),
            Verbalizer.from_words(WORDS),
            domain=Template.parse("It was {mask}"),
        )
    )
    with pytest.raises(ConfigError, match="would take the LM's preference off twice"):
        calibrate(model, 3, "contextual")
    model.add(Task("choices", Template.parse("{a} {mask}"), Choices(("a", "b"))))
    for number, name in ((1, "soft"), (2, "head"), (4, "choices")):
        with pytest.raises(ConfigError, match=f"{name} has no label words"):
            calibrate(model, number, "contextual")
        with pytest.raises(ConfigError, match=f"{name} has no label words"):
            refine(model, number, ROWS)
    with pytest.raises(ConfigError, match="words has no rows"):
        calibrate(model, 0, "prior")
    with pytest.raises(ConfigError, match="words has no label words, or no rows"):
        refine(model, 0, [])


# Thinning out words.

KNOWN = {"town": ["vienna", "paris", "rome", "berlin"], "thing": ["film", "euro", "city", "people"]}
TEXTS = [
    {"a": text}
    for text in (
        "Vienna lies on the Danube",
        "It was a great film",
        "the capital of Italy",
        "its people pay",
        "Madrid or London",
        "Question",
    )
]


def thinned(words: torch.Tensor, owners: list[int], keep: float) -> list[bool]:
    """KPT's two ways to thin out, word by word: the likelier half by the prior; and of these, those
    whose probabilities over the rows, each relative to its prior, go with their own label's as much
    as with the others', or more."""
    prior = words.exp().mean(0)
    frequent = [
        sum(float(other) > float(share) for other in prior) < round(keep * len(prior))
        for share in prior
    ]
    moves = [words[:, word].exp() / prior[word] for word in range(len(prior))]
    moves = [move / move.norm() for move in moves]
    centres = [
        torch.stack(
            [
                move
                for move, owner, stays in zip(moves, owners, frequent)
                if owner == label and stays
            ]
            or [torch.zeros(len(words))]
        ).mean(0)
        for label in range(max(owners) + 1)
    ]
    kept = []
    for move, owner, stays in zip(moves, owners, frequent):
        near = [
            float(move @ centre / centre.norm()) if centre.norm() > 0 else 0.0 for centre in centres
        ]
        others = [like for label, like in enumerate(near) if label != owner]
        kept.append(stays and near[owner] >= sum(others) / len(others))
    return kept


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("keep", [0.5, 0.75, 1.0])
def test_words_are_thinned_out_as_in_kpt(family, keep):
    model, plain = build(family, task("t", SOFT, KNOWN)), Plain(family)
    with torch.no_grad():
        words = torch.stack(
            [
                torch.cat(plain.words(soft(row), KNOWN.values(), None, vectors(model, 0)))
                for row in TEXTS
            ]
        )
    stays = iter(thinned(words.double(), [0] * 4 + [1] * 4, keep))
    wanted = {
        label: [word for word in label_words if next(stays)] for label, label_words in KNOWN.items()
    }
    assert sum(map(len, wanted.values())) < 8 and (
        keep == 1 or sum(map(len, wanted.values())) <= 8 * keep
    )
    if not all(wanted.values()):
        with pytest.raises(VerbalizerError, match="is left with no word"):
            refine(model, 0, TEXTS, keep)
    else:
        actual = refine(model, 0, TEXTS, keep)
        assert dict(zip(actual.labels, map(list, actual.words))) == wanted


def test_a_rare_word_and_another_labels_word_go(monkeypatch):
    """Constructed: "rome" is hardly ever said, and "berlin" is said where words of things are."""
    model = build(
        "bert",
        Task(
            "t",
            Template.parse("{a} {mask}"),
            Verbalizer.from_words(KNOWN, "logit", "left-to-right"),
        ),
    )
    towns, things = (
        torch.tensor([0.2, 0.01, 0.3, 0.02, 0.2, 0.01]),
        torch.tensor([0.01, 0.2, 0.02, 0.25, 0.01, 0.2]),
    )
    shares = [
        towns,
        towns * 0.7,
        towns * 1e-6,
        things * 0.9,
        things,
        things * 0.8,
        things * 0.6,
        things * 0.5,
    ]
    monkeypatch.setattr(PromptModel, "word_scores", lambda *_: torch.stack(shares, 1).log())
    actual = refine(model, 0, TEXTS, keep=0.9)
    assert actual == Verbalizer.from_words(
        {"town": ["vienna", "paris"], "thing": ["film", "euro", "city", "people"]},
        "logit",
        "left-to-right",
    )
    everything = refine(model, 0, TEXTS, keep=1.0)
    assert everything.words[0] == ("vienna", "paris", "rome"), (
        "frequency alone would keep the rare word"
    )


def test_a_word_that_the_lm_never_says_goes():
    model = build("bert", task("t", SOFT, KNOWN))
    rare = model.lm.tokens.words(["film", "rome"], "spaced")
    with torch.no_grad():
        model.lm.vocabulary.bias[[ids[0] for ids in rare]] -= 60
    left = refine(model, 0, TEXTS, keep=0.75)
    assert not {"film", "rome"} & {
        word for label_words in left.words for word in label_words
    } and all(left.words)


def test_a_label_that_is_left_with_no_word_is_told():
    """OpenPrompt's filter for KPT stops at max() of an empty sequence."""
    model = build(
        "bert",
        task(
            "t",
            SOFT,
            {"town": ["rome", "vienna"], "thing": ["film", "euro", "city"], "else": ["is"]},
        ),
    )
    with torch.no_grad():
        model.lm.vocabulary.bias[
            [ids[0] for ids in model.lm.tokens.words(["rome", "vienna"], "spaced")]
        ] -= 60
    with pytest.raises(VerbalizerError, match="'town' is left with no word.*keep more"):
        refine(model, 0, TEXTS, keep=0.5)
