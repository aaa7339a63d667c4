import os
import pickle

import numpy as np
import pytest
import tiny
import torch

from ptune.errors import StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.prompts import encoders
from ptune.storage import google_format
from ptune.template.language import Template


@pytest.mark.parametrize("name", ["mrpc", "rte", "sst2"])
def test_published_prompts(name, data, tmp_path):
    """The values are those of the file, and the same when written again."""
    vectors = google_format.read(data / "google_prompt_tuning" / f"{name}.npy")
    assert (
        vectors.shape == (100, 768) and vectors.dtype == torch.float32 and vectors.is_contiguous()
    )
    raw = np.frombuffer(
        (data / "google_prompt_tuning" / f"{name}.npy").read_bytes()[-vectors.numel() * 4 :],
        dtype="<f4",
    )
    assert (
        torch.equal(vectors, torch.tensor(raw).reshape(100, 768)) and 1 < vectors.abs().mean() < 100
    )
    google_format.write(tmp_path / "again.npy", vectors)
    assert torch.equal(google_format.read(tmp_path / "again.npy"), vectors)


def test_round_trip(tmp_path):
    vectors = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "deeper" / "prompt.npy"
    google_format.write(path, vectors.requires_grad_())
    assert torch.equal(google_format.read(path), vectors) and [
        file.name for file in path.parent.iterdir()
    ] == ["prompt.npy"]
    assert np.array_equal(np.load(path), vectors.detach().numpy())
    google_format.write(os.fspath(path), vectors.detach().T.bfloat16())
    assert torch.equal(google_format.read(os.fspath(path)), vectors.detach().T.bfloat16().float())


def test_a_prompt_is_used(tmp_path):
    """The vectors stand before the input, as they are."""
    google_format.write(
        tmp_path / "p.npy", torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    )
    model = PromptModel(LanguageModel(*tiny.tiny("t5")))
    vectors = google_format.read(tmp_path / "p.npy")
    model.add(
        Task("t", Template.parse(f"{{soft:{len(vectors)}}} {{x}}")), encoder=encoders.Baked(vectors)
    )
    row = model.encode(0, [{"x": "Vienna"}], labelled=False)[0].fills[0]
    learned = model.learned([0])
    scores = model.lm.scores(model.lm.collate([row], [0]), learned.vectors)
    text = model.lm.embed(torch.tensor(row.ids[4:]))
    expected = model.lm.model(
        inputs_embeds=torch.cat([vectors, text])[None],
        decoder_input_ids=torch.tensor([row.decoder]),
    ).logits[0]
    swapped = model.lm.model(
        inputs_embeds=torch.cat([text, vectors])[None],
        decoder_input_ids=torch.tensor([row.decoder]),
    ).logits[0]
    assert (scores - swapped).abs().max() > 1e-3
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


def test_float64_as_googles_own_prompt_of_five_has_it(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 256))
    np.save(tmp_path / "prompt_5x256.npy", values)
    vectors = google_format.read(tmp_path / "prompt_5x256.npy")
    assert vectors.dtype == torch.float32 and torch.equal(vectors, torch.from_numpy(values).float())


@pytest.mark.parametrize(
    "array, message",
    [
        (np.full((2, 3), 1e300), "not numbers"),
        (np.zeros((2, 3), np.int64), "should hold float32 or float64, and holds int64"),
        (np.zeros((2, 3), np.float16), "holds float16"),
        (np.zeros((2, 3), ">f4"), "holds >f4"),
        (np.zeros((2, 3), [("a", "<f4")]), "should hold float32"),
        (np.zeros(6, np.float32), r"shape \[6\], and soft tokens are \[P, E\]"),
        (np.zeros((2, 3, 1), np.float32), r"shape \[2, 3, 1\]"),
        (np.zeros((), np.float32), r"shape \[\]"),
        (np.zeros((0, 3), np.float32), r"shape \[0, 3\]"),
        (np.array([[1, np.nan]], np.float32), "not numbers"),
        (np.array([[1, -np.inf]], np.float32), "not numbers"),
    ],
)
def test_other_arrays(array, message, tmp_path):
    np.save(tmp_path / "p.npy", array)
    with pytest.raises(StoreError, match=message):
        google_format.read(tmp_path / "p.npy")


@pytest.mark.parametrize(
    "vectors, message",
    [
        (torch.zeros(3), r"shape \[3\]"),
        (torch.zeros(0, 4), r"shape \[0, 4\]"),
        (torch.full((2, 2), torch.nan), "not numbers"),
    ],
)
def test_what_is_no_prompt_is_not_written(vectors, message, tmp_path):
    google_format.write(tmp_path / "p.npy", torch.ones(2, 2))
    with pytest.raises(StoreError, match=f"was not written: .*{message}"):
        google_format.write(tmp_path / "p.npy", vectors)
    assert torch.equal(google_format.read(tmp_path / "p.npy"), torch.ones(2, 2))


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (self.mark.touch, ())


def test_pickles_are_never_loaded(tmp_path):
    """As a bare pickle, and as an array of objects, which numpy pickles."""
    mark, path = tmp_path / "ran", tmp_path / "p.npy"
    path.write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(StoreError, match="pickled") as raised:
        google_format.read(path)
    assert "allow_pickle" not in str(raised.value)  # numpy's advice is to run it
    np.save(path, np.array([[Hostile(mark)]], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="pickled"):
        google_format.read(path)
    np.savez(tmp_path / "p.npz", a=np.array([Hostile(mark)], dtype=object))
    with pytest.raises(StoreError, match="archive"):
        google_format.read(tmp_path / "p.npz")
    assert not mark.exists()


def test_damaged_files(tmp_path):
    """Cut short anywhere, any byte of the header changed, and a shape that no memory could hold."""
    path = tmp_path / "p.npy"
    google_format.write(path, torch.ones(4, 6))
    whole = path.read_bytes()
    for size in (*range(0, 140, 7), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match="damaged"):
            google_format.read(path)
    for position in range(128):
        for value in (0, 255, ord("("), ord("9"), ord("\n")):
            path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            try:
                google_format.read(path)
            except StoreError:
                continue
    path.write_bytes(whole.replace(b"(4, 6), }          ", b"(4000000000, 6), } "))
    with pytest.raises(StoreError, match="damaged"):
        google_format.read(path)
    path.write_bytes(
        whole.replace(b"(4, 6), }                   ", b"(4611686018427387904, 4), } ")
    )
    with pytest.raises(StoreError, match="damaged") as raised:
        google_format.read(path)
    assert "allow_pickle" not in str(raised.value)
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        google_format.read(tmp_path / "none.npy")
    with pytest.raises(StoreError, match="cannot be read"):
        google_format.read(tmp_path)
