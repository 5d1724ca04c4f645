"""Classifier networks: the published sizes, and what the convolutional one looks at."""

import pytest
import torch

from calogen.networks.classifiers import Dnn, Resnet3d


def parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("inputs", "expected"), [(6481, 21_669_889), (40_501, 91_342_849), (362, 9_138_177)], ids=["low2", "low3", "high"]
)
def test_dense_network_has_the_published_size(inputs, expected):
    with torch.device("meta"):
        assert parameters(Dnn(inputs)) == expected


@pytest.mark.parametrize("grid", [(45, 16, 9), (45, 50, 18)])
def test_residual_network_has_the_published_size(grid):
    with torch.device("meta"):
        assert parameters(Resnet3d(grid)) == 2_516_644


def test_small_networks_of_the_point_cloud_papers():
    assert parameters(Dnn(25, (32, 16))) == 1377
    assert parameters(Dnn(5, (4, 4))) == 49


@pytest.mark.parametrize("grid", [(45, 16, 9), (5, 4, 3)])
def test_residual_network_maps_rows_to_logits(grid):
    net = Resnet3d(grid, planes=(4, 4, 8, 8), outputs=3)
    rows = torch.rand(4, 1 + grid[0] * grid[1] * grid[2], requires_grad=True)
    logits = net(rows)
    assert logits.shape == (4, 3)
    logits.sum().backward()
    assert (rows.grad != 0).any(dim=0)[1:].float().mean() > 0.9


def test_residual_network_reads_layers_slowest_and_radius_fastest():
    torch.manual_seed(0)
    grid = (9, 8, 7)
    net = Resnet3d(grid, planes=(4, 4, 8, 8)).eval()
    image = torch.rand(2, 1, *grid)
    seen = []
    net.stem.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    net(torch.cat([torch.zeros(2, 1), image.flatten(1)], dim=1))
    assert torch.equal(seen[0], image)


def test_residual_network_uses_the_condition():
    torch.manual_seed(0)
    net = Resnet3d((5, 4, 3), planes=(4, 4, 8, 8)).eval()
    row = torch.rand(1, 61)
    other = row.clone()
    other[:, 0] += 1
    assert not torch.allclose(net(row), net(other))


def test_rows_of_another_grid_are_refused():
    with pytest.raises(ValueError, match="rows have 60 values; one and 5x4x3 voxels are needed"):
        Resnet3d((5, 4, 3), planes=(4, 4, 8, 8))(torch.zeros(2, 60))
