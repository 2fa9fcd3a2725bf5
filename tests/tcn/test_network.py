"""The pruned network against the full one, and its gradients; speed must change no number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ocad_tcn.network import MANY_ROWS, ResidualBlock, TemporalNetwork


def full_network(network: TemporalNetwork, window: Tensor) -> Tensor:
    """The textbook TCN with the same weights: `conv1d` of growing dilation over every position, then the last one."""
    hidden = window
    for index, module in enumerate(network.blocks):
        assert isinstance(module, ResidualBlock)
        dilation, skipped = 2**index, hidden
        for layer in (module.first, module.second):
            weight = layer.weight.view(layer.out_features, layer.kernel, -1).transpose(1, 2)
            padded = functional.pad(hidden, ((layer.kernel - 1) * dilation, 0))
            hidden = functional.relu(functional.conv1d(padded, weight, layer.bias, dilation=dilation))
        if isinstance(module.match, nn.Linear):
            skipped = functional.conv1d(skipped, module.match.weight.unsqueeze(2), module.match.bias)
        hidden = functional.relu(hidden + skipped)
    return hidden[:, :, -1]


def gradients(network: TemporalNetwork, output: Tensor) -> list[Tensor]:
    weights = torch.arange(output.numel(), dtype=output.dtype).view_as(output).sin()
    return list(torch.autograd.grad((output * weights).sum(), list(network.parameters())))


@pytest.mark.parametrize("length", [2, 7, 10, 16, 31])
@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("channels", [(4,), (5, 5, 5), (3, 6, 4, 4)])
@pytest.mark.parametrize(("rows", "training"), [(6, True), (6, False), (MANY_ROWS, False)])
def test_pruned_network_equals_the_full_one(
    length: int, kernel: int, channels: tuple[int, ...], rows: int, training: bool
) -> None:
    torch.manual_seed(length * kernel)
    network = TemporalNetwork(2, channels, kernel, dropout=0.0).double().train(training)
    window = torch.randn(rows, 2, length, dtype=torch.float64)
    pruned, full = network(window), full_network(network, window)
    torch.testing.assert_close(pruned, full, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients(network, pruned), gradients(network, full), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_gradient_reaches_the_window_itself() -> None:
    torch.manual_seed(1)
    network = TemporalNetwork(1, (3, 3), 3, dropout=0.0).double().train()
    window = torch.randn(4, 1, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (window,))


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(1)
    network = TemporalNetwork(1, (8, 8), 3, dropout=0.5)
    window = torch.randn(4, 1, 10)
    assert not torch.equal(network.train()(window), network(window))
    assert torch.equal(network.eval()(window), network(window))


def test_bf16_autocast_reaches_the_convolutions() -> None:
    network = TemporalNetwork(1, (8, 8), 3, dropout=0.0).train()
    window = torch.randn(4, 1, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(window)
    output.float().sum().backward()
    torch.testing.assert_close(output.float(), network(window), rtol=0.1, atol=0.1)
    assert not torch.equal(output.float(), network(window))
