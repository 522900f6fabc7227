"""Exact resume through state_dict, and errors that lose nothing."""

import io
import logging

import pytest
import torch

from geco_core import GECO, AnnealedELBO, PaperUpdate, ReconstructionError


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def make(update=None):
    return GECO({"re": ReconstructionError(0.5), "loose": ReconstructionError(0.9)}, update=update)


@pytest.mark.parametrize("update", [None, PaperUpdate(rate=0.05)], ids=["robust", "paper"])
@pytest.mark.parametrize("stop", [1, 7])
def test_bit_for_bit(loop, update, stop):
    whole = loop(make(update))
    expected = whole.run(stop + 10)
    first = loop(make(update))
    losses = first.run(stop)
    saved = through_a_file(
        {
            "objective": first.objective.state_dict(),
            "model": first.model.state_dict(),
            "optimizer": first.optimizer.state_dict(),
            "generator": first.generator.get_state(),
        }
    )
    second = loop(make(update), seed=5)
    second.objective.load_state_dict(saved["objective"])
    second.model.load_state_dict(saved["model"])
    second.optimizer.load_state_dict(saved["optimizer"])
    second.generator.set_state(saved["generator"])
    losses += second.run(10)
    assert all(torch.equal(a, b) for a, b in zip(losses, expected, strict=True))
    assert torch.equal(whole.objective.multipliers.table, second.objective.multipliers.table)


def test_loading_copies(loop):
    source = make()
    loop(source).run(3)
    state = source.state_dict()
    target = make()
    target.load_state_dict(state)
    before = target.multipliers.table.clone()
    for value in state.values():
        if isinstance(value, torch.Tensor):
            value.fill_(9.0)
    assert torch.equal(target.multipliers.table, before)


def others():
    yield "names", GECO({"re": ReconstructionError(0.5), "other": ReconstructionError(0.9)})
    yield "order", GECO({"loose": ReconstructionError(0.9), "re": ReconstructionError(0.5)})
    yield "number", GECO({"re": ReconstructionError(0.5)})
    yield "rule", make(PaperUpdate())


@pytest.mark.parametrize(("what", "target"), list(others()), ids=[name for name, _ in others()])
@pytest.mark.parametrize("strict", [True, False])
def test_other_objectives_are_refused_and_stay_as_they_were(loop, what, target, strict):
    source = make()
    loop(source).run(3)
    before = {k: v for k, v in target.state_dict().items() if isinstance(v, torch.Tensor)}
    before = {k: v.clone() for k, v in before.items()}
    with pytest.raises(ValueError, match="build the objective as it was"):
        target.load_state_dict(source.state_dict(), strict=strict)
    after = target.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_other_shapes_and_missing_entries_are_refused():
    state = make().state_dict()
    rows = len(state["multipliers.table"])
    wide = {**state, "multipliers.table": torch.zeros(rows, 3)}
    with pytest.raises(ValueError, match=rf"\({rows}, 3\).*\({rows}, 2\)"):
        make().load_state_dict(wide)
    state.pop("multipliers.table")
    with pytest.raises(RuntimeError, match=r"Missing key.*multipliers.table"):
        make().load_state_dict(state)


def test_the_tolerance_comes_back(caplog):
    source = GECO(ReconstructionError(0.5))
    source.constraints["constraint"].kappa = 0.3
    target = GECO(ReconstructionError(0.5))
    with caplog.at_level(logging.WARNING):
        target.load_state_dict(source.state_dict())
    assert target.constraints["constraint"].kappa == 0.3
    assert "kappa" in caplog.text


def test_inside_a_larger_module(loop):
    """An objective that is a submodule resumes with it."""
    source, target = make(), make()
    loop(source).run(2)
    torch.nn.ModuleDict({"o": target}).load_state_dict(
        torch.nn.ModuleDict({"o": source}).state_dict()
    )
    assert torch.equal(source.multipliers.table, target.multipliers.table)


def test_the_schedule_resumes(loop):
    source = AnnealedELBO(steps=10)
    loop(source).run(4)
    target = AnnealedELBO(steps=10)
    target.load_state_dict(through_a_file(source.state_dict()))
    assert target.info.beta == source.info.beta
