import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from geco_core.constraints import ClassificationAccuracy


def scores(seed: int = 0, classes: int = 4) -> torch.Tensor:
    return 3 * torch.randn(6, classes, generator=torch.Generator().manual_seed(seed)).double()


def test_is_kappa_minus_the_probability_of_the_label():
    x = scores()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    violation = ClassificationAccuracy(0.9, lambda g: g)(x, x, labels=labels)
    onehot = functional.one_hot(labels, 4).double()
    expected = torch.stack(
        [0.9 - onehot[i] @ torch.exp(x[i]) / x[i].exp().sum() for i in range(6)]
    )
    torch.testing.assert_close(violation, expected)


def test_labels_may_be_integers_of_any_width_one_hot_or_soft():
    x = scores()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    constraint = ClassificationAccuracy(0.9, lambda g: g)
    expected = constraint(x, x, labels=labels)
    onehot = functional.one_hot(labels, 4)
    for same in (labels.int(), labels.byte(), onehot, onehot.float(), onehot.bool()):
        torch.testing.assert_close(constraint(x, x, labels=same), expected)
    soft = torch.full((6, 4), 0.25)
    torch.testing.assert_close(
        constraint(x, x, labels=soft), torch.full((6,), 0.9 - 0.25).double()
    )


def test_logits_and_probabilities_are_stated():
    x = scores()
    labels = torch.zeros(6, dtype=torch.long)
    from_logits = ClassificationAccuracy(0.9, lambda g: g)
    from_probabilities = ClassificationAccuracy(
        0.9, lambda g: g.softmax(1), outputs="probabilities"
    )
    torch.testing.assert_close(
        from_logits(x, x, labels=labels), from_probabilities(x, x, labels=labels)
    )
    with pytest.raises(ValueError, match=r"`outputs` must be .*got 'log'"):
        ClassificationAccuracy(0.9, lambda g: g, outputs="log")


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000), kappa=st.floats(0.01, 0.99), factor=st.sampled_from([1.0, 1e4])
)
def test_bounds(seed, kappa, factor):
    x = factor * scores(seed)
    violation = ClassificationAccuracy(kappa, lambda g: g)(x, x, labels=x.argmin(1))
    assert (violation >= kappa - 1 - 1e-12).all()
    assert (violation <= kappa + 1e-12).all()
    # relative: -1 where the answer is certainly right
    right = ClassificationAccuracy(kappa, lambda g: g)
    relative = right(x, 1e6 * x, labels=x.argmax(1)) / right.scale
    torch.testing.assert_close(relative, -torch.ones(6).double())


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_the_gradient_is_exact_from_the_floor_on_and_does_not_vanish_below(outputs):
    wrong_by = torch.tensor([0.0, 1.0, 2.0, 5.0, 10.0, 40.0])
    for floor in (0.0, 0.1):
        logits = torch.stack([torch.zeros(6), wrong_by], 1).requires_grad_()
        given = logits if outputs == "logits" else logits.softmax(1)
        constraint = ClassificationAccuracy(
            0.9, lambda g: g, outputs=outputs, gradient_floor=floor
        )
        violation = constraint(given, given, labels=torch.zeros(6, dtype=torch.long))
        p = logits.detach().softmax(1)[:, 0]
        torch.testing.assert_close(violation, 0.9 - p)  # the value is that of the formula
        (gradient,) = torch.autograd.grad(violation.sum(), logits)
        # d ln p / d logit = 1 - p; the smallest p is too small for 1e-6 of the floor
        expected = -torch.maximum(p, torch.tensor(floor)) * (1 - p)
        known = slice(None) if outputs == "logits" else slice(5)
        torch.testing.assert_close(gradient[known, 0], expected[known])
        assert gradient.isfinite().all()


def test_surely_wrong_reconstructions_can_be_put_right():
    # gradient ascent on the logits themselves, from p = 4e-18
    labels = torch.zeros(3, dtype=torch.long)
    reached = {}
    for floor in (0.0, 0.05):
        logits = torch.tensor([[-20.0, 20.0]] * 3, requires_grad=True)
        constraint = ClassificationAccuracy(0.9, lambda g: g, gradient_floor=floor)
        for _ in range(1000):
            (gradient,) = torch.autograd.grad(
                constraint(logits, logits, labels=labels).sum(), logits
            )
            logits = (logits - gradient).detach().requires_grad_()
        reached[floor] = constraint(logits, logits, labels=labels)
    assert (reached[0.05] < 0).all()
    assert (reached[0.0] > 0.89).all()


def test_the_floor_is_validated():
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"`gradient_floor` must be in \[0, 1\)"):
            ClassificationAccuracy(0.9, lambda g: g, gradient_floor=wrong)


def test_a_class_at_each_location_is_averaged():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    violation = ClassificationAccuracy(0.9, lambda g: g)(x, x, labels=labels)
    right = x.softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(violation, 0.9 - right.mean((1, 2)))


def test_bad_labels_are_named():
    x = scores()
    constraint = ClassificationAccuracy(0.9, lambda g: g)
    with pytest.raises(ValueError, match=r"`labels` is missing.*labels=labels"):
        constraint(x, x)
    with pytest.raises(TypeError, match=r"`labels` must be a torch.Tensor, got list"):
        constraint(x, x, labels=[0, 1])
    with pytest.raises(ValueError, match=r"one-hot \(batch, 4, \.\.\.\).*got \(6, 3\)"):
        constraint(x, x, labels=torch.zeros(6, 3))
    with pytest.raises(ValueError, match=r"got \(5,\)"):
        constraint(x, x, labels=torch.zeros(5, dtype=torch.long))
    with pytest.raises(TypeError, match=r"must be integers, got torch.float32"):
        constraint(x, x, labels=torch.zeros(6))
    for wrong in (4, -1):
        with pytest.raises(ValueError, match=f"from 0 to 3 .*index {wrong} is out of bounds"):
            constraint(x, x, labels=torch.full((6,), wrong))


@pytest.mark.parametrize(
    "classifier",
    [lambda g: g[:, :1], lambda g: g[:, 0], lambda g: (g, g)],
    ids=["one class", "no classes", "two outputs"],
)
def test_classifiers_without_classes_are_named(classifier):
    x = scores()
    with pytest.raises(ValueError, match=r"one tensor \(batch, classes\) with at least 2"):
        ClassificationAccuracy(0.9, classifier)(x, x, labels=torch.zeros(6, dtype=torch.long))
