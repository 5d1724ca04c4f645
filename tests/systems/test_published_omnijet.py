"""The authors' tokenizer, under our names, gives the authors' numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calogen.systems import published_files
from calogen.systems.hit_autoencoder import AutoencoderSizes, HitAutoencoder
from calogen.systems.published_omnijet import hit_autoencoder_from_omnijet

TOLERANCE = 1e-5  # of the largest value compared


def same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours.detach() - theirs).abs().max() / theirs.abs().max()) < TOLERANCE


@pytest.fixture(scope="module")
def stored(shared: Path) -> dict[str, Any]:
    return torch.load(shared / "parity" / "omnijet_vqvae.pt", weights_only=True)


@pytest.fixture(scope="module")
def network(stored: dict[str, Any]) -> HitAutoencoder:
    config, quantizer = stored["config"], stored["config"]["vq_kwargs"]
    sizes = AutoencoderSizes(
        codes=quantizer["num_codes"],
        code_dim=config["latent_dim"],
        width=config["hidden_dim"],
        heads=config["num_heads"],
        blocks=config["num_blocks"],
        beta=quantizer["beta"],
        affine_rate=quantizer["affine_lr"],
        sync=quantizer["sync_nu"],
        patience=quantizer["replace_freq"],
        weight=config["alpha"],
    )
    net = HitAutoencoder(sizes)
    net.load_state_dict(hit_autoencoder_from_omnijet(stored["state_dict"]))
    return net.eval()


@pytest.fixture(scope="module")
def real(stored: dict[str, Any]) -> Tensor:
    return stored["inputs"]["mask"].bool()


def packed(stored: dict[str, Any], real: Tensor) -> tuple[Tensor, Tensor]:
    return stored["inputs"]["x"][real], real.sum(1)


@pytest.mark.parametrize("grad", [True, False])
def test_encoder_codes_decoder(stored: dict[str, Any], network: HitAutoencoder, real: Tensor, grad: bool) -> None:
    x, counts = packed(stored, real)
    expected = stored["outputs"]
    with torch.set_grad_enabled(grad):
        z = network.encoder(x, counts)
        quantized = network.codebook(z)
        decoded = network.decoder(quantized.values, counts)
    same(z, expected["z_e"][real])
    assert torch.equal(quantized.ids, expected["codes"][real])
    same(quantized.values, expected["z_q"][real])
    same(decoded, expected["reco"][real])
    assert torch.equal(network.encode(x, counts), quantized.ids)
    same(network.decode(expected["codes"][real], counts), expected["reco"][real])


@torch.no_grad()
def test_losses(stored: dict[str, Any], network: HitAutoencoder, real: Tensor) -> None:
    """The squared error is that of the real hits; their mean of the codebook's loss counts padded hits, at 0, too."""
    x, counts = packed(stored, real)
    expected = stored["outputs"]
    losses = network.losses(x, counts)
    same(losses.squared_error.mean(), expected["reco_loss"])
    padded = network.codebook(torch.zeros(int((~real).sum()), network.sizes.code_dim)).loss
    diluted = torch.cat([losses.codebook, padded]).mean()
    same(diluted, expected["cmt_loss"])
    same(losses.squared_error.mean() + network.sizes.weight * diluted, expected["loss"])
    each = losses.squared_error + network.sizes.weight * losses.codebook
    same(network.loss(x, counts), torch.stack([part.mean() for part in each.split(counts.tolist())]))


@torch.no_grad()
def test_a_shower_alone_is_as_in_company(stored: dict[str, Any], network: HitAutoencoder, real: Tensor) -> None:
    x, counts = packed(stored, real)
    z = network.encoder(x, counts).split(counts.tolist())
    for part, own, n in zip(x.split(counts.tolist()), z, counts, strict=True):
        torch.testing.assert_close(network.encoder(part, n[None]), own)


def test_the_published_size() -> None:
    """Parameters as the paper's code counts them."""
    net = HitAutoencoder(AutoencoderSizes())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    assert count == {"encoder": 640 + 399_360 + 1_548, "codebook": 786_456, "decoder": 1_664 + 399_360 + 516}
    assert sum(count.values()) == 1_589_544


def test_a_checkpoint_is_converted(shared: Path, stored: dict[str, Any], network: HitAutoencoder) -> None:
    tensors = published_files.convert(shared / "parity" / "omnijet_vqvae.pt")
    below = {name.removeprefix("state_dict/"): tensor for name, tensor in tensors.items()}
    assert below.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, below[name]) for name, tensor in network.state_dict().items())


def test_foreign_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'vqlayer.other' is no part of a tokenizer"):
        hit_autoencoder_from_omnijet({"vqlayer.other": torch.zeros(1)})
