"""accelerate: accumulation, `save_state`, two processes."""

import pytest
import torch

BATCHES = 32


@pytest.fixture
def module(recipe):
    module = recipe("accelerate")
    from accelerate.state import AcceleratorState, GradientState, PartialState

    yield module
    # accelerate keeps one state per process, whose options cannot be changed
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def test_the_recipe_reaches_kappa(module, ascents, reached):
    objective = module.main(cpu=True)
    assert reached(objective)
    assert ascents(objective) == 40 * BATCHES


def test_micro_batches_are_one_ascent(module, ascents):
    objective = module.main(epochs=3, cpu=True, gradient_accumulation_steps=4)
    assert ascents(objective) == 3 * BATCHES / 4
    assert not objective._pending


def test_bfloat16_keeps_the_multiplier_in_float32(module, ascents):
    objective = module.main(epochs=3, cpu=True, mixed_precision="bf16")
    assert objective.multipliers.table.dtype == torch.float32
    assert ascents(objective) == 3 * BATCHES


def test_a_resumed_run_goes_on_with_its_multiplier(module, ascents, tmp_path):
    saved = module.main(epochs=2, save=str(tmp_path / "state"), cpu=True)
    loaded = module.main(epochs=0, load=str(tmp_path / "state"), cpu=True)
    assert torch.equal(loaded.multipliers.table, saved.multipliers.table)
    further = module.main(epochs=1, load=str(tmp_path / "state"), cpu=True)
    assert ascents(further) == 3 * BATCHES


def test_ranks_have_one_multiplier(module, two_tables):
    one, two = two_tables(
        "import with_accelerate",
        "objective = with_accelerate.main(epochs=4, gradient_accumulation_steps=2)",
    )
    assert one == two
    assert one[2] == [4 * BATCHES / 2 / 2]  # ascents: each rank saw half of the batches
