import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptune import LanguageModel, PromptModel, Task, Template, TrainConfig, fit, load, save
from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.label_words import Verbalizer, allowed
from ptune.errors import VerbalizerError
from ptune.template.tokenizer import Tokens
from ptune.training.loop import accuracy

BERT, GPT2, ROBERTA = (
    Tokens(tiny.wordpiece()),
    Tokens(tiny.byte_level(False)),
    Tokens(tiny.byte_level(True)),
)


def test_one_rare_word_cannot_sink_a_class():
    """OpenPrompt takes the mean of log probabilities: a class with the words great = 5, good = -50
    loses to bad = 0."""
    bound = Verbalizer.from_words({"positive": ["great", "best"], "negative": "bad"}).bind(
        BERT, "spaced", "masked"
    )
    logits = torch.zeros(1, 1, 200)
    great, best, bad = (ids[0] for ids in bound.ids)
    logits[0, 0, great], logits[0, 0, best], logits[0, 0, bad] = 5, -50, 0
    log_probs = logits.log_softmax(-1)
    scores = bound.scores([log_probs])[0]
    assert scores[0] > scores[1]
    assert log_probs[0, 0, [great, best]].mean() < log_probs[0, 0, bad], (
        "a mean of log probabilities would not lose, so this test could not fail"
    )
    p = log_probs[0, 0].exp()
    torch.testing.assert_close(
        scores, torch.stack([(p[great] + p[best]) / 2, p[bad]]).log(), atol=1e-5, rtol=1e-5
    )


def test_word_with_token_id_zero_counts():
    """PET drops label words whose id is 0 (m2c > 0)."""

    class Zero:
        tokenizer = type("T", (), {"unk_token_id": None})
        words = staticmethod(lambda words, place: [[0], [1]])

    bound = Verbalizer.from_words({"a": "x", "b": "y"}).bind(Zero, "spaced", "masked")
    assert bound.scores([torch.tensor([[[2.0, 1.0]]])]).tolist() == [[2.0, 1.0]]


def test_words_of_several_tokens_are_whole():
    """OpenPrompt scores a word by its first piece, so that "unbelievable" is "un"."""
    bound = Verbalizer.from_words({"a": "great film", "b": "great"}).bind(BERT, "spaced", "masked")
    assert [len(f.answer) for f in bound.fills] == [2, 1]
    (first, second), (single,) = bound.ids
    values = [torch.full((1, 2, 200), -9.0), torch.full((1, 1, 200), -9.0)]
    values[0][0, 0, first], values[0][0, 1, second], values[1][0, 0, single] = -1.0, -2.0, -0.5
    assert bound.scores(values).tolist() == [[-3.0, -0.5]]


def test_fills_of_a_causal_lm_give_the_words_before():
    bound = Verbalizer.from_words({"a": ["Yes", "No"], "b": "great film", "c": "great city"}).bind(
        GPT2, "spaced", "causal"
    )
    ids = dict(zip(("Yes", "No", "great film", "great city"), bound.ids))
    shared = [f for f in bound.fills if len(f.answer) == 1]
    assert sum(len(f.words) for f in bound.fills) == 4 and all(
        f.answer[-1] is None for f in bound.fills
    )
    for fill in bound.fills:
        assert all(bound.ids[w][:-1] == fill.answer[:-1] for w in fill.words)
    assert len(shared) <= 1 and (len(ids["Yes"]) > 1 or 0 in shared[0].words)


def test_leading_space_follows_the_template():
    spaced = Verbalizer.from_words({"a": "Yes", "b": "No"}).bind(ROBERTA, "spaced", "masked")
    start = Verbalizer.from_words({"a": "Yes", "b": "No"}).bind(ROBERTA, "start", "masked")
    pieces = ROBERTA.tokenizer.convert_ids_to_tokens
    assert pieces(spaced.ids[0])[0].startswith("\u0120") and not pieces(start.ids[0])[0].startswith(
        "\u0120"
    )


@pytest.mark.parametrize(
    "words, message",
    [
        ({}, "at least two labels"),
        ({"a": "Yes"}, "at least two labels"),
        ({"a": [], "b": "No"}, "label 'a' has no word"),
        ({"a": " ", "b": "No"}, "label 'a' has no word"),
    ],
)
def test_labels_without_words(words, message):
    with pytest.raises(VerbalizerError, match=message):
        Verbalizer.from_words(words)


def test_words_that_the_lm_cannot_say():
    with pytest.raises(
        VerbalizerError, match="'\u4e2d' .label 'a'. is not in this LM's vocabulary"
    ):
        Verbalizer.from_words({"a": "\u4e2d", "b": "No"}).bind(BERT, "spaced", "masked")
    with pytest.raises(VerbalizerError, match="'a' and 'b' have the same word"):
        Verbalizer.from_words({"a": "Yes", "b": "yes"}).bind(BERT, "spaced", "masked")
    with pytest.raises(VerbalizerError, match="no label 'c'"):
        Verbalizer.from_words({"a": "Yes", "b": "No"}).bind(BERT, "spaced", "masked").number("c")


def test_allowed_words_are_single_tokens():
    verbalizer, names, left_out = allowed(
        ["Vienna", "vienna", "Paris", "great film", "\u4e2d", "[MASK]", "euro"], BERT, "spaced"
    )
    assert verbalizer.labels == ("Vienna", "Paris", "euro") and left_out == 3
    assert names == {"Vienna": "Vienna", "vienna": "Vienna", "Paris": "Paris", "euro": "euro"}
    with pytest.raises(VerbalizerError, match="Of 2 allowed words only 0"):
        allowed(["great film", "\u4e2d"], BERT, "spaced")


# Words of unlike length.


def spelt(bound, table):
    """The log probabilities of the words [W] by a table of what each token is likely to be behind
    those before it."""
    return torch.stack(
        [
            sum(table[ids[:position]][token] for position, token in enumerate(ids))
            for ids in bound.ids
        ]
    )


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(
        st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple),
        min_size=2,
        max_size=6,
        unique=True,
    ),
    seed=st.integers(0, 99),
    length=st.sampled_from(["closed", "sum", "token", "character"]),
    data=st.data(),
)
def test_words_that_begin_others_are_counted_once(words, seed, length, data):
    """Closed, a word is what is said without going on as another label's word; by hand over all
    texts that begin with it."""
    owners = tuple(data.draw(st.integers(0, 2)) for _ in words)
    bound = BoundVerbalizer(
        ("a", "b", "c"),
        tuple(words),
        owners,
        "causal",
        order="left-to-right",
        length=length,
        characters=tuple(range(1, len(words) + 1)),
    )
    generator = torch.Generator().manual_seed(seed)
    before = {ids[:position] for ids in words for position in range(len(ids))}
    table = {
        text: torch.randn(3, generator=generator, dtype=torch.float64).log_softmax(0)
        for text in sorted(before)
    }
    log_probs = []
    for fill in bound.fills:
        texts = [fill.answer[:position] for position in range(len(fill.answer))]
        log_probs.append(torch.stack([table[text] for text in texts])[None])
    scores, plain = bound.of_words(log_probs)[0], spelt(bound, table)
    if length == "closed":
        said = []
        for word, ids in enumerate(words):
            others = [
                other
                for n, other in enumerate(words)
                if owners[n] != owners[word] and other[: len(ids)] == ids and other != ids
            ]
            least = [
                other
                for other in others
                if not any(other[: len(shorter)] == shorter != other for shorter in others)
            ]
            said.append(plain[word].exp() - sum(plain[words.index(other)].exp() for other in least))
        torch.testing.assert_close(
            scores.exp(), torch.stack(said).clamp(min=0), atol=1e-5, rtol=1e-4
        )
    else:
        divisors = {
            "sum": [1] * len(words),
            "token": [len(ids) for ids in words],
            "character": range(1, len(words) + 1),
        }[length]
        torch.testing.assert_close(
            scores, plain / torch.tensor(list(divisors), dtype=torch.float64)
        )


def rated(length):
    model = PromptModel(LanguageModel(*tiny.tiny("gpt2")))
    words = Verbalizer.from_words({"one": "1", "ten": "10"}, length=length)
    number = model.add(
        Task("stars", Template.parse("{soft:2} {x} is {mask}"), words, encoder="table")
    )
    return model, number


def test_a_word_that_begins_another_can_lose_and_training_mends_it(tmp_path):
    rows = [
        {"x": text, "label": "ten"} for text in ("great film", "the best", "bad film", "the worst")
    ]
    for length, figure in (("sum", 0), ("closed", 1)):
        model, number = rated(length)
        fit(
            model,
            {number: (rows, rows)},
            TrainConfig(epochs=10, lm_learning_rate=0.01, patience=0),
            tune="both",
        )
        examples = model.encode(number, rows)
        assert accuracy(model.scores(examples), examples) == figure
    save(model, tmp_path)
    again = load(tmp_path, model.lm)
    assert (
        again.predict(rows) == model.predict(rows)
        and again.tasks[0].task.verbalizer == model.tasks[0].task.verbalizer
    )


@pytest.mark.parametrize(
    "length, message",
    [
        ("closed", "read as said only where the LM does not go on so"),
        ("sum", "never less likely"),
        ("token", "their mean over each token"),
    ],
)
def test_a_word_that_begins_another_is_told(length, message):
    bound = Verbalizer.from_words(
        {"one": "1", "ten": ["10", "ten"], "two": "2"}, length=length
    ).bind(GPT2, "spaced", "causal")
    assert (
        len(bound.notes) == 1
        and bound.notes[0].startswith("The word '1' (label 'one') begins '10' (label 'ten'): ")
        and message in bound.notes[0]
    )
    assert (
        Verbalizer.from_words({"one": ["1", "10"], "two": "2"}).bind(GPT2, "spaced", "causal").notes
        == ()
    )
    assert (
        Verbalizer.from_words({"one": "1", "ten": "10"}).bind(ROBERTA, "spaced", "masked").notes
        == ()
    )
