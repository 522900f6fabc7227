"""The worked examples run, and really reach what they ask for."""

import importlib
import math
from pathlib import Path

import pytest
import torch

from geco_core import GECO, CallableConstraint

FOLDER = Path(__file__).parents[1] / "examples"


class MeanOver(CallableConstraint):
    """A violation that is passed in place of the reconstruction, said to be over so many."""

    def __init__(self, elements):
        super().__init__(lambda x, violation: violation, scale=1.0)
        self.number = elements

    def elements(self, x):
        return self.number


@pytest.fixture
def example(monkeypatch):
    """Imports an example by its name, as `python NAME.py` would from its folder."""
    if not FOLDER.is_dir():
        pytest.skip(f"the examples are not installed, only in the repository: no {FOLDER}")
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_a_plain_loop_reaches_kappa(example, capsys):
    module = example("plain_loop")
    results = [module.main(kappa) for kappa in (0.1, 0.15)]
    for result in results:
        assert result["error"] == pytest.approx(result["kappa"], rel=0.03)
    assert results[0]["kl"] > results[1]["kl"] + 0.2  # a smaller error costs more nats
    assert "asked for an error of 0.1, got 0.1" in capsys.readouterr().out


def test_two_constraints_are_both_met_and_both_matter(example, capsys):
    result = example("two_constraints").main()
    assert result["error"] == pytest.approx(0.12, rel=0.03)
    assert result["accuracy"] == pytest.approx(0.9, abs=0.02)
    assert "accuracy 0." in capsys.readouterr().out


def test_any_loss_meets_the_closed_form(example, capsys):
    result = example("any_loss").main()
    assert result["error"] == pytest.approx(0.5, rel=0.01)
    assert result["norm"] == pytest.approx(result["exact_norm"], rel=0.01)
    assert result["multiplier"] == pytest.approx(result["exact_multiplier"], rel=0.02)
    assert "norm 1.5" in capsys.readouterr().out


def test_a_resumed_run_is_the_same_bit_for_bit(example, capsys):
    straight, resumed = example("resume").main(half=100)
    assert "weights identical: True" in capsys.readouterr().out
    for part in ("model", "objective"):
        one, two = getattr(straight, part).state_dict(), getattr(resumed, part).state_dict()
        assert one.keys() == two.keys()
        for name, value in one.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, two[name]), f"{part}.{name}"
    assert straight.best.closest.step == resumed.best.closest.step
    assert straight.best.closest.kl == resumed.best.closest.kl


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) < 80


def test_a_rate_gives_the_distortion_of_reverse_water_filling(example, capsys):
    result = example("rate_constraint").main()
    assert result["kl"] == pytest.approx(1.5, rel=0.02)
    assert result["error"] == pytest.approx(result["exact_error"], rel=0.03)
    # -dD/dR at the water level: twice the level
    assert result["beta"] == pytest.approx(2 * result["exact_error"] / 3, rel=0.5)
    assert "asked: at most 1.5" in capsys.readouterr().out


def test_a_likelihood_is_reached(example, capsys):
    result = example("likelihood_constraint").main()
    assert result["nll"] == pytest.approx(2.0, rel=0.03)
    assert 0.5 < result["kl"] < 3 * math.log(2) + 0.5
    assert "equivalent beta" in capsys.readouterr().out


def test_groups_are_held_to_the_error_one_by_one(example, capsys):
    module = example("groups")
    apart, together = module.main(), module.main(together=True)
    assert apart["errors"] == pytest.approx([0.2, 0.2], rel=0.03)
    # on average only, the rare sensor is worse
    assert together["errors"][0] > 0.22
    assert len(apart["multipliers"]) == 2
    assert "asked: 0.2" in capsys.readouterr().out


def test_a_slack_constraint_costs_nothing(example, capsys):
    result = example("slack_constraint").main()
    assert result["w_1"] == pytest.approx(1.0, abs=2e-3)
    assert result["w_2"] == pytest.approx(0.0, abs=2e-3)
    assert result["active"] == pytest.approx(1.0, rel=0.02)
    assert result["slack"] < 2e-4
    assert "slack: feasible" in capsys.readouterr().out


def test_a_perceptual_constraint_is_reached(example, capsys):
    result = example("perceptual_constraint").main()
    assert result["features"] == pytest.approx(0.1, rel=0.03)
    assert result["pixels"] < 0.3
    assert "features: feasible" in capsys.readouterr().out


def test_the_reference_rule_is_the_default_rule(example, capsys):
    """Replayed in GECO: the same multiplier at every step, and the same weights of the loss."""
    module = example("reference_rule")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2600, generator=generator).tolist()
    cases = {
        # far above, at rest and violated (the ceiling is lifted), met with noise, slack, again
        "a life": [30 * 0.97**n + 0.3 for n in range(1400)]
        + [0.1 * noise[n] for n in range(700)]
        + [-0.8] * 300
        + [0.5 + noise[n] for n in range(200)],
        "loud": [5 * value for value in noise[:600]],
        "from below": [-0.5 + 0.001 * n for n in range(800)],
    }
    for name, violations in cases.items():
        for elements, kl in ((10, 3.0), (784, 25.0), (784, 0.0)):
            rule = module.Rule(elements)
            objective = GECO(MeanOver(elements))
            for n, c in enumerate(violations):
                batch_kl = kl * (1 + 0.1 * noise[-1 - n])
                kl_weight, weight = rule.weights(c)
                knob = torch.zeros(1, requires_grad=True)
                loss = objective(batch_kl + knob, None, c + knob)
                assert loss.item() == pytest.approx(
                    kl_weight * batch_kl + weight * c, rel=1e-3, abs=1e-3
                ), (name, elements, kl, n)
                objective.step()
                rule.step(c, batch_kl)
                found = objective.multipliers.table[0].item()
                # the table is in float32
                assert found == pytest.approx(rule.multiplier, rel=1e-3, abs=1e-6), (
                    name,
                    elements,
                    kl,
                    n,
                )
    rows = module.main()
    assert len(rows) == 8
    assert f"{rows[-1][1]:+10.4f}" in capsys.readouterr().out


def test_one_run_lies_on_the_rate_distortion_bound_along_its_range(example, capsys):
    pytest.importorskip("geco_models", reason="it modulates its layers with geco-models")
    found = example("one_run").main()
    assert found["error"] == pytest.approx(found["kappa"], rel=0.02)
    # at most a little above, and below only by what the error is above
    for kappa, error, kl, bound in zip(*(list(found.values())[:4]), strict=True):
        slack = 8 * max(math.log(error / kappa), 0)
        assert bound - slack - 0.05 < kl < bound + 0.35
    # the last knot alone shares what its one neighbour takes
    for kappa, slope in list(zip(found["kappa"], found["slope"], strict=True))[:-1]:
        assert slope == pytest.approx(8 / (2 * kappa**2), rel=0.25)
    assert "tolerances feasible" in capsys.readouterr().out
