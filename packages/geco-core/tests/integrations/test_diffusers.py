"""The autoencoder of diffusers under two constraints."""

import pytest


@pytest.fixture
def module(recipe):
    return recipe("diffusers")


def test_the_recipe_reaches_both_tolerances(module):
    objective = module.main()
    for name, constraint in objective.constraints.items():
        assert float(objective.info.moving_average[name]) < 0.05 * constraint.scale, name
