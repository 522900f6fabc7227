"""The autoencoder of diffusers under two constraints."""

import pytest


@pytest.fixture
def module(recipe):
    return recipe("diffusers")


def test_the_recipe_reaches_both_tolerances(module):
    info = module.main().info
    for name, kappa in (("RE", 0.15), ("FRE", 0.1)):
        assert float(info.moving_average[name]) < 0.1 * kappa**2, name
