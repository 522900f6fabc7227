"""Lightning: one ascent per optimizer step, over micro-batches, precisions, resumes and ranks."""

import csv

import pytest
import torch

OPTIONS = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}
BATCHES = 32  # of 64 examples, in an epoch


@pytest.fixture
def module(recipe):
    return recipe("lightning")


def test_the_recipe_reaches_kappa(module, ascents, reached):
    objective = module.main(**OPTIONS).objective
    assert reached(objective)
    assert ascents(objective) == 40 * BATCHES
    assert float(objective.info.multiplier) > 0


def test_micro_batches_are_one_ascent(module, ascents, reached):
    objective = module.main(**OPTIONS, max_epochs=60, accumulate_grad_batches=4).objective
    assert ascents(objective) == 60 * BATCHES / 4
    assert not objective._pending


def test_bfloat16_keeps_the_multiplier_in_float32(module, ascents, reached):
    objective = module.main(**OPTIONS, precision="bf16-mixed").objective
    assert objective.multipliers.table.dtype == torch.float32
    assert ascents(objective) == 40 * BATCHES
    assert reached(objective)


def test_a_resumed_run_goes_on_with_its_multiplier(module, ascents, tmp_path):
    saving = OPTIONS | {"enable_checkpointing": True, "default_root_dir": tmp_path}
    first = module.main(**saving, max_epochs=2).objective
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    loaded = module.main(resume=str(checkpoint), **OPTIONS, max_epochs=2).objective
    assert torch.equal(loaded.multipliers.table, first.multipliers.table)
    further = module.main(resume=str(checkpoint), **OPTIONS, max_epochs=3).objective
    assert ascents(further) == 3 * BATCHES


def test_validation_moves_nothing(module, ascents):
    import lightning

    class Validated(module.VAE):
        def validation_step(self, x, index):
            before = self.objective.multipliers.table.clone()
            self.training_step(x, index)
            assert torch.equal(before, self.objective.multipliers.table)

    vae, data = Validated(), torch.rand(128, 64)
    loader = torch.utils.data.DataLoader(list(data), batch_size=64)
    trainer = lightning.Trainer(**OPTIONS, max_epochs=3, callbacks=[module.GECOCallback()])
    trainer.fit(vae, loader, loader)
    assert ascents(vae.objective) == 3 * 2


def test_numbers_reach_the_logger(module, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    options = OPTIONS | {"logger": logger, "log_every_n_steps": 16}
    objective = module.main(**options, max_epochs=2).objective
    logger.save()
    with (next(tmp_path.rglob("metrics.csv"))).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [16, 32, 48, 64]
    for name, value in objective.metrics().items():
        assert float(rows[-1][f"geco/{name}"]) == pytest.approx(value, nan_ok=True), name


def test_a_module_without_an_objective_is_told_so(module):
    import lightning

    class Bare(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 1)

        def training_step(self, x, index):
            return self.layer(x).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer = lightning.Trainer(**OPTIONS, max_epochs=1, callbacks=[module.GECOCallback()])
    with pytest.raises(ValueError, match=r"Bare has no objective: assign one"):
        trainer.fit(Bare(), torch.utils.data.DataLoader(list(torch.rand(8, 64))))


def test_ranks_have_one_multiplier(module, two_tables):
    one, two = two_tables(
        "import with_lightning",
        f"options = {OPTIONS!r} | {{'devices': 2, 'strategy': 'ddp', 'max_epochs': 4}}",
        "objective = with_lightning.main(**options).objective",
    )
    assert one == two
    assert one[2] == [4 * BATCHES / 2]  # ascents: each rank saw half of the batches
