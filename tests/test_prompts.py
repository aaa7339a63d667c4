"""The bank."""
import torch

from ptune.encoders import Baked, Table
from ptune.prompts import Bank


def test_vectors_of_some_prompts_in_the_order_asked():
    bank = Bank()
    assert [bank.add(Baked(torch.full((length, 4), float(length)))) for length in (2, 3, 1)] == [0, 1, 2] and len(bank) == 3
    vectors = bank.vectors([1, 2])
    assert vectors.shape == (2, 3, 4) and vectors[:, :, 0].tolist() == [[3, 3, 3], [1, 0, 0]]
    assert bank.vectors([]) is None


def test_each_encoder_runs_once_and_no_other():
    bank, calls = Bank(), []
    for number in range(3):
        bank.add(Table(2, 4))
        bank.encoders[number].register_forward_hook(lambda *_, number=number: calls.append(number))
    bank.vectors([2, 0]).sum().backward()
    assert calls == [2, 0]
    assert [encoder.embedding.weight.grad is not None for encoder in bank.encoders] == [True, False, True]
