import pytest
import torch

from ptune.errors import ConfigError
from ptune.prompts import encoders

NAMES = list(encoders.ENCODERS)


def lstm_by_hand(x, lstm, reverse, layer):
    """One direction of one layer, a step at a time."""
    w_ih, w_hh, b_ih, b_hh = (
        getattr(lstm, f"{name}_l{layer}{'_reverse' if reverse else ''}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = c = torch.zeros(w_hh.shape[1])
    out = []
    for row in x.flip(0) if reverse else x:
        i, f, g, o = (w_ih @ row + b_ih + w_hh @ h + b_hh).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return torch.stack(out).flip(0) if reverse else torch.stack(out)


def test_lstm_is_the_papers():
    """Table, 2-layer BiLSTM of E / 2 a direction, linear, ReLU, linear; by hand."""
    torch.manual_seed(0)
    encoder = encoders.make("lstm", 5, 12)
    x = encoder.embedding.weight
    for layer in range(2):
        x = torch.cat(
            [lstm_by_hand(x, encoder.lstm, reverse, layer) for reverse in (False, True)], 1
        )
    first, _, second = encoder.mlp
    wanted = (x @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    torch.testing.assert_close(encoder(), wanted, atol=1e-6, rtol=1e-6)
    one_way = (
        encoder.lstm(encoder.embedding.weight[None])[0][0].roll(1, 0) @ first.weight.T + first.bias
    ).clamp(min=0) @ second.weight.T + second.bias
    assert (one_way - wanted).abs().max() > 1e-3


def test_lstm_is_pefts_at_half_the_hidden_size():
    """PEFT has the paper's code at encoder_hidden_size = E / 2, with one linear layer more, which
    is set to do nothing here."""
    peft = pytest.importorskip("peft")
    config = peft.PromptEncoderConfig(
        peft_type="P_TUNING",
        task_type="CAUSAL_LM",
        num_virtual_tokens=6,
        token_dim=16,
        num_transformer_submodules=1,
        encoder_reparameterization_type="LSTM",
        encoder_hidden_size=8,
        encoder_num_layers=2,
        encoder_dropout=0.0,
    )
    theirs = peft.tuners.p_tuning.PromptEncoder(config)
    ours = encoders.make("lstm", 6, 16)
    linears = [m for m in theirs.mlp_head if isinstance(m, torch.nn.Linear)]
    ours.embedding.load_state_dict(theirs.embedding.state_dict())
    ours.lstm.load_state_dict(theirs.lstm_head.state_dict())
    for mine, other in zip((ours.mlp[0], ours.mlp[2]), (linears[0], linears[-1])):
        mine.load_state_dict(other.state_dict())
    for extra in linears[1:-1]:
        with torch.no_grad():
            extra.weight.copy_(torch.eye(len(extra.weight)))
            extra.bias.zero_()
    torch.testing.assert_close(ours(), theirs(torch.arange(6)[None])[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [8, 7])
def test_bake_is_the_encoder_and_apart_from_it(name, width):
    encoder = encoders.make(name, 4, width)
    baked = encoders.bake(encoder)
    assert baked.shape == (4, width)
    # as when it answers; with gradients the LSTM takes another kernel, and the last bit may differ
    with torch.no_grad():
        assert torch.equal(baked, encoder())
    torch.testing.assert_close(baked, encoder(), atol=1e-6, rtol=1e-6)
    assert torch.equal(encoders.Baked(baked)(), baked)
    with torch.no_grad():
        getattr(encoder, "shared", encoder).embedding.weight.add_(1)
    assert not torch.equal(baked, encoder())


@pytest.mark.parametrize("name", NAMES)
def test_start_from_given_vectors(name):
    torch.manual_seed(0)
    encoder = encoders.make(name, 6, 32)
    target = torch.randn(6, 32) * 0.05
    left = encoders.start_from(encoder, target)
    assert left < 2 * encoders.FIT_ERROR
    assert ((encoder() - target).square().mean() / target.var()).item() < 2 * encoders.FIT_ERROR
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_random_start_has_the_scale_of_the_embeddings(name):
    """PEFT's random start has a deviation of 1.02 where the LM's embeddings have 0.02."""
    torch.manual_seed(0)
    rows = torch.randn(500, 64) * 0.02 + 0.3
    encoder = encoders.make(name, 50, 64)
    encoders.start_at_random(encoder, rows, torch.Generator().manual_seed(0))
    assert 0.01 < encoder().std().item() < 0.04
    if name == "table":
        assert abs(encoder().mean().item() - 0.3) < 0.01


def test_frequent_ids_are_counted_not_the_first_of_the_vocabulary():
    """OpenPrompt takes rows 0 to n ([PAD], [UNK], [CLS], ...) for the most frequent words."""
    counts = [0] * 50 + [5, 1, 9, 0, 7, 3] + [0] * 50
    picked = encoders.from_frequent(counts, 3, torch.Generator().manual_seed(0), most=3)
    assert sorted(picked) == [50, 52, 54]
    many = encoders.from_frequent(counts, 12, torch.Generator().manual_seed(0))
    assert len(many) == 12 and set(many) == {50, 51, 52, 54, 55}


def test_unknown_encoder():
    with pytest.raises(ConfigError, match="no prompt encoder 'lstn'. Did you mean 'lstm'"):
        encoders.make("lstn", 3, 8)


def test_a_deep_prefix_is_made_by_the_papers_mlp():
    """P_theta[i] = W2 tanh(W1 P'_theta[i] + b1) + b2, each vector by itself (Prefix-Tuning, section
    4.3)."""
    encoder = encoders.make_deep(3, 10, 4, 6)
    first, _, second = encoder.mlp
    rows = [
        second.weight @ torch.tanh(first.weight @ row + first.bias) + second.bias
        for row in encoder.embedding.weight
    ]
    torch.testing.assert_close(encoder(), torch.stack(rows))
    assert (
        encoder.embedding.weight.shape == (3, 4)
        and first.weight.shape == (6, 4)
        and second.weight.shape == (10, 6)
    )
    assert isinstance(encoders.make_deep(3, 10, 4, 0), encoders.Table) and encoders.make_deep(
        3, 10, 4, 0
    )().shape == (3, 10)


@pytest.mark.parametrize("hidden", [0, 6])
def test_a_start_at_zero_still_learns(hidden):
    encoder = encoders.make_deep(3, 10, 4, hidden)
    encoders.start_at_zero(encoder)
    assert not encoder().any()
    (encoder() - 1).square().sum().backward()
    assert any(parameter.grad.abs().max() > 0 for parameter in encoder.parameters())
