"""The transformers Trainer: accumulation, the objective in its checkpoints, resume, its log."""

import pytest
import torch

OPTIONS = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
BATCHES = 32


@pytest.fixture
def module(recipe):
    return recipe("transformers")


def test_the_recipe_reaches_kappa(module, ascents, reached):
    # its rate falls linearly to 0, so it takes more steps than the other recipes
    objective = module.main(**OPTIONS).model.objective
    assert reached(objective)
    assert ascents(objective) == 40 * BATCHES


def test_micro_batches_are_one_ascent(module, ascents):
    options = OPTIONS | {"num_train_epochs": 3, "gradient_accumulation_steps": 4}
    objective = module.main(**options).model.objective
    assert ascents(objective) == 3 * BATCHES / 4
    assert not objective._pending


def test_a_resumed_run_goes_on_with_its_multiplier(module, ascents, tmp_path):
    saving = OPTIONS | {"save_strategy": "epoch"}
    first = module.main(str(tmp_path), **saving, num_train_epochs=2).model.objective
    second = module.main(str(tmp_path), resume=True, **saving, num_train_epochs=2)
    assert torch.equal(second.model.objective.multipliers.table, first.multipliers.table)
    third = module.main(str(tmp_path), resume=True, **saving, num_train_epochs=3)
    assert ascents(third.model.objective) == 3 * BATCHES


def test_evaluation_moves_nothing(module, ascents):
    trainer = module.main(**OPTIONS, num_train_epochs=1)
    before = trainer.model.objective.multipliers.table.clone()
    result = trainer.evaluate([{"x": x} for x in torch.rand(64, 64)])
    assert torch.equal(before, trainer.model.objective.multipliers.table)
    assert not any(name.startswith("geco/") for name in result)


def test_numbers_reach_the_log(module):
    options = OPTIONS | {"num_train_epochs": 2, "logging_steps": BATCHES}
    trainer = module.main(**options)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 2
    for name, value in trainer.model.objective.metrics().items():
        assert logs[-1][f"geco/{name}"] == pytest.approx(value, nan_ok=True), name


def test_a_model_without_an_objective_is_told_so(module, tmp_path):
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 1)

        def forward(self, x):
            return {"loss": self.layer(x).mean()}

    args = module.TrainingArguments(str(tmp_path), **OPTIONS)
    data = [{"x": x} for x in torch.rand(64, 64)]
    trainer = module.Trainer(Bare(), args, train_dataset=data, callbacks=[module.GECOCallback()])
    with pytest.raises(ValueError, match=r"Bare has no objective: assign one"):
        trainer.train()


def test_ranks_have_one_multiplier(module, two_tables):
    one, two = two_tables(
        "import with_transformers",
        f"options = {OPTIONS!r} | {{'num_train_epochs': 4}}",
        "objective = with_transformers.main(**options).model.objective",
    )
    assert one == two
    assert one[2] == [4 * BATCHES / 2]  # ascents: each rank saw half of the batches
