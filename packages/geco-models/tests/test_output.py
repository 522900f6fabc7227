"""The output record."""

import torch

from geco_models import ModelOutput


def test_fields_are_read_by_name_and_by_position():
    reconstruction, kl, latents = torch.zeros(2, 1), torch.ones(2), torch.zeros(2, 3)
    out = ModelOutput(reconstruction, kl, latents)
    assert out.reconstruction is reconstruction
    assert out.kl is kl
    assert out.latents is latents
    assert out.kl_steps is None
    assert out[:2] == (reconstruction, kl)
    steps = torch.ones(2, 4)
    assert out._replace(kl_steps=steps).kl_steps is steps
