"""Sine waves as a dataset, a small model for them, and a study of both."""

import math

import torch
from matplotlib.figure import Figure

import geco_models
from geco_experiments.config import (
    DatasetConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from geco_experiments.datasets import Dataset, DatasetSpec, Split
from geco_experiments.studies import Drawing, Study, final_values

LENGTH = 32


def load(config, home):
    """Waves of random frequency and phase, (n, 1, LENGTH), between 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    frequency, phase = torch.rand(2, 600, 1, 1, generator=generator)
    time = torch.linspace(0, 1, LENGTH)
    waves = 0.5 + 0.5 * torch.sin(2 * math.pi * ((1 + 2 * frequency) * time + phase))
    return Dataset("waves", Split(waves[:500]), Split(waves[500:]), scale=1.0)


WAVES = DatasetSpec(load=load, needs="nothing: it is computed")


def wave_vae(config, shape, context_shape):
    """A dense VAE with two hidden layers; `--latents` and `--model.hidden` size it."""
    return geco_models.MLPVAE(shape, config.latents, hidden=(config.hidden, config.hidden))


class WaveStudy(Study):
    """Is the tolerance met on waves?"""

    name = "waves"
    title = "Waves"
    source = "An example of a study [ours]"
    look_for = "Each point lies on the line: the error is the one that was asked for."
    order = 20

    def configs(self, profile):
        """One run for each of three tolerances."""
        return [
            RunConfig(
                dataset=DatasetConfig(name="waves"),
                model=ModelConfig(name="wave-vae", latents=4, hidden=64),
                objective=ObjectiveConfig(kappa=kappa),
                training=TrainingConfig(steps=1500, batch_size=64),
            )
            for kappa in (0.05, 0.1, 0.2)
        ]

    def measure(self, runs, profile, *, data_home=None):
        """The final values of all runs."""
        return final_values(runs)

    def draw(self, data):
        """Error reached against error asked for."""
        figure = Figure(figsize=(4, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(data["kappa"], data["kappa"], color="grey")
        axes.plot(data["kappa"], data["final_rms_error"].sel(split="train"), "o")
        axes.set(xlabel="κ", ylabel="RMS error")
        return [
            Drawing("waves", figure, "Error reached over error asked for.", "Points on a line")
        ]
