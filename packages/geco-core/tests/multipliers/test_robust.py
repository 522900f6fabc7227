"""The default rule: replayed by hand, its bounds, its fixed point, its recovery."""

import math

import pytest
import torch
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st

from geco_core import (
    GECO,
    CallableConstraint,
    PaperUpdate,
    ReconstructionError,
    RobustUpdate,
)


def bare(x, reconstruction, constraint):
    return constraint


class Known(CallableConstraint):
    """A violation that is passed as a keyword, said to be a mean over so many elements."""

    def __init__(self, elements):
        super().__init__(bare, scale=1.0)
        self.number = elements

    def elements(self, x):
        return self.number


def step(multiplier, change, w):
    """Linear below w, logarithmic above."""
    place = math.log(multiplier / w) if multiplier > w else multiplier / w - 1
    place += change
    return w * math.exp(place) if place > 0 else w * max(1 + place, 0.0)


def mean(old, new, n, least):
    return old + max(1 / n, least) * (new - old)


def test_by_hand(feed):
    """A constraint of 10 elements at a loss of 1, written out in plain numbers."""
    objective = GECO(Known(10))
    steady = multiplier = 5.0  # d / 2
    slow = fast = prop = noise = last = 0.0
    for n, c in enumerate([40.0, 3.0, -0.5, 0.2, -0.9, 0.0] * 30, start=1):
        scale = 1 / (1 + multiplier * max(1 + fast, 1.0, c))
        expected = scale * (1.0 + multiplier * c)
        if n > 1:
            noise = mean(noise, 0.5 * ((c - last) / (1 + abs(fast))) ** 2, n - 1, 0.01)
        last = c
        w = 1.0 / 2.5
        inverse = min(max(multiplier / w, 1.0), 1e3)
        quick = min(max(0.5 / (noise * inverse**2 + 0.25), 0.005), 0.1)
        fast = mean(fast, c, n, quick)
        slow = mean(slow, c, n, 0.01)
        prop = mean(prop, c, n, min(max(2e-4 / (noise + 1e-4), 0.002), 1.0))
        ceiling = min(10 * (0.75 + 5 * min(max(slow, 0.0), 0.65)), 50)
        clearly = max(slow - 2 * math.sqrt(0.005 * noise), 0.0)
        push = min(inverse * math.asinh(fast), 1 + 1 / (1 + inverse * clearly))
        steady = min(step(steady, 0.02 * (quick / 0.1) * max(push, -2.0), w), ceiling)
        multiplier = min(step(steady, math.asinh(prop), w), ceiling)
        loss = feed(objective, c)
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        info = objective.info
        assert info.relative_multiplier.item() == pytest.approx(multiplier, rel=1e-3)
        assert info.moving_average.item() == pytest.approx(slow, abs=1e-4)


@settings(deadline=None, max_examples=30)
@cases(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
def test_bounds_hold_whatever_comes(violations):
    objective = GECO(bare, update=RobustUpdate(rate=0.5, gain=3.0, bounds=(1e-2, 1e3)))
    for violation in violations:
        knob = torch.zeros(2, requires_grad=True)
        x = torch.zeros(2, 1)
        loss = objective(knob + 1, x, x, constraint=knob + violation)
        objective.step()
        relative = objective.info.relative_multiplier.item()
        assert 1e-2 * 0.999 <= relative <= 1e3 * 1.001
        assert math.isfinite(loss.item())
        # the loss never weighs more than its parts
        assert abs(loss.item()) <= max(1.0, abs(violation)) + 1e-3


@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e4])
def test_units_do_not_matter(loop, factor):
    """The same run in other units of the data: the same relative multiplier at every step."""

    class Scaled(CallableConstraint):
        def __init__(self):
            super().__init__(
                lambda x, r: factor * ((x - r).square().mean(1) - 0.25), scale=factor * 0.25
            )

        def elements(self, x):
            return 4

    reference, other = GECO(ReconstructionError(kappa=0.5)), GECO(Scaled())
    loop(reference).run(60)
    loop(other).run(60)
    torch.testing.assert_close(
        reference.info.relative_multiplier, other.info.relative_multiplier, rtol=1e-3, atol=0
    )
    torch.testing.assert_close(
        reference.info.multiplier, other.info.multiplier * factor, rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("elements", [None, 0, 100])
def test_slack_reaches_zero_and_comes_back(feed, elements):
    """After any time of slack: exactly 0, and above the loss within 100 steps of binding."""
    objective = GECO(Known(elements))
    feed(objective, *[-0.9] * 600)
    assert objective.info.relative_multiplier.item() == 0.0
    assert objective.info.feasible.item()
    assert not objective.info.saturated.item()
    feed(objective, *[4.0] * 100)  # five times the allowed error
    assert objective.info.relative_multiplier.item() > 1.0


def test_it_comes_down_again():
    """Wound up while nothing helped, then met: right again within a stated number of steps.

    The error answers to the multiplier as along a rate-distortion curve: c + 1 = floor + a / l,
    with the KL n/2 ln(l) that goes with it. For 1500 steps it stays 30% too large whatever the
    multiplier; then the right one is 50.
    """
    objective = GECO(Known(196))
    x = torch.zeros(4, 1)
    multipliers = []
    for n in range(2300):
        now = objective.info.relative_multiplier.item() if n else 98.0
        violation = 0.3 if n < 1500 else 0.9 + 5.0 / max(now, 1e-3) - 1
        knob = torch.zeros(4, requires_grad=True)
        loss = 8 * math.log(max(now, 1.1))
        objective(loss + knob, x, x, constraint=violation + knob)
        objective.step()
        multipliers.append(objective.info.relative_multiplier.item())
    assert multipliers[1499] > 400
    assert all(25 <= m <= 100 for m in multipliers[1500 + 200 :])
    assert multipliers[-1] == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize(("noise", "allowed"), [(1.0, 0.005), (5.0, 0.03)])
def test_noise_does_not_bias(noise, allowed):
    """min w^2 s.t. w >= 1 with noise of so many times the scale: the mean of w stays 1."""
    generator = torch.Generator().manual_seed(0)
    w = torch.tensor([2.0], requires_grad=True)
    objective = GECO(CallableConstraint(lambda x, r, noise: 1.0 + noise - r[:, 0], scale=1.0))
    optimizer, x, total = torch.optim.SGD([w], lr=1e-2), torch.zeros(1, 1), 0.0
    for n in range(12_000):
        error = noise * torch.randn(1, generator=generator)
        objective(w.square(), x, w.reshape(1, 1), noise=error).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
        total += (n >= 2000) * w.item() / 10_000
    # the mean of the noise that was drawn is not 0: five of its standard errors on top
    assert abs(total - 1) <= allowed + 5 * noise / math.sqrt(10_000)


UNITS = [(a, b) for a in (1e-6, 1.0, 1e6) for b in (1e-4, 1.0, 1e4)]


@pytest.mark.parametrize(("loss", "constraint"), UNITS)
def test_units_of_loss_and_constraint_do_not_matter(loss, constraint):
    """min w^2 s.t. w >= 1 in any units, with an optimizer that knows none."""
    w = torch.tensor([0.3], requires_grad=True)
    objective = GECO(lambda x, r: constraint * (1.0 - r[:, 0]))
    optimizer, x = torch.optim.Adam([w], lr=1e-2), torch.zeros(1, 1)
    for _ in range(1500):
        objective(loss * w.square(), x, w.reshape(1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    assert w.item() == pytest.approx(1.0, abs=1e-4)
    assert objective.info.multiplier.item() == pytest.approx(2 * loss / constraint, rel=1e-3)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_a_slack_constraint_leaves_no_trace(size):
    """min L (x - 2)^2 s.t. x <= 5 ends at 2, however small the loss is."""
    w = torch.tensor([0.0], requires_grad=True)
    objective = GECO(lambda x, r: r[:, 0] - 5.0)
    optimizer, x = torch.optim.Adam([w], lr=2e-2), torch.zeros(1, 1)
    for _ in range(1500):
        objective(size * (w - 2).square(), x, w.reshape(1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    assert w.item() == pytest.approx(2.0, abs=1e-4)
    assert objective.info.multiplier.item() == 0.0


def test_a_weakly_active_constraint():
    """min (x - 2)^2 s.t. x <= 1.999: the multiplier 0.002 is found, not 0."""
    w = torch.tensor([0.0], requires_grad=True)
    objective = GECO(lambda x, r: r[:, 0] - 1.999)
    optimizer, x = torch.optim.SGD([w], lr=3e-2), torch.zeros(1, 1)
    for _ in range(1500):
        objective((w - 2).square(), x, w.reshape(1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    assert w.item() == pytest.approx(1.999, abs=1e-5)
    assert objective.info.multiplier.item() == pytest.approx(0.002, rel=0.02)


def test_an_unreachable_tolerance_is_said_after_learning_has_come_to_rest(feed):
    objective = GECO(Known(100))
    falling = [20 * 0.99**n + 0.5 for n in range(600)]
    feed(objective, *falling[:500])
    assert not objective.info.saturated.item()
    feed(objective, *[0.5] * 1500)
    assert objective.info.saturated.item()
    multiplier = objective.info.relative_multiplier.item()
    feed(objective, *[-0.1] * 300)  # more capacity: picked up again
    assert not objective.info.saturated.item()
    assert objective.info.relative_multiplier.item() < 0.5 * multiplier


def test_a_loss_of_zero_does_not_hold_the_multiplier_down(given):
    """An encoder whose heads start at 0 has a KL of exactly 0."""
    objective = GECO(Known(100))
    x = torch.zeros(4, 1)
    for _ in range(50):
        knob = torch.zeros(4, requires_grad=True)
        objective(0.0 * knob, x, x, constraint=knob + 3.0)
        objective.step()
    assert objective.info.relative_multiplier.item() >= 10.0


def test_a_known_length_makes_use_of_what_is_left(feed):
    """The same history: late in a run of known length a violation is worth more."""
    ends = []
    for total in (None, 400, 100_000):
        objective = GECO(Known(10), total_steps=total)
        feed(objective, *[0.05] * 390)
        ends.append(objective.info.relative_multiplier.item())
    assert ends[0] == ends[2] == pytest.approx(10 * (0.75 + 5 * 0.05), rel=1e-3)
    assert ends[1] == pytest.approx(10 * 4, rel=0.05)
    with pytest.raises(TypeError, match="PaperUpdate knows no schedule"):
        GECO(Known(10), update=PaperUpdate(), total_steps=10)
    with pytest.raises(ValueError, match="`total_steps`"):
        GECO(Known(10), total_steps=0)


def test_noise_around_the_tolerance_is_not_saturation(feed):
    generator = torch.Generator().manual_seed(0)
    objective = GECO(Known(100))
    for value in torch.randn(1500, generator=generator).tolist():
        feed(objective, 0.02 + 0.5 * value)
        assert not objective.info.saturated.item()


def test_settings_of_a_fixed_weight(loop):
    """No gain: the multiplier stays, and the loss is that of a beta-VAE."""
    update = RobustUpdate(rate=0.0, gain=0.0, initial=7.0, rescale=False)
    objective = GECO(ReconstructionError(kappa=0.5), update=update)
    trained = loop(objective)
    trained.run(20)
    assert objective.info.relative_multiplier.item() == pytest.approx(7.0)
    x, noise = trained.batch()
    reconstruction, kl = trained.model(x, noise)
    expected = kl.mean() + 7.0 * ((x - reconstruction).square().mean() / 0.25 - 1)
    torch.testing.assert_close(objective(kl, x, reconstruction), expected)
    # beta = d / (2 lambda), lambda = 7 / kappa^2
    assert objective.info.beta.item() == pytest.approx(4 / (2 * 28.0))


def test_rescaling_keeps_the_direction_of_the_gradient(loop):
    gradients = []
    for rescale in (True, False):
        objective = GECO(
            ReconstructionError(kappa=0.1), update=RobustUpdate(initial=5.0, rescale=rescale)
        )
        trained = loop(objective)
        x, noise = trained.batch()
        reconstruction, kl = trained.model(x, noise)
        objective(kl, x, reconstruction).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trained.model.parameters()]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine.item() == pytest.approx(1.0, abs=1e-6)
    assert gradients[0].norm() < 0.2 * gradients[1].norm()


def test_the_first_step_does_not_fill_adams_memory(loop):
    """With an error a million times too large the first gradient is like the later ones."""
    objective = GECO(ReconstructionError(kappa=1e-3))
    trained = loop(objective)
    sizes = []
    for _ in range(20):
        x, noise = trained.batch()
        reconstruction, kl = trained.model(x, noise)
        loss = objective(kl, x, reconstruction)
        gradient = torch.autograd.grad(loss, trained.model.parameters())
        sizes.append(max(g.abs().max().item() for g in gradient))
        objective.step()
    assert sizes[0] < 3 * sorted(sizes)[10]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"rate": -0.1}, "rate"),
        ({"gain": math.nan}, "gain"),
        ({"decay": 1.0}, "decay"),
        ({"bounds": (1.0, 0.5)}, "bounds"),
        ({"bounds": (-1.0, 1.0)}, "bounds"),
        ({"bounds": (1e-3, math.inf)}, "bounds"),
        ({"initial": 1e9, "bounds": (0.0, 1e5)}, "initial"),
    ],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"`{name}"):
        RobustUpdate(**settings)


def test_numbers_of_numpy_become_pythons_own():
    """In every field: a state in text, a copy or a comparison must not meet numpy."""
    np = pytest.importorskip("numpy")
    for float_, int_ in ((np.float32, np.int64), (np.float64, np.int16)):
        update = RobustUpdate(
            rate=float_(0.5),
            gain=int_(2),
            decay=float_(0.5),
            bounds=(float_(0.25), int_(8)),
            initial=float_(4),
            rescale=np.bool_(True),
            total_steps=int_(1000),
        )
        assert repr(update) == (
            "RobustUpdate(rate=0.5, gain=2.0, decay=0.5, bounds=(0.25, 8.0), initial=4.0, "
            "rescale=True, total_steps=1000)"
        )
        for name in ("rate", "gain", "decay", "initial", "rescale", "total_steps"):
            assert type(getattr(update, name)) in (float, bool, int), name
        assert [type(bound) for bound in update.bounds] == [float, float]
    # a list of two numbers, as configuration files give it, is a pair and can be hashed
    assert hash(RobustUpdate(bounds=[0.0, 1.0])) == hash(RobustUpdate(bounds=(0.0, 1.0)))
    with pytest.raises(TypeError, match="`total_steps` must be a whole number"):
        RobustUpdate(total_steps=10.5)


def test_kkt_of_a_quadratic():
    """min w^2 subject to w >= 3 (w.r.t. one number): w = 3, multiplier 6, exactly."""
    w = torch.tensor([0.5], requires_grad=True)
    objective = GECO(lambda x, r: 3.0 - r[:, 0])
    optimizer = torch.optim.SGD([w], lr=0.05)
    x = torch.zeros(1, 1)
    for _ in range(3000):
        objective(w.square(), x, w.reshape(1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    assert w.item() == pytest.approx(3.0, rel=1e-3)
    assert objective.info.multiplier.item() == pytest.approx(6.0, rel=1e-2)


def test_kkt_of_two_constraints_of_which_one_is_slack():
    """min |w|^2 s.t. w_1 >= 1, w_2 >= -1: the second multiplier goes to 0."""
    w = torch.zeros(2, requires_grad=True)
    objective = GECO({"first": lambda x, r: 1.0 - r[:, 0], "second": lambda x, r: -1.0 - r[:, 1]})
    optimizer = torch.optim.SGD([w], lr=0.05)
    x = torch.zeros(1, 1)
    for _ in range(3000):
        objective(w.square().sum().reshape(1), x, w.reshape(1, 2)).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    torch.testing.assert_close(w.detach(), torch.tensor([1.0, 0.0]), atol=2e-3, rtol=0)
    assert objective.info.multiplier["first"].item() == pytest.approx(2.0, rel=1e-2)
    assert objective.info.multiplier["second"].item() == 0.0
