"""The conv-LSTM cell against a replay by hand, torch's dense LSTM cell, and its own linearity."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from geco_models import ConvLSTMCell


@pytest.fixture
def case():
    """A cell in float64 with inputs and states of a whole batch."""
    cell = ConvLSTMCell(3, 4, kernel=3).double()
    nn.init.normal_(cell.bias)
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    state = tuple(torch.randn(2, 4, 5, 6, dtype=torch.float64) for _ in range(2))
    return cell, x, state


def test_one_step_replayed_by_hand(case):
    cell, x, (hidden, memory) = case
    offset = torch.randn(2, 16, 5, 6, dtype=torch.float64)
    columns = functional.unfold(torch.cat([x, hidden], 1), 3, padding=1)
    gates = torch.einsum("gk,bkn->bgn", cell.weight.flatten(1), columns).view(2, 16, 5, 6)
    gates = gates + cell.bias.view(1, 16, 1, 1) + offset
    new, old, show, candidate = (gates[:, 4 * i : 4 * i + 4] for i in range(4))
    expected = memory / (1 + torch.exp(-old)) + torch.tanh(candidate) / (1 + torch.exp(-new))
    out, kept = cell((x,), (hidden, memory), offset)
    torch.testing.assert_close(kept, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        out, torch.tanh(expected) / (1 + torch.exp(-show)), rtol=0, atol=1e-12
    )


def test_is_the_dense_cell_on_a_single_pixel():
    dense = nn.LSTMCell(3, 4).double()
    cell = ConvLSTMCell(3, 4, kernel=1).double()
    order = torch.arange(16).view(4, 4)[[0, 1, 3, 2]].flatten()  # theirs: i, f, g, o
    with torch.no_grad():
        cell.weight.copy_(torch.cat([dense.weight_ih, dense.weight_hh], 1)[order, :, None, None])
        cell.bias.copy_((dense.bias_ih + dense.bias_hh)[order])
    x, h, c = (torch.randn(5, n, dtype=torch.float64) for n in (3, 4, 4))
    expected = dense(x, (h, c))
    out = cell((x[..., None, None],), (h[..., None, None], c[..., None, None]))
    for ours, theirs in zip(out, expected, strict=True):
        torch.testing.assert_close(ours[..., 0, 0], theirs, rtol=0, atol=1e-14)


def test_hidden_state_enters_every_gate(case):
    cell, x, (hidden, memory) = case
    before = cell.gates((x, hidden)).chunk(4, dim=1)
    after = cell.gates((x, hidden + 0.1)).chunk(4, dim=1)
    names = ("input", "forget", "output", "candidate")
    for name, a, b in zip(names, before, after, strict=True):
        assert ((a - b).abs() > 1e-6).all(), name
    out = cell((x,), (hidden, memory))
    moved = cell((x,), (hidden + 0.1, memory))
    assert all((a - b).abs().amax() > 1e-3 for a, b in zip(out, moved, strict=True))


def test_states_shared_by_the_batch_equal_expanded_ones(case):
    cell, x, (hidden, memory) = case
    one, kept = hidden[:1], memory[:1]
    expected = cell((x,), (one.expand_as(hidden), kept.expand_as(memory)))
    out = cell((x[:, :1], x[:, 1:]), (one, kept))
    for a, b in zip(out, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
    # inputs of the whole batch around one that is shared
    mixed = cell((x[:, :1], x[:1, 1:2], x[:, 2:]), (hidden, memory))
    full = cell(
        (torch.cat([x[:, :1], x[:1, 1:2].expand(2, 1, 5, 6), x[:, 2:]], 1),), (hidden, memory)
    )
    for a, b in zip(mixed, full, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_what_all_share_stays_shared(case):
    cell, x, (hidden, memory) = case
    out = cell((x[:1],), (hidden[:1], memory[:1]))
    assert all(plane.shape[0] == 1 for plane in out)


def test_contributions_add_up_to_the_gates(case):
    cell, x, (hidden, _) = case
    total = cell.contribution(x[:, :2]) + cell.contribution(x[:, 2:], first=2)
    total = total + cell.contribution(hidden, first=3) + cell.bias.view(1, 16, 1, 1)
    torch.testing.assert_close(total, cell.gates((x, hidden)), rtol=0, atol=1e-13)


def test_a_fresh_cell_remembers():
    cell = ConvLSTMCell(2, 3)
    assert torch.equal(cell.bias, torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(3))


def test_gradients_match_finite_differences():
    cell = ConvLSTMCell(1, 2).double()
    planes = [torch.randn(2, c, 3, 3, dtype=torch.float64, requires_grad=True) for c in (1, 2, 2)]
    assert torch.autograd.gradcheck(lambda x, h, c: cell((x,), (h, c)), planes)
    shared = [planes[0], *(p[:1].detach().requires_grad_() for p in planes[1:])]
    assert torch.autograd.gradcheck(lambda x, h, c: cell((x,), (h, c)), shared)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 4), "`inputs` must be a channel count >= 0, but got -1"),
        ((2, 0), "`hidden` must be a channel count >= 1, but got 0"),
        ((2, 4, 2), "`kernel` must be odd"),
    ],
)
def test_wrong_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvLSTMCell(*arguments)


def test_repr_states_the_sizes():
    assert repr(ConvLSTMCell(2, 5, 3)) == "ConvLSTMCell(2, 5, kernel=3)"
