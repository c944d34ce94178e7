from __future__ import annotations

import pytest
import torch

from pppml_fast.errors import ConfigError
from pppml_fast.imaging import NetworkSpec, build_network, count_weights, fast_unet, segmentation_loss, unet


def test_the_default_network_has_the_size_of_the_paper() -> None:
    network = build_network(unet(), seed=0)
    assert count_weights(network) == 1_948_417
    assert list(network.buffers()) == []
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 32, 32)


def test_the_fast_network() -> None:
    network = build_network(fast_unet(), seed=0)
    assert count_weights(network) == 661_497
    assert network(torch.zeros(1, 3, 48, 32)).shape == (1, 1, 48, 32)
    small = fast_unet((8, 16, 32), channels=1)
    assert small.multiple == 4
    assert build_network(small, 0)(torch.zeros(1, 1, 12, 8)).shape == (1, 1, 12, 8)


def test_weights_follow_from_the_seed_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        return torch.cat([p.flatten() for p in build_network(fast_unet((8, 16)), seed).parameters()])

    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = weights(3)
    torch.testing.assert_close(torch.rand(2), expected)
    torch.testing.assert_close(weights(3), first, rtol=0, atol=0)
    assert not torch.equal(weights(4), first)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (NetworkSpec("UNet"), "is not module:Class"),
        (NetworkSpec("monai.networks.nets:Unett"), "cannot be imported"),
        (NetworkSpec("no_such_module:UNet"), "cannot be imported"),
        (NetworkSpec("collections:OrderedDict"), "no torch.nn.Module class"),
        (NetworkSpec("torch.nn:Linear", {"inputs": 3}), "refuses its arguments"),
    ],
)
def test_networks_that_cannot_be_built(spec: NetworkSpec, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_network(spec, 0)


def test_specs_go_through_plain_values() -> None:
    for spec in (unet(), fast_unet((8, 16))):
        assert NetworkSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(ConfigError, match="unknown key 'widths'"):
        NetworkSpec.from_dict({"target": "a:B", "widths": 3})
    with pytest.raises(ConfigError, match="no `target`"):
        NetworkSpec.from_dict({})
    with pytest.raises(ConfigError, match="3 feature levels"):
        unet((16, 32, 64))


def test_losses_against_their_formulas() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.7).float()
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * target).sum() + 1e-5
    dice = 1 - overlap / (probability.sum() + target.sum() + 1e-5)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(segmentation_loss()(logits, target), dice + entropy)
    assert segmentation_loss("dice_focal")(logits, target) < dice + entropy
    with pytest.raises(ConfigError, match="loss 'iou' is unknown"):
        segmentation_loss("iou")
