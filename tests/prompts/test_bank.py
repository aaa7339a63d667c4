"""The bank."""

import torch

from ptune.prompts.bank import Bank, Prefix
from ptune.prompts.encoders import Baked, RowGated, Table


def test_vectors_of_some_prompts_in_the_order_asked():
    bank = Bank()
    assert [bank.add(Baked(torch.full((length, 4), float(length)))) for length in (2, 3, 1)] == [
        0,
        1,
        2,
    ] and len(bank) == 3
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
    assert [encoder.embedding.weight.grad is not None for encoder in bank.encoders] == [
        True,
        False,
        True,
    ]


def test_deep_prefixes_stand_on_the_right_and_reach_their_own_columns():
    bank = Bank()
    bank.add(prefix=Prefix(Baked(torch.arange(6.0).reshape(2, 3) + 1), [(0, 1), (3, 5)], 5))
    bank.add(Baked(torch.ones(3, 4)))
    bank.add(Baked(torch.ones(1, 4)), Prefix(Baked(torch.full((3, 5), 9.0)), [(0, 5)], 5))
    deep = bank.deep([0, 1, 2])
    assert (
        deep.values[0].tolist() == [[0] * 5, [1, 0, 0, 2, 3], [4, 0, 0, 5, 6]]
        and not deep.values[1].any()
        and (deep.values[2] == 9).all()
    )
    assert deep.lengths.tolist() == [2, 0, 3] and deep.reach.tolist() == [
        [True, False, False, True, True],
        [False] * 5,
        [True] * 5,
    ]
    assert (
        bank.deep([1]) is None
        and bank.vectors([0]) is None
        and bank.vectors([0, 1]).shape == (2, 3, 4)
    )
    assert (
        [bank.size(number) for number in range(3)] == [6, 12, 19]
        and bank.has_prefix(0)
        and not bank.has_prefix(1)
    )


def test_the_gradient_of_a_prefix_is_its_own():
    bank = Bank()
    for _ in range(2):
        bank.add(prefix=Prefix(Table(2, 3), [(1, 4)], 5))
    deep = bank.deep([0, 1])
    (deep.values[0] * torch.arange(5.0)).sum().backward()
    assert bank.prefixes[0].encoder.embedding.weight.grad.tolist() == [[1, 2, 3]] * 2
    assert not bank.prefixes[1].encoder.embedding.weight.grad.any()


def test_only_rows_whose_gates_read_them_have_a_prefix_of_their_own():
    """The others share their prompt's, and what they would have gets its gradient."""
    bank = Bank()
    plain, gated = Table(2, 4), RowGated(Table(1, 4), torch.tensor([0, 0, 1, 1]), 3)
    torch.nn.init.ones_(gated.openings)
    for made_by in (plain, gated):
        bank.add(prefix=Prefix(made_by, [(0, 4)], 4))
    prompts, texts = torch.tensor([0, 1, -1, 0, 1]), torch.rand(5, 3)
    shared, numbers = bank.deep([0, 1]).of_rows(prompts, texts)
    assert numbers.tolist() == [0, 2, -1, 0, 3] and len(shared.values) == 2 + 2
    assert torch.equal(shared.values[0], plain()) and shared.lengths.tolist() == [2, 1, 1, 1]
    factor = 2 * torch.sigmoid(torch.ones(()))
    for number in (2, 3):
        torch.testing.assert_close(shared.values[number, 1:], gated() * factor)
        assert shared.reach[number].all() and not shared.values[number, 0].any()
    shared.values[numbers[[0, 3]]].sum().backward()
    assert (plain.embedding.weight.grad == 2).all()
    plain_alone, numbers = bank.deep([0]).of_rows(torch.tensor([0, -1]), texts[:2])
    assert numbers.tolist() == [0, -1] and len(plain_alone.values) == 1
