"""Half precision, loss scaling, gradient clipping: the user's loop stays the user's."""

import pytest
import torch

from geco_core import ELBO, GECO, PaperUpdate, ReconstructionError

HALF = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("update", [None, PaperUpdate(0.1)], ids=["robust", "paper"])
def test_half_precision_inputs_are_accumulated_in_float32(dtype, update):
    """4096 examples with KL 20: a sum in half precision overflows or stalls."""
    objective = GECO(lambda x, r: r[:, 0] - x[:, 0], update=update)
    kl = torch.full((4096,), 20.0, dtype=dtype, requires_grad=True)
    x = torch.zeros(4096, 1, dtype=dtype)
    reconstruction = torch.full((4096, 1), 30.0, dtype=dtype, requires_grad=True)
    loss = objective(kl, x, reconstruction)
    loss.backward()
    objective.step()
    assert loss.dtype == torch.float32
    assert objective.info.kl.item() == 20.0
    assert objective.info.constraint.item() == 30.0
    assert objective.multipliers.table.dtype == torch.float32
    assert kl.grad.dtype == dtype


@pytest.mark.parametrize("dtype", HALF)
def test_autocast_and_loss_scaling(loop, dtype):
    """Under autocast with a GradScaler and clipping it takes the way of the float32 run."""
    reached = []
    for enabled in (False, True):
        objective = GECO(ReconstructionError(0.5))
        trained = loop(objective)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=enabled)
        for _ in range(30):
            x, noise = trained.batch()
            with torch.autocast("cpu", dtype=dtype, enabled=enabled):
                reconstruction, kl = trained.model(x, noise)
                loss = objective(kl, x, reconstruction)
            assert loss.dtype == torch.float32
            scaler.scale(loss).backward()
            scaler.unscale_(trained.optimizer)
            torch.nn.utils.clip_grad_norm_(trained.model.parameters(), 1.0)
            scaler.step(trained.optimizer)
            scaler.update()
            trained.optimizer.zero_grad()
            objective.step()
        reached.append(objective.multipliers.table.clone())
    torch.testing.assert_close(reached[0], reached[1], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("convert", ["half", "bfloat16", "double", "float"])
def test_conversions_never_round_the_multipliers(loop, convert):
    objective = GECO(ReconstructionError(0.5))
    loop(objective).run(5)
    before = objective.multipliers.table.double()
    getattr(objective, convert)()
    assert objective.multipliers.table.dtype in (torch.float32, torch.float64)
    assert torch.equal(objective.multipliers.table.double(), before)


def test_double_precision_is_kept(loop):
    trained = loop(GECO(ReconstructionError(0.5)).double())
    trained.model.double()
    x, noise = (value.double() for value in trained.batch())
    reconstruction, kl = trained.model(x, noise)
    loss = trained.objective(kl, x, reconstruction)
    trained.objective.step()
    assert loss.dtype == torch.float64
    assert trained.objective.info.multiplier.dtype == torch.float64


def test_mixed_precisions():
    """Double-precision data under an objective as it comes out of the constructor."""
    objective = GECO(ReconstructionError(0.5))
    x = torch.rand(4, 3, dtype=torch.float64)
    reconstruction = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    loss = objective(torch.rand(4), x, reconstruction)
    loss.backward()
    objective.step()
    assert loss.isfinite()


@pytest.mark.parametrize("dtype", HALF)
def test_the_elbo_is_computed_in_float32(dtype):
    x = torch.zeros(2, 100_000, dtype=dtype)
    reconstruction = torch.ones(2, 100_000, dtype=dtype, requires_grad=True)
    loss = ELBO()(torch.zeros(2, dtype=dtype), x, reconstruction)
    expected = 100_000 * (0.5 + 0.5 * torch.log(torch.tensor(2 * torch.pi)))
    torch.testing.assert_close(loss, expected)
