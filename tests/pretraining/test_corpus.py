import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from ptune.errors import DataError
from ptune.pretraining import corpus

TEXT = "\n".join(
    [
        "The capital of Austria is Vienna .",
        "It was a terrible film .",
        "",
        "",
        "Berlin is a city in Germany",
        "",
        "Rome",
        "",
    ]
)


@pytest.fixture
def read(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    return corpus.tokenise(tmp_path / "a.txt", tiny.wordpiece(), tmp_path / "tokens", end=None)


def test_documents_end_at_blank_lines(read):
    tokenizer = tiny.wordpiece()
    decoded = [
        tokenizer.decode(read.ids[a:b].tolist()) for a, b in zip(read.documents, read.documents[1:])
    ]
    assert decoded == [
        "the capital of austria is vienna. it was a terrible film.",
        "berlin is a city in germany",
        "rome",
    ]


def test_word_starts(read):
    pieces = tiny.wordpiece().convert_ids_to_tokens(read.ids.tolist())
    assert any(p.startswith("##") for p in pieces)
    assert [not p.startswith("##") for p in pieces] == read.starts.tolist()


def test_pieces_stay_in_their_document_unless_joined(read):
    pieces = read.sequences(5, joined=False)
    assert all(b - a <= 5 for a, b, _ in pieces) and sum(b - a for a, b, _ in pieces) == len(
        read.ids
    )
    assert all(read.documents[d] <= a < b <= read.documents[d + 1] for a, b, d in pieces)
    joined = read.sequences(5, joined=True)
    assert all(b - a == 5 for a, b, _ in joined[:-1]) and sum(b - a for a, b, _ in joined) == len(
        read.ids
    )


def test_end_tokens_and_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    tokenizer = tiny.byte_level(False)
    ended = corpus.tokenise(
        tmp_path / "a.txt", tokenizer, tmp_path / "t", end=tokenizer.eos_token_id
    )
    assert [int(ended.ids[end - 1]) for end in ended.documents[1:]] == [tokenizer.eos_token_id] * 3
    for name, raw, message in (
        ("b.txt", b"", "holds no text"),
        ("c.txt", "\u00e4".encode("latin-1"), "not UTF-8"),
    ):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(DataError, match=message):
            corpus.tokenise(tmp_path / name, tokenizer, tmp_path / "t", end=None)


def test_a_text_that_has_changed_is_read_again(tmp_path, monkeypatch):
    """Also where it is as long as before, and where the first reading was cut short."""
    text, tokenizer = tmp_path / "a.txt", tiny.wordpiece()
    text.write_text("Vienna")
    write = corpus.write_tokens
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            corpus,
            "write_tokens",
            lambda *files, **options: [write(*files, **options), exec("raise KeyboardInterrupt")],
        )
        corpus.tokenise(text, tokenizer, tmp_path / "t", end=None)
    assert not list((tmp_path / "t").iterdir())
    texts = [
        tokenizer.decode(corpus.tokenise(text, tokenizer, tmp_path / "t", end=None).ids.tolist())
    ]
    text.write_text("London")
    texts.append(
        tokenizer.decode(corpus.tokenise(text, tokenizer, tmp_path / "t", end=None).ids.tolist())
    )
    assert texts == ["vienna", "london"]


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    weight=st.sampled_from([1.0, 2.0, 0.5, 2.5]),
    budget=st.integers(40, 200),
    seed=st.integers(0, 9),
)
def test_epochs(lengths, weight, budget, seed):
    ends = np.cumsum(lengths)
    pieces = np.stack([ends - lengths, ends, ends * 0], 1)
    batches = corpus.epoch([pieces], [weight], budget, extra=2, seed=seed)
    times = np.bincount([piece for batch in batches for _, piece in batch], minlength=len(lengths))
    assert set(times) <= {int(weight), int(weight) + bool(weight % 1)}
    assert all((max(lengths[p] for _, p in batch) + 2) * len(batch) <= budget for batch in batches)
    assert batches == corpus.epoch([pieces], [weight], budget, extra=2, seed=seed)


def test_whole_words_are_masked():
    random = np.random.default_rng(0)
    rows = [np.arange(10, 40)] * 200
    starts = [np.arange(30) % 3 == 0] * 200
    batch = corpus.masked(
        rows,
        starts,
        share=0.3,
        mask=4,
        size=1000,
        random=random,
        around=([2], [3]),
        pad=0,
        spared={13, 14, 15},
    )
    inside = batch["labels"][:, 1:-1]
    hidden_tokens = inside != -100
    assert (
        hidden_tokens.reshape(200, 10, 3).all(2) == hidden_tokens.reshape(200, 10, 3).any(2)
    ).all(), "a word is masked in part"
    assert not hidden_tokens[:, 3:6].any(), "a spared token is masked"
    assert 0.25 < hidden_tokens[:, 6:].mean() < 0.35
    shown = batch["input_ids"][:, 1:-1]
    assert (shown[~hidden_tokens] == np.stack(rows)[~hidden_tokens]).all() and (
        inside[hidden_tokens] == np.stack(rows)[hidden_tokens]
    ).all()
    assert (
        0.75 < (shown[hidden_tokens] == 4).mean() < 0.85
        and 0.07 < (shown[hidden_tokens] == inside[hidden_tokens]).mean() < 0.14
    )
    assert (
        (batch["input_ids"][:, 0] == 2).all()
        and (batch["input_ids"][:, -1] == 3).all()
        and (batch["labels"][:, [0, -1]] == -100).all()
    )
    single_row = corpus.masked(
        [np.array([10])],
        [np.array([True])],
        share=0.01,
        mask=4,
        size=1000,
        random=random,
        around=([2], [3]),
        pad=0,
        spared=set(),
    )
    assert (single_row["labels"] != -100).sum() == 1, "a row with nothing asked teaches nothing"


def test_causal_labels_are_one_ahead():
    batch = corpus.causal([np.array([5, 6, 7]), np.array([8, 9])], 0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]] and batch["labels"].tolist() == [
        [6, 7, -100],
        [9, -100, -100],
    ]


@settings(max_examples=60)
@given(length=st.integers(2, 60), seed=st.integers(0, 99))
def test_span_corruption_can_be_undone(length, seed):
    row = np.arange(100, 100 + length)
    batch = corpus.corrupted(
        [row], list(range(50, 80)), end=1, start=0, random=np.random.default_rng(seed), pad=0
    )
    source, target = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    assert source[-1] == target[-1] == 1 and batch["decoder_input_ids"][0].tolist() == [
        0,
        *target[:-1],
    ]
    hidden, current = {}, None
    for token in target[:-1]:
        if 50 <= token < 80:
            current = token
            hidden[current] = []
        else:
            hidden[current].append(token)
    rebuilt = [t for token in source[:-1] for t in (hidden[token] if 50 <= token < 80 else [token])]
    assert rebuilt == row.tolist()
    assert sum(map(len, hidden.values())) == max(1, round(length * 0.15))


def test_prefix_lm_splits_the_text():
    batch = corpus.split(
        [np.arange(100, 120)], end=1, start=0, random=np.random.default_rng(0), pad=0
    )
    source, target = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    assert source[:-1] + target[:-1] == list(range(100, 120)) and source[-1] == target[-1] == 1
