"""PET and iPET against slow, plain versions of each step; killed after every write, they end the
same."""

import itertools
import json
import math
import re
from collections import Counter
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from ptune.answers.from_row import Choices
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers import trained_heads
from ptune.answers.readers.reader_table import READERS
from ptune.base import files as store
from ptune.base.interrupts import Interrupted
from ptune.errors import ConfigError, DataError, DivergedError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.settings import PetConfig, TrainConfig
from ptune.template.language import Template
from ptune.training import pet as module
from ptune.training.loop import fit
from ptune.training.pet import pet
from ptune.training.pet_plan import PetRows, Plan
from ptune.training.pet_rows import draw, held_out, new_rows

TOWNS = (
    "Vienna Paris Rome Berlin Madrid London Austria France Italy Germany euro film city "
    "people east capital"
).split()
WORDS = [
    {"a": "great", "b": "bad"},
    {"a": "Yes", "b": "Maybe"},
    {"a": "in", "b": "is"},
]  # none that this LM always says
PATTERNS = ["{x} is {mask}", "Question : {x} ? {mask}", "{x} , the {mask}"]
SOFT = ["{soft:2} {x} {mask}", "{x} {soft:3} is {mask}", "{soft:1} {x} {soft:1} , {mask}"]
TRAIN = TrainConfig(
    batch_size=4,
    steps=3,
    epochs=9,
    evaluate_every=2,
    lm_learning_rate=3e-4,
    learning_rate=1e-2,
    patience=0,
)
DISTIL = TRAIN.model_copy(update={"batch_size": 8})
CLASSIFIER = Task(
    "classifier", Template.parse("{x}"), Verbalizer.from_words(WORDS[0]), reader=READERS["head"]
)


def lm(dtype=torch.float32):
    network, tokenizer = tiny.tiny("bert", dtype)
    return LanguageModel(network, tokenizer)


def some(seed, count):
    words = [
        TOWNS[i]
        for i in torch.randint(len(TOWNS), (count,), generator=torch.Generator().manual_seed(seed))
    ]
    return [
        {"x": f"{w} {words[i - 1]}", "label": "a" if w < "M" else "b"} for i, w in enumerate(words)
    ]


ROWS, DEV = some(1, 8), some(2, 10)
UNLABELED = [{"x": row["x"]} for row in some(3, 40)]


def member(number, **settings):
    return Task(
        f"pattern {number}",
        Template.parse(PATTERNS[number]),
        Verbalizer.from_words(WORDS[number]),
        **settings,
    )


def plan(count=2, settings=None, **fields):
    return Plan(
        **{
            "members": [member(number) for number in range(count)],
            "classifier": CLASSIFIER,
            "train": TRAIN,
            "distil": DISTIL,
            "settings": PetConfig(**(settings or {})),
            **fields,
        }
    )


def run(settings_of_pet, folder, rows=ROWS, network=None, **options):
    return pet(network or lm(), settings_of_pet, rows, DEV, UNLABELED, folder, **options)


def said(folder, name="0-0"):
    """A member's scores, and what is noted beside them of the member itself."""
    tensors, note = store.read_noted(folder / "members" / f"{name}.safetensors")
    return tensors, {key: value for key, value in note.items() if key != "trial"}


def same(tensors, others):
    return tensors.keys() == others.keys() and all(
        torch.equal(value, others[name]) for name, value in tensors.items()
    )


def state(outcome):
    return {**outcome.model.lm.weights(), **outcome.model.bank.state_dict()}


def figures(outcome):
    return outcome.members, outcome.ensembles, outcome.trained


@pytest.fixture
def fits(monkeypatch):
    """What each training got: the rows of its tasks by their names, and what was tuned."""
    trainings = []

    def recorded(model, data, config, **options):
        trainings.append(
            (
                {model.tasks[number].task.name: rows for number, (rows, _) in data.items()},
                options["tune"],
            )
        )
        return fit(model, data, config, **options)

    monkeypatch.setattr(module, "rehearse", lambda *given: None)
    monkeypatch.setattr(module, "fit", recorded)
    return trainings


# The steps, written out.


def logits(model, text, words):
    """The LM's own logits of some words at the mask of a text."""
    tokens = model.tokens.tokenizer
    ids = torch.tensor([tokens(text)["input_ids"]])
    with torch.no_grad():
        scores = model.model(input_ids=ids).logits[0, ids[0].tolist().index(tokens.mask_token_id)]
    return [float(scores[tokens.convert_tokens_to_ids(word.lower())]) for word in words]


def pattern(number, row):
    return PATTERNS[number].replace("{x}", row["x"]).replace("{mask}", "[MASK]")


def hits(model, number, rows):
    return [
        ("a" if a > b else "b") == row["label"]
        for row in rows
        for a, b in [logits(model, pattern(number, row), WORDS[number].values())]
    ]


def undropped(monkeypatch, model):
    monkeypatch.setattr(trained_heads, "DROPOUT", 0.0)
    for part in model.model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return model


def test_every_step_by_hand(tmp_path, monkeypatch, fits):
    steps = TrainConfig(batch_size=len(UNLABELED), steps=1, lm_learning_rate=1e-3)
    outcome = run(plan(3, distil=steps), tmp_path, network=undropped(monkeypatch, lm()))
    before, after, scores = [], [], []
    for number in range(3):
        network = undropped(monkeypatch, lm())
        before.append(sum(hits(network, number, ROWS)) / len(ROWS))
        model = PromptModel(network)
        model.add(member(number))
        fit(model, {0: (ROWS, DEV)}, TRAIN, tune="lm")
        after.append(sum(hits(network, number, ROWS)) / len(ROWS))
        scores.append(
            [logits(network, pattern(number, row), WORDS[number].values()) for row in UNLABELED]
        )
        assert outcome.members[number].dev == sum(hits(network, number, DEV)) / len(DEV)
    assert [scored.weight for scored in outcome.members] == before
    assert len(set(before)) > 1 and before != after, "so that another choice of weights would show"

    def shares(degrees):
        merged = [
            [
                sum(w * label_scores[i][label] for w, label_scores in zip(before, scores))
                / sum(before)
                / degrees
                for label in range(2)
            ]
            for i in range(len(UNLABELED))
        ]
        return [[math.exp(score) / sum(map(math.exp, row)) for score in row] for row in merged]

    taught, tune = fits[-1]
    learned_shares = torch.tensor([row["label"] for row in taught["classifier"]])
    assert tune == "both" and [row["x"] for row in taught["classifier"]] == [
        row["x"] for row in UNLABELED
    ]
    assert torch.allclose(
        learned_shares, torch.tensor(shares(2)), atol=1e-5
    ) and not torch.allclose(learned_shares, torch.tensor(shares(1)), atol=0.05)

    network = undropped(monkeypatch, lm())
    model = PromptModel(network)
    model.add(CLASSIFIER)
    head, loss = model.bank.readers[0], 0.0
    for row, right in zip(UNLABELED, shares(2)):
        with torch.no_grad():
            hidden = network.model.base_model(
                torch.tensor([network.tokens.tokenizer(row["x"])["input_ids"]])
            ).last_hidden_state[0, 0]
            ours = (head.classifier(torch.tanh(head.dense(hidden))) / 2).exp()
        loss += (
            4
            * sum(
                share * math.log(share / float(own_share / ours.sum()))
                for share, own_share in zip(right, ours)
            )
            / len(UNLABELED)
        )
    assert outcome.trained.history[0].loss == pytest.approx(loss, abs=1e-6) and loss > 0.01


def test_the_ensembles_accuracy_by_hand(tmp_path):
    dev, accuracies = some(2, 60), []
    outcome = pet(lm(), plan(3, {"generations": 1}), ROWS, dev, UNLABELED, tmp_path)
    for generation in range(2):
        files = [said(tmp_path, f"{generation}-{number}") for number in range(3)]
        for weights in ([note["weight"] for _, note in files], [1, 1, 1], [1, 0, 0]):
            merged = sum(weight * scores["dev"] for weight, (scores, _) in zip(weights, files))
            accuracies.append(
                sum(
                    "ab"[int(label_shares.argmax())] == row["label"]
                    for label_shares, row in zip(merged, dev)
                )
                / len(dev)
            )
    assert (
        outcome.ensembles == accuracies[::3]
        and accuracies[::3] != accuracies[1::3] != accuracies[2::3]
    )


@pytest.mark.parametrize("tune", ["lm", "head"])
def test_each_member_starts_from_the_lms_own_weights(tmp_path, tune, fits):
    network = lm()
    before = network.weights()
    both = run(plan(2, tune=tune), tmp_path / "both", network=network)
    alone = run(plan(members=[member(1)], tune=tune), tmp_path / "alone")
    (member_scores, note), (alone_scores, other) = (
        said(tmp_path / "both", "0-1"),
        said(tmp_path / "alone"),
    )
    assert (
        same(member_scores, alone_scores) and note == other and both.members[1] == alone.members[0]
    )
    run(plan(members=[member(1)], tune="nothing"), tmp_path / "untrained")
    assert not torch.allclose(
        member_scores["dev"], said(tmp_path / "untrained")[0]["dev"], atol=1e-3
    )
    assert (
        same(before, both.weights)
        and not same(before, network.weights())
        and [tune for _, tune in fits] == [tune, tune, "both", tune, "both", "both"]
    )
    network.restore(both.weights)
    assert same(before, network.weights())


def test_the_lm_is_as_it_was_where_something_fails(tmp_path, monkeypatch):
    network = lm()
    before, count = network.weights(), itertools.count()

    def failing(model, data, config, **options):
        histories = fit(model, data, config, **options)
        if next(count) == 2:
            raise Interrupted("Stopped")
        return histories

    monkeypatch.setattr(module, "rehearse", lambda *given: None)
    monkeypatch.setattr(module, "fit", failing)
    with pytest.raises(Interrupted):
        run(plan(), tmp_path, network=network)
    assert same(before, network.weights())


@pytest.mark.parametrize("family", ["bert", "albert", "gpt2", "electra"])
def test_restored_weights_and_the_tied_head(family):
    network = LanguageModel(*tiny.tiny(family))
    before, embeddings = network.weights(), network.model.get_input_embeddings().weight
    scores_before = network.model(input_ids=torch.tensor([[5, 6, 7]])).logits
    for _ in range(2):
        network.tune_head()
        network.tune_head()
        with torch.no_grad():
            for parameter in network.head_parameters():
                parameter.add_(1.0)
        assert network.vocabulary.weight is not embeddings and not torch.allclose(
            network.model(input_ids=torch.tensor([[5, 6, 7]])).logits, scores_before, atol=0.1
        )
        network.tune(True)
        with torch.no_grad():
            embeddings.mul_(2)
        network.tune(False)
        network.restore(before)
        assert (
            network.vocabulary.weight is embeddings
            and network.model.config.tie_word_embeddings
            and same(before, network.weights())
        )
        assert torch.equal(network.model(input_ids=torch.tensor([[5, 6, 7]])).logits, scores_before)
    network.tune_head()
    with torch.no_grad():
        network.vocabulary.weight.add_(1.0)
    other = network.weights()
    network.restore(other)
    assert same(other, network.weights()) and network.vocabulary.weight is not embeddings, (
        "a head that differs stays apart"
    )


def test_prompts_train_together_as_apart(tmp_path, fits):
    tasks = [
        Task(
            f"soft {number}",
            Template.parse(text),
            Verbalizer.from_words(WORDS[number]),
            encoder="table",
        )
        for number, text in enumerate(SOFT)
    ]
    network = lm(torch.float64)
    before = network.weights()
    outcome = run(
        plan(members=tasks, tune="prompt", settings={"generations": 1, "growth": 2}),
        tmp_path / "all",
        network=network,
    )
    assert [(list(data), tune) for data, tune in fits] == [
        ([task.name for task in tasks], "prompt")
    ] * 2 + [(["classifier"], "both")]
    for number, task in enumerate(tasks):
        alone = run(
            plan(members=[task], tune="prompt"), tmp_path / str(number), network=lm(torch.float64)
        )
        (together, _), (single, _) = (
            said(tmp_path / "all", f"0-{number}"),
            said(tmp_path / str(number)),
        )
        assert all(torch.allclose(together[name], single[name], atol=1e-6) for name in single)
        assert (
            outcome.members[number].weight == alone.members[0].weight
            and len(outcome.members[number].trained.history) == 2
        )
    assert network.tokens and same(before, outcome.weights)


def test_repetitions_are_members_of_other_seeds(tmp_path):
    outcome = run(plan(settings={"repetitions": 2}), tmp_path)
    assert [outcome_of_member.name for outcome_of_member in outcome.members] == [
        "pattern 0",
        "pattern 0 2",
        "pattern 1",
        "pattern 1 2",
    ]
    assert outcome.members[0].weight == outcome.members[1].weight
    assert not torch.allclose(
        said(tmp_path, "0-0")[0]["dev"], said(tmp_path, "0-1")[0]["dev"], atol=1e-4
    )


def test_a_members_own_reader_learns_with_the_lm(tmp_path, fits):
    run(plan(members=[member(0, reader=READERS["soft"]), member(1)]), tmp_path)
    assert [tune for _, tune in fits] == ["both", "lm", "both"]


def test_the_members_answers_are_learned(tmp_path):
    """With enough steps the members learn the task, and the classifier, which sees no label, learns
    it from them."""

    def rows(seed, count):
        return [
            {
                "x": f"{row['x'].split()[0]} {('euro', 'film')[position % 2]}",
                "label": "ab"[position % 2],
            }
            for position, row in enumerate(some(seed, count))
        ]

    longer = TrainConfig(
        batch_size=8,
        steps=15,
        epochs=99,
        evaluate_every=10,
        lm_learning_rate=1e-3,
        learning_rate=3e-3,
        patience=0,
    )
    unlabeled = [{"x": row["x"], "label": "nobody looks here"} for row in rows(3, 40)]
    outcome = pet(
        lm(), plan(train=longer, distil=longer), rows(1, 16), rows(2, 10), unlabeled, tmp_path
    )
    answers = [
        answer["prediction"]
        for answer in outcome.model.predict([{"x": row["x"]} for row in rows(5, 60)])
    ]
    assert sum(answer == row["label"] for answer, row in zip(answers, rows(5, 60))) > 54
    assert outcome.ensembles == [1.0] and max(single.weight for single in outcome.members) < 0.7


# iPET.


def test_how_many_new_rows():
    """Section 3.4: c_j(l) = d * c_(j-1)(l), of which c_0(l) are the training rows themselves."""
    names, labels = ("a", "b", "c"), ["a"] * 6 + ["b"] * 2
    counts = [6, 2, 0]
    for generation in (1, 2, 3):
        counts = [5 * count for count in counts]
        assert [
            count + row_count
            for count, row_count in zip(new_rows(labels, names, 5, generation), [6, 2, 0])
        ] == counts
    assert new_rows(["a", "a", "b"], ("a", "b"), 1.5, 2) == [2, 1]  # 4.5 and 2.25 in all
    assert [new_rows([], ("a", "b"), 5, generation) for generation in (1, 2)] == [[5, 5], [25, 25]]
    assert [new_rows([], names, 5, generation) for generation in (1, 2)] == [[3] * 3, [17] * 3]
    assert new_rows([], tuple("abcdefghijklmnopqrstuvwxyz"), 5, 1) == [1] * 26


def test_how_many_new_rows_the_papers_code_takes():
    """It multiplies and cuts off (``generate_ipet_train_sets``), and deals out what has no rows."""
    labels, names = ["a", "a", "b"], ("a", "b")
    for growth, generation in itertools.product((1.3, 1.5, 1.7, 2, 5), (1, 2, 3)):
        multiplier = int(3 * growth**generation - 3) / 3
        cut = [int(2 * multiplier), int(1 * multiplier)]
        assert new_rows(labels, names, growth, generation, "cut") == cut
    assert new_rows(labels, names, 1.7, 1, "cut") == [1, 0]
    assert new_rows(labels, names, 1.7, 1) == [1, 1]
    assert new_rows([], tuple("abcd"), 5, 1, "cut") == [3, 3, 2, 2]
    assert new_rows([], tuple("abcd"), 5, 2, "cut") == [13, 13, 12, 12]


def test_drawn_rows_are_of_their_label_and_likelier_the_surer():
    shares = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.75, 0.25]])
    generator = torch.Generator().manual_seed(0)
    frequencies = Counter()
    for _ in range(4000):
        (a, b) = draw(shares, [2, 3], generator)
        assert b == [2] and len(set(a)) == 2 and set(a) <= {0, 1, 3}
        frequencies[tuple(sorted(a))] += 1
    weights = {0: 0.9, 1: 0.6, 3: 0.75}
    for one_index, two_index in itertools.combinations(
        weights, 2
    ):  # one, then two, or the other way round
        chance = sum(
            weights[i] / 2.25 * weights[j] / (2.25 - weights[i])
            for i, j in ((one_index, two_index), (two_index, one_index))
        )
        assert frequencies[one_index, two_index] / 4000 == pytest.approx(chance, abs=0.025)
    assert draw(shares, [0, 0], generator) == [[], []]


def test_without_labelled_rows_the_likeliest_are_drawn_whatever_their_label():
    shares = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.99, 0.01]])
    assert [
        sorted(numbers)
        for numbers in draw(shares, [2, 2], torch.Generator().manual_seed(0), likeliest=2)
    ] == [[0, 3], [1, 2]]
    assert [len(numbers) for numbers in draw(shares, [2, 2], torch.Generator().manual_seed(0))] == [
        2,
        0,
    ]


def test_generations_learn_from_rows_that_others_labelled(tmp_path, fits):
    settings_of_pet = plan(3, {"generations": 2, "growth": 2, "share": 0.4})
    messages, rows = [], [*some(1, 5), {"x": "city film", "label": "b"}]
    outcome = run(settings_of_pet, tmp_path, rows, report=messages.append)
    counts = Counter(row["label"] for row in rows)
    assert len(fits) == 10 and not messages and len({json.dumps(data) for data, _ in fits}) == 10
    for fit_number, (data, _) in enumerate(fits[:9]):
        generation, number = divmod(fit_number, 3)
        ((name, learned),) = data.items()
        assert (
            name == f"pattern {number}"
            and list(learned[:6]) == rows
            and len(learned) == 6 * 2**generation == outcome.members[fit_number].rows
        )
        assert Counter(row["label"] for row in learned) == {
            label: count * 2**generation for label, count in counts.items()
        }
        assert len({row["x"] for row in UNLABELED}) < 40 or len(
            {row["x"] for row in learned[6:]}
        ) == len(learned[6:])
        if generation:  # of three members one other labels: its answers are those of either
            before = [
                said(tmp_path, f"{generation - 1}-{other}")[0]["unlabeled"].argmax(1).tolist()
                for other in range(3)
                if other != number
            ]
            assert any(
                all(
                    any(
                        row["x"] == free["x"] and "ab"[label] == row["label"]
                        for free, label in zip(UNLABELED, answers)
                    )
                    for row in learned[6:]
                )
                for answers in before
            )
    assert [scored.generation for scored in outcome.members] == [0] * 3 + [1] * 3 + [2] * 3 and len(
        outcome.ensembles
    ) == 3


def labelling_of(monkeypatch, seed=0, count=9, share=0.25, generation=1, number=4, name=None):
    """Which members label the new rows of one, and which rows it learns from."""
    labellers, together = [], module._together
    monkeypatch.setattr(
        module,
        "_together",
        lambda members, *options: (
            labellers.append([member_scores.member.name for member_scores in members])
            or together(members, *options)
        ),
    )
    tasks = [replace(member(0), name=f"{position}") for position in range(count)]
    if name:
        tasks[number] = replace(tasks[number], name=name)
    before = [
        module._MemberScores(
            module.Member(task.name, 0, 0, 1.0, 0.5, None),
            torch.randn(40, 2, generator=torch.Generator().manual_seed(0)),
            torch.zeros(1, 2),
        )
        for task in tasks
    ]
    settings_of_pet = plan(
        members=tasks,
        settings={"generations": 1, "share": share, "growth": 3},
        train=TRAIN.model_copy(update={"seed": seed}),
    )
    learned = module._labelled(
        module._Run(
            None,
            settings_of_pet,
            PetRows(ROWS, DEV, UNLABELED),
            None,
            "",
            print,
            tasks,
            {},
        ),
        generation,
        number,
        before,
    )
    monkeypatch.undo()
    return labellers[-1], [row["x"] for row in learned]


def test_a_share_of_the_others_is_drawn_by_the_seed(monkeypatch):
    """The released iPET draws without its seed."""
    assert labelling_of(monkeypatch) == labelling_of(monkeypatch)
    for differently in ({"seed": 1}, {"generation": 2}, {"name": "other"}):
        assert labelling_of(monkeypatch)[0] != labelling_of(monkeypatch, **differently)[0], (
            differently
        )
        assert labelling_of(monkeypatch)[1] != labelling_of(monkeypatch, **differently)[1], (
            differently
        )
    for count, share, expected in (
        (9, 0.25, 2),
        (9, 1.0, 8),
        (3, 0.25, 1),
        (2, 0.1, 1),
        (5, 0.6, 2),
    ):
        for seed in range(4):
            chosen, _ = labelling_of(monkeypatch, seed, count, share, number=1)
            assert len(set(chosen)) == len(chosen) == expected and "1" not in chosen


def test_without_labelled_rows_untrained_members_label(tmp_path, fits, monkeypatch):
    messages = []
    monkeypatch.setattr(module, "LIKELIEST", 5)
    outcome = run(
        plan(settings={"generations": 2, "growth": 4}), tmp_path, rows=[], report=messages.append
    )
    assert [scored.weight for scored in outcome.members] == [1.0] * 6 and [
        scored.rows for scored in outcome.members[:4]
    ] == [0, 0, 10, 10]
    assert not outcome.members[0].trained.history and len(fits) == 5
    network = lm()
    scores = torch.tensor(
        [logits(network, pattern(1, row), WORDS[1].values()) for row in UNLABELED]
    )
    assert torch.allclose(
        said(tmp_path, "0-1")[0]["unlabeled"].softmax(1), scores.softmax(1), atol=1e-5
    )
    order = (
        (scores[:, 0] - scores[:, 1]).argsort().tolist()
    )  # the five that the other member finds likeliest of each label, and no others
    expected = [
        *(UNLABELED[position]["x"] + "a" for position in order[-5:]),
        *(UNLABELED[position]["x"] + "b" for position in order[:5]),
    ]
    assert sorted(row["x"] + row["label"] for row in fits[0][0]["pattern 0"]) == sorted(expected)
    short = [short_member for short_member in outcome.members[4:] if short_member.rows < 40]
    assert len(messages) == len(short) > 0 and all(
        "of 20 for" in text and short_member.name in text
        for text, short_member in zip(messages, short)
    )


def test_nothing_trained_is_zero_shot_with_the_rows_as_weights(tmp_path, fits):
    outcome = run(plan(tune="nothing"), tmp_path)
    assert [list(data) for data, _ in fits] == [["classifier"]] and not outcome.members[
        0
    ].trained.history
    assert [scored.weight for scored in outcome.members] == [
        sum(hits(lm(), number, ROWS)) / len(ROWS) for number in range(2)
    ]


def test_other_seeds_end_otherwise(tmp_path):
    settings_of_pet = plan(settings={"generations": 1, "growth": 2})
    outcome, repeated = (run(settings_of_pet, tmp_path / name) for name in ("first", "second"))
    other = run(
        replace(settings_of_pet, train=TRAIN.model_copy(update={"seed": 1})), tmp_path / "other"
    )
    assert figures(outcome) == figures(repeated) and same(state(outcome), state(repeated))
    assert not same(
        said(tmp_path / "first", "0-0")[0], said(tmp_path / "other", "0-0")[0]
    ) and not same(state(outcome), state(other))


# What is kept.


@pytest.mark.parametrize("tune", ["lm", "prompt"])
def test_killed_after_every_write_it_ends_the_same(tmp_path, monkeypatch, tune):
    members = [
        Task(
            f"soft {number}",
            Template.parse(text),
            Verbalizer.from_words(WORDS[number]),
            encoder="table",
        )
        for number, text in enumerate(SOFT)
    ]
    often = TRAIN.model_copy(update={"steps": 2, "evaluate_every": 1, "save_seconds": 0})
    settings_of_pet = plan(
        settings={"generations": 1, "growth": 2},
        tune=tune,
        train=often,
        distil=often,
        **({"members": members} if tune == "prompt" else {}),
    )
    whole = run(settings_of_pet, tmp_path / "whole")
    write, kills = store.write, []

    def killed(path, fill):
        write(path, fill)
        if "checkpoint" in path.name or path not in kills:
            kills.append(path)
            raise KeyboardInterrupt

    monkeypatch.setattr(store, "write", killed)
    for _ in range(30):
        network = lm()
        try:
            resumed = run(settings_of_pet, tmp_path / "killed", network=network, resume=True)
            break
        except KeyboardInterrupt:
            assert same(network.weights(), whole.weights)
    else:
        pytest.fail("it never ends")
    assert sum("checkpoint" in path.name for path in kills) == (10 if tune == "lm" else 6)
    assert (
        sum(path.parent.name == "members" for path in kills) == (4 if tune == "lm" else 6)
        and kills[-1].name == "classifier.safetensors"
    )
    assert figures(resumed) == figures(whole) and same(state(resumed), state(whole))
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        "classifier.safetensors",
        "members",
        "settings.json",
    ]


def test_killed_before_a_write_it_ends_the_same(tmp_path, monkeypatch):
    settings_of_pet = plan(settings={"generations": 1, "growth": 2})
    whole = run(settings_of_pet, tmp_path / "whole")
    write = store.write
    for write_number in (0, 2, 5):
        with monkeypatch.context() as patch:
            count = itertools.count()
            patch.setattr(
                store,
                "write",
                lambda path, fill, count=count, write_number=write_number: (
                    write(path, fill) if next(count) != write_number else 1 / 0
                ),
            )
            with pytest.raises(ZeroDivisionError):
                run(settings_of_pet, tmp_path / str(write_number))
        resumed = run(settings_of_pet, tmp_path / str(write_number), resume=True)
        assert figures(resumed) == figures(whole) and same(state(resumed), state(whole))


def test_a_finished_run_is_read(tmp_path, monkeypatch):
    settings_of_pet = plan(settings={"generations": 1, "growth": 2})
    outcome = run(settings_of_pet, tmp_path)
    monkeypatch.setattr(module, "fit", None)
    monkeypatch.setattr(PromptModel, "scores", None)
    again = run(settings_of_pet, tmp_path, resume=True)
    assert (
        figures(again) == figures(outcome)
        and same(state(again), state(outcome))
        and same(again.weights, outcome.weights)
    )
    monkeypatch.undo()
    assert again.model.predict(UNLABELED[:3]) == outcome.model.predict(UNLABELED[:3])


def test_a_folder_is_one_runs(tmp_path):
    run(plan(), tmp_path)
    with pytest.raises(ConfigError, match="holds a run of PET already: go on with --resume"):
        run(plan(), tmp_path)
    others = {
        "train.seed (0, now 1)": plan(train=TRAIN.model_copy(update={"seed": 1})),
        "members": plan(3),
        "tune": plan(tune="head"),
        "pet.temperature (2.0, now 3": plan(settings={"temperature": 3}),
        "distil.steps (3, now 2)": plan(distil=DISTIL.model_copy(update={"steps": 2})),
        "member.pattern 1.target": plan(members=[member(0), member(1, target="y")]),
        "classifier.seed": plan(classifier=replace(CLASSIFIER, seed=3)),
        "max_length": plan(max_length=9),
    }
    for what, other in others.items():
        with pytest.raises(ConfigError, match=re.escape(f"begun with another {what}")):
            run(other, tmp_path, resume=True)
    with pytest.raises(ConfigError, match="another training rows:"):
        run(plan(), tmp_path, rows=ROWS[1:], resume=True)
    with pytest.raises(ConfigError, match="another unlabelled rows:"):
        pet(lm(), plan(), ROWS, DEV, UNLABELED[1:], tmp_path, resume=True)
    with pytest.raises(ConfigError, match="another lm.*number format"):
        run(plan(), tmp_path, network=lm(torch.float64), resume=True)
    tuned = lm()
    with torch.no_grad():
        tuned.model.get_input_embeddings().weight.add_(1)
    with pytest.raises(ConfigError, match="another lm."):
        run(plan(), tmp_path, network=tuned, resume=True)
    assert run(plan(train=TRAIN.model_copy(update={"save_seconds": 5})), tmp_path, resume=True)


def test_what_failed_before_anything_was_trained_claims_no_folder(tmp_path):
    wrong = [*ROWS[:3], {"x": "film", "label": "c"}]
    with pytest.raises(Exception, match="Row 4 of pattern 0: There is no label 'c'"):
        run(plan(), tmp_path, rows=wrong)
    assert run(plan(), tmp_path).members


# What is refused.


@pytest.mark.parametrize(
    "settings_of_pet, error, message",
    [
        (plan(members=[]), DataError, "0 patterns"),
        (
            plan(members=[member(0), member(0)]),
            ConfigError,
            "Two members of PET are called 'pattern 0'",
        ),
        (
            plan(
                members=[member(0), replace(member(1), name="pattern 0 2")],
                settings={"repetitions": 2},
            ),
            ConfigError,
            "called 'pattern 0 2'",
        ),
        (
            plan(members=[replace(member(0), verbalizer=Choices(("x", "y"))), member(1)]),
            ConfigError,
            "pattern 0 has no labels of its own",
        ),
        (
            plan(members=[replace(member(0), verbalizer=None), member(1)]),
            ConfigError,
            "pattern 0 has no labels of its own",
        ),
        (
            plan(
                members=[
                    member(0),
                    replace(member(1), verbalizer=Verbalizer.from_words({"b": "No", "a": "Yes"})),
                ]
            ),
            ConfigError,
            r"labels \['b', 'a'\], and the",
        ),
        (
            plan(
                classifier=replace(
                    CLASSIFIER, verbalizer=Verbalizer.from_words({"a": "Yes", "c": "No"})
                )
            ),
            ConfigError,
            r"pattern 0 has the labels \['a', 'b'\]",
        ),
        (
            plan(classifier=replace(CLASSIFIER, verbalizer=None)),
            ConfigError,
            "classifier has no labels",
        ),
        (plan(classifier=replace(member(2), loss="vocabulary")), ConfigError, "whole vocabulary"),
        (plan(1, {"generations": 1}), ConfigError, "there is one member"),
        (plan(2, {"generations": 1}, tune="nothing"), ConfigError, "nothing that they train"),
        (
            plan(classifier=replace(CLASSIFIER, template=Template.parse("{y}"))),
            Exception,
            "Row 1 of classifier: .*'y'",
        ),
        (
            plan(train=TRAIN.model_copy(update={"lm_learning_rate": 1e30, "clip": 0.0})),
            DivergedError,
            "pattern 0 diverged .* before the first look",
        ),
    ],
)
def test_refusals(settings_of_pet, error, message, tmp_path):
    network = lm()
    before = network.weights()
    with pytest.raises(error, match=message):
        run(settings_of_pet, tmp_path, network=network)
    assert same(before, network.weights()) and not (tmp_path / "members").exists()


def test_every_training_is_tried_before_the_first(tmp_path):
    """A causal LM has no hidden words to tell: the classifier's setting is at fault, which is
    trained last."""
    network = LanguageModel(*tiny.tiny("gpt2"))
    before = network.weights()
    faulty = plan(2, distil=DISTIL.model_copy(update={"auxiliary": 0.1}))
    state = torch.get_rng_state()
    with pytest.raises(ConfigError, match="masked"):
        run(faulty, tmp_path / "out", network=network)
    assert not (tmp_path / "out").exists() and same(before, network.weights())
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_of_each_kind_are_needed(tmp_path):
    for dev, unlabeled, message in ((DEV, [], "0 unlabelled rows"), ([], UNLABELED, "0 dev rows")):
        with pytest.raises(DataError, match=message):
            pet(lm(), plan(), ROWS, dev, unlabeled, tmp_path)


def test_a_member_that_diverges_late_keeps_its_best_state(tmp_path, monkeypatch):
    def broken(model, data, config, **options):
        histories = fit(model, data, config, **options)
        for history in histories.values():
            history.diverged = True
        return histories

    monkeypatch.setattr(module, "fit", broken)
    messages = []
    run(plan(1), tmp_path, report=messages.append)
    assert [text.split(";")[0] for text in messages] == [
        "The training of pattern 0 diverged",
        "The training of classifier diverged",
    ]


def test_hidden_words_of_the_unlabelled_rows_are_told_beside_the_task(tmp_path, monkeypatch):
    hide, seen = PromptModel.hidden_words, []
    monkeypatch.setattr(
        PromptModel,
        "hidden_words",
        lambda model, task, rows, generator: (
            seen.extend(rows),
            hide(model, task, rows, generator),
        )[1],
    )
    for weight in (0.0, 0.2):
        learning = TRAIN.model_copy(update={"auxiliary": weight})
        run(plan(1, train=learning), tmp_path / f"{weight}", rehearsed=True)
    (without, note), (auxiliary, other) = said(tmp_path / "0.0"), said(tmp_path / "0.2")
    assert not same(without, auxiliary) and note["weight"] == other["weight"]
    assert len(seen) == TRAIN.steps * TRAIN.batch_size and all(row in UNLABELED for row in seen)


def test_the_classifier_learns_until_it_comes_no_nearer_to_answers_held_out(tmp_path, fits):
    """Of 100 unlabelled rows it does not learn from ten; the kept state has the least loss there,
    with the members' answers as the right ones, and patience ends the training."""
    many, steps = [{"x": row["x"]} for row in some(3, 100)], {"steps": 40, "evaluate_every": 2}
    settings = {"settings": {"temperature": 2.0}, "train": TRAIN}
    distil = DISTIL.model_copy(update={**steps, "patience": 1, "lm_learning_rate": 3e-3})
    outcome = pet(lm(), plan(distil=distil, **settings), ROWS, DEV, many, tmp_path)
    (learned,) = fits[-1][0].values()
    assert len(learned) == 90 and fits[-1][1] == "both"
    trained = outcome.trained
    assert trained.step < 40 and trained.best.dev == max(
        evaluation.dev for evaluation in trained.history
    )
    answers = [said(tmp_path, f"0-{n}")[0]["unlabeled"][9::10] for n in range(2)]
    weights = torch.tensor([one.weight for one in outcome.members])
    merged = (weights[:, None, None] * torch.stack(answers)).sum(0) / weights.sum() / 2.0
    model, held = outcome.model, many[9::10]
    scores = torch.stack(model.scores(model.encode(0, held, labelled=False)))
    entropy = -(merged.softmax(1) * (scores / 2.0).log_softmax(1)).sum(1).mean()
    assert trained.best.dev == pytest.approx(-float(entropy), abs=1e-4)


def test_a_share_of_many_unlabelled_rows_is_held_out():
    assert not any(held_out(99, 0.5)) and not any(held_out(1000, 0.0))
    for share in (0.1, 0.25, 0.3):
        assert sum(held_out(1000, share)) == round(1000 * share)
    assert [n for n, held in enumerate(held_out(100, 0.1)) if held] == list(range(9, 100, 10))
