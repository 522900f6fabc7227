"""ignite: the update function, and a checkpoint that holds the objective."""

import pytest
import torch

BATCHES = 32


@pytest.fixture
def module(recipe):
    return recipe("ignite")


def test_the_recipe_reaches_kappa(module, ascents, reached):
    objective = module.main()
    assert reached(objective)
    assert ascents(objective) == 40 * BATCHES


def test_a_resumed_run_goes_on_with_its_multiplier(module, ascents, tmp_path):
    saved = module.main(epochs=2)
    (checkpoint,) = tmp_path.glob("vae/*.pt")
    state = torch.load(checkpoint)
    assert torch.equal(state["objective"]["multipliers.table"], saved.multipliers.table)
    further = module.main(epochs=3, resume=str(checkpoint))
    assert ascents(further) == 3 * BATCHES
