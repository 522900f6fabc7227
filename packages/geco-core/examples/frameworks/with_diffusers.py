"""GECO with the autoencoder of diffusers: a pixel error and a perceptual error, no KL weight."""

import torch
from diffusers import AutoencoderKL
from torch.utils.data import DataLoader

from geco_core import GECO, FeatureReconstructionError, LocalMoments, ReconstructionError


def images(count: int) -> torch.Tensor:
    """Smooth colour pictures, (count, 3, 16, 16), in [-1, 1]."""
    coarse = 2 * torch.rand(count, 3, 4, 4) - 1
    return torch.nn.functional.interpolate(coarse, size=16, mode="bicubic").clamp(-1, 1)


def main(epochs: int = 30, count: int = 512) -> GECO:
    """Trains a small autoencoder with the parts of Stable Diffusion's."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        latent_channels=4,
        sample_size=16,
    )
    # in place of LocalMoments any network: FeatureReconstructionError(kappa, vgg_features)
    perceptual = FeatureReconstructionError(kappa=0.12, features=LocalMoments(4))
    objective = GECO({"RE": ReconstructionError(kappa=0.2), "FRE": perceptual})
    optimizer = torch.optim.Adam(vae.parameters(), lr=5e-3)
    for _ in range(epochs):
        for x in DataLoader(images(count), batch_size=16):
            posterior = vae.encode(x).latent_dist
            reconstruction = vae.decode(posterior.sample()).sample
            loss = objective(posterior.kl(), x, reconstruction)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            objective.step()
    return objective


if __name__ == "__main__":
    print(main().report())
