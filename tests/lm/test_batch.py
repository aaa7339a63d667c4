"""Rows as one batch."""

import torch

from ptune.lm.batch import collate
from ptune.template.language import EncodedRow

ROWS = [EncodedRow((5, 6, 7), (-1, 0, -1), (0, 0, 1), (2,)), EncodedRow((8,), (-1,), (0,), (0,))]


def test_padding_on_the_right():
    batch = collate(ROWS, [3, -1], pad=9)
    assert batch.ids.tolist() == [[5, 6, 7], [8, 9, 9]] and batch.attention.tolist() == [
        [1, 1, 1],
        [1, 0, 0],
    ]
    assert batch.soft_slots.tolist() == [[-1, 0, -1], [-1, -1, -1]] and batch.types.tolist() == [
        [0, 0, 1],
        [0, 0, 0],
    ]
    assert batch.prompts.tolist() == [3, -1]
    assert (batch.rows.tolist(), batch.columns.tolist()) == ([0, 1], [2, 0])


def test_padding_on_the_left_moves_the_answer_places_too():
    batch = collate(ROWS, [3, -1], pad=9, side="left")
    assert batch.ids.tolist() == [[5, 6, 7], [9, 9, 8]] and batch.attention.tolist() == [
        [1, 1, 1],
        [0, 0, 1],
    ]
    assert batch.ids[batch.rows, batch.columns].tolist() == [7, 8]


def test_a_decoder_is_padded_on_the_right_whatever_the_side():
    rows = [
        EncodedRow(
            ids=(5, 6), soft_slots=(-1, -1), types=None, answer_positions=(0,), decoder=(1,)
        ),
        EncodedRow(
            ids=(5,), soft_slots=(-1,), types=None, answer_positions=(0, 1, 2), decoder=(1, 2, 3)
        ),
    ]
    batch = collate(rows, [0, 0], pad=9, side="left")
    assert batch.ids.tolist() == [[5, 6], [9, 5]] and batch.types is None
    assert batch.decoder.tolist() == [
        [1, 9, 9],
        [1, 2, 3],
    ] and batch.decoder_attention.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch.columns.tolist() == [0, 0, 1, 2]
    assert all(
        isinstance(v, torch.Tensor)
        for k, v in vars(batch.to("cpu")).items()
        if v is not None and k != "side"
    )
