"""The LSTM with written-out derivatives and the shared weight: against autograd through plain steps."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from metaspeech.models.base import differentiated_twice, second_order
from metaspeech.models.layers import Lstm, update_cell
from metaspeech.models.recurrence import recurrence
from metaspeech.models.shared_weight import SharedWeight


def normal(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()


def step_by_step(inputs, weight):
    directions = []
    for d in range(inputs.shape[1]):
        hidden = cell = inputs.new_zeros(inputs.shape[2], weight.shape[1])
        states = []
        for t in range(len(inputs)):
            hidden, cell = update_cell(inputs[t, d] + hidden @ weight[d], cell)
            states.append(hidden)
        directions.append(torch.stack(states))
    return torch.stack(directions, dim=1)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 1, 3, 5), (3, 2, 2, 4)])
def test_states_and_both_derivatives_of_the_recurrence(shape):
    time, sets, batch, hidden = shape
    inputs, weight = normal(time, sets, batch, 4 * hidden), normal(sets, hidden, 4 * hidden, seed=1, scale=0.7)
    torch.testing.assert_close(recurrence(inputs, weight), step_by_step(inputs, weight))
    assert gradcheck(recurrence, (inputs, weight))
    assert gradgradcheck(recurrence, (inputs, weight))


def test_a_third_derivative_is_refused_and_not_wrong():
    inputs, weight = normal(2, 1, 2, 8), normal(1, 2, 8, seed=1)
    first = torch.autograd.grad(recurrence(inputs, weight).sum(), weight, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), weight, create_graph=True)[0]
    with pytest.raises(RuntimeError, match=r"once_differentiable|not have been used"):
        torch.autograd.grad(second.square().sum(), weight)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, (5, 2, 4)])
def test_an_lstm_is_the_same_whichever_way_it_is_computed(bidirectional, lengths):
    torch.manual_seed(0)
    layer = Lstm(3, 4, bidirectional).double()
    x = normal(3, 5, 3)
    parameters = [x, *layer.parameters()]

    def run():
        y = layer(x) if lengths is None else layer.forward_lengths(x, torch.tensor(lengths))
        gradients = torch.autograd.grad(y.square().sum(), parameters, create_graph=differentiated_twice())
        return y, gradients

    y, gradients = run()
    with second_order():
        other, others = run()
    torch.testing.assert_close(other, y)
    for one, expected in zip(others, gradients, strict=True):
        torch.testing.assert_close(one, expected)


def test_the_way_of_computing_ends_with_its_block():
    with second_order():
        assert differentiated_twice()
        with second_order(False):
            assert not differentiated_twice()
        assert differentiated_twice()
    assert not differentiated_twice()
    with pytest.raises(ZeroDivisionError), second_order():
        _ = 1 / 0
    assert not differentiated_twice()


# A weight that steps share -------------------------------------------------------------------------------------------


def looped(x, weight, shared):
    """Two outputs, as of a decoder: all states, and something of the last."""
    product, states = SharedWeight(weight).product if shared else lambda value: value @ weight, []
    for _ in range(5):
        x = torch.tanh(product(x))
        states.append(x)
    return torch.stack(states), x.square()


def test_products_and_both_derivatives_of_a_shared_weight():
    x, weight = normal(3, 4), normal(4, 4, seed=1)
    for one, other in zip(looped(x, weight, True), looped(x, weight, False), strict=True):
        assert torch.equal(one, other)
    assert gradcheck(lambda *both: looped(*both, True), (x, weight))
    assert gradgradcheck(lambda *both: looped(*both, True), (x, weight))


def test_a_third_derivative_of_a_shared_weight():
    def third(shared):
        x, weight = normal(3, 4), normal(4, 4, seed=1)
        value = looped(x, weight, shared)[0].sin().sum()
        first = torch.autograd.grad(value, weight, create_graph=True)[0]
        second = torch.autograd.grad(first.sin().sum(), (weight, x), create_graph=True)
        return torch.autograd.grad(sum(one.sin().sum() for one in second), (weight, x))

    for one, expected in zip(third(True), third(False), strict=True):
        torch.testing.assert_close(one, expected)


@pytest.mark.parametrize("until", [1, 3, 5])
def test_a_pass_that_asks_for_less_leaves_nothing_to_the_next(until):
    def gradients(shared):
        x, weight = normal(3, 4), normal(4, 4, seed=1)
        states = looped(x, weight, shared)[0]
        passes = ((states, [x]), (states[:until], [weight]), (states[until - 1 :], [x]), (states, [weight, x]))
        return [torch.autograd.grad(part.sin().sum(), asked, retain_graph=True) for part, asked in passes]

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_inputs_that_need_no_gradient_do_not_hide_the_weights():
    weight = normal(4, 4, seed=1)
    x = torch.ones(3, 4, dtype=torch.float64)
    found = torch.autograd.grad(looped(x, weight, True)[0].sum(), weight)[0]
    torch.testing.assert_close(found, torch.autograd.grad(looped(x, weight, False)[0].sum(), weight)[0])
