"""The coupling flow against autograd, zuko with the same weights, and integrals."""

import math
from functools import partial

import pytest
import torch
import zuko
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import AffineTransform

from geco_models import AffineCoupling, RealNVP
from geco_models.flows import LOG_SCALE_BOUND
from geco_models.gaussian import standard_log_prob


def strong(flow, factor=10.0):
    """Weights away from the near-identity start, so that nothing passes by being trivial."""
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "context" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.02 * factor)
    return flow


@given(
    features=st.integers(2, 9),
    couplings=st.integers(1, 6),
    context=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=25)
def test_inverse_undoes_forward_for_every_shape(features, couplings, context, seed):
    torch.manual_seed(seed)
    flow = strong(RealNVP(features, couplings, (12, 7), context=context)).double()
    c = torch.randn(5, context).double() if context else None
    x = 3 * torch.randn(5, features).double()
    u, log_det = flow(x, c)
    back, inverse_log_det = flow.inverse(u, c)
    torch.testing.assert_close(back, x, atol=1e-10, rtol=0)
    torch.testing.assert_close(inverse_log_det, -log_det, atol=1e-10, rtol=0)


def test_inverse_in_float32():
    flow = strong(RealNVP(64, 8), factor=1.0)
    x = torch.randn(256, 64)
    u, log_det = flow(x)
    back, inverse_log_det = flow.inverse(u)
    assert (u - x).abs().max() > 0.5  # far from the identity
    assert (back - x).abs().max() < 1e-5
    assert (log_det + inverse_log_det).abs().max() < 1e-4


@pytest.mark.parametrize("features", [2, 5, 8])
@pytest.mark.parametrize("context", [0, 3])
def test_log_determinant_equals_the_jacobian(features, context):
    flow = strong(RealNVP(features, 4, (16,), context=context)).double()
    for x in torch.randn(3, 1, features).double():
        c = torch.randn(1, context).double() if context else None
        for direction in (flow, flow.inverse):
            at_context = partial(direction, context=c)
            jacobian, _ = torch.autograd.functional.jacobian(at_context, x)
            expected = torch.linalg.slogdet(jacobian[0, :, 0]).logabsdet
            torch.testing.assert_close(direction(x, c)[1][0], expected)


def zuko_twin(flow, features, context, hidden):
    """A zuko flow with the same halves, networks, weights and bounded log-scale."""
    half = features // 2

    def bounded(shift, raw, bound):
        return AffineTransform(shift, torch.exp(bound * torch.tanh(raw / 2)))

    transforms = []
    for i, coupling in enumerate(flow.couplings):
        first = torch.arange(features) < half
        layer = zuko.flows.coupling.GeneralCouplingTransform(
            features,
            context,
            mask=first if i % 2 == 0 else ~first,
            univariate=partial(bounded, bound=coupling.bound),
            hidden_features=hidden,
        )
        linears = [module for module in layer.hyper if hasattr(module, "weight")]
        for j, (linear, weight, bias) in enumerate(
            zip(linears, coupling.weights, coupling.biases, strict=True)
        ):
            weight, bias = weight.t(), bias.detach()
            if j == 0 and context:
                rows = flow.context.weight[i * hidden[0] : (i + 1) * hidden[0]]
                weight = torch.cat([weight, rows], 1)
            if j == len(linears) - 1:
                # zuko interleaves shift and scale of each feature; here they are two blocks
                order = torch.arange(len(bias)).view(2, -1).t().flatten()
                weight, bias = weight[order], bias[order]
            with torch.no_grad():
                linear.weight.copy_(weight)
                linear.bias.copy_(bias)
        transforms.append(layer)
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(features), torch.ones(features), buffer=True
    )
    return zuko.lazy.Flow(transforms, base)


@pytest.mark.parametrize("features", [2, 7, 64])
@pytest.mark.parametrize("context", [0, 3])
def test_density_equals_zuko_with_the_same_weights(features, context):
    hidden = (16, 8)
    flow = strong(RealNVP(features, 5, hidden, context=context), 3.0)
    twin = zuko_twin(flow, features, context, hidden).double()
    flow = flow.double()
    x = torch.randn(20, features).double()
    c = torch.randn(20, context).double() if context else None
    distribution = twin(c)
    torch.testing.assert_close(flow.log_prob(x, c), distribution.log_prob(x))
    expected_u, expected_log_det = distribution.transform.call_and_ladj(x)
    u, log_det = flow(x, c)
    torch.testing.assert_close(u, expected_u)
    torch.testing.assert_close(log_det, expected_log_det)
    torch.testing.assert_close(flow.inverse(u, c)[0], distribution.transform.inv(u))


@pytest.mark.parametrize("context", [0, 2])
def test_density_in_the_plane_integrates_to_one(context):
    flow = strong(RealNVP(2, 4, (16,), context=context), 8.0).double()
    axis = torch.linspace(-40, 40, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    c = torch.randn(1, context).double().expand(len(grid), context) if context else None
    with torch.no_grad():
        mass = flow.log_prob(grid, c).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=2e-3)


def test_samples_follow_the_density(seeded):
    flow = strong(RealNVP(2, 4, (16,)), 5.0)
    x, log_prob = flow.sample_and_log_prob(50_000, generator=seeded(0))
    torch.testing.assert_close(log_prob, flow.log_prob(x), atol=1e-3, rtol=1e-4)
    assert torch.equal(flow.sample(50_000, generator=seeded(0)), x)
    axis = torch.linspace(-40, 40, 801)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = flow.log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
    expected = (density[:, None] * grid).sum(0)
    error = x.std(0) / math.sqrt(len(x))
    assert ((x.mean(0) - expected).abs() < 4 * error + 5e-3).all()


def test_samples_change_with_the_flow_and_the_context(seeded):
    flow = RealNVP(4, 3, (8,), context=2)
    c = torch.randn(6, 2)
    before = flow.sample(6, c, seeded(0))
    assert not torch.equal(flow.sample(6, c.roll(1, 0), seeded(0)), before)
    strong(flow)
    assert not torch.equal(flow.sample(6, c, seeded(0)), before)


def test_starts_close_to_the_identity():
    flow = RealNVP(16, 8)
    x = torch.randn(100, 16)
    u, log_det = flow(x)
    assert (u - x).abs().mean() < 0.3
    assert log_det.abs().mean() < 1.0


def test_fits_a_bent_density():
    """Data on a parabola: the flow must find the structure that no Gaussian has."""
    flow = RealNVP(2, 4, (32,))
    first = torch.randn(4000, 1)
    x = torch.cat([first, first.square() + 0.1 * torch.randn(4000, 1)], 1)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for i in range(250):
        batch = x[(i * 250) % 4000 :][:250]
        loss = -flow.log_prob(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    entropy = 0.5 * math.log(2 * math.pi * math.e) * 2 + math.log(0.1)
    gaussian = 0.5 * torch.logdet(2 * math.pi * math.e * torch.cov(x.t())).item()
    with torch.no_grad():
        reached = -flow.log_prob(x).mean().item()
    assert gaussian - entropy > 2.0
    assert entropy - 0.05 < reached < entropy + 0.3


@pytest.mark.parametrize("value", [0.0, 1e6, -1e6, 1e15])
def test_finite_at_extreme_inputs(value):
    flow = strong(RealNVP(6, 8, (16,)))
    x = torch.full((2, 6), value, requires_grad=True)
    for direction in (flow, flow.inverse):
        y, log_det = direction(x)
        assert torch.isfinite(y).all()
        assert (log_det.abs() <= 8 * 3 * LOG_SCALE_BOUND + 1e-3).all()
    flow.log_prob(x).sum().backward()
    for name, parameter in flow.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_log_scale_is_bounded_by_its_argument():
    coupling = AffineCoupling(2, 3, (8,), bound=0.7)
    with torch.no_grad():
        coupling.biases[-1].fill_(1e4)
    _, log_scale = coupling(torch.randn(4, 2), torch.randn(4, 3))
    torch.testing.assert_close(log_scale, torch.full((4, 3), 0.7))
    assert "network=2-8-6" in repr(coupling)


def test_half_precision_weights_take_float32_latents():
    flow = RealNVP(6, 2, (8,), context=2).bfloat16()
    x = torch.randn(4, 6)
    c = torch.randn(4, 2)
    assert flow.log_prob(x, c).dtype == torch.float32
    u, _ = flow(x, c)
    torch.testing.assert_close(flow.inverse(u, c)[0], x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": 1}, ValueError, "`features` must be at least 2, got 1"),
        ({"features": 4, "couplings": 0}, ValueError, "`couplings` must be at least 1, got 0"),
        ({"features": 4, "hidden": ()}, ValueError, "`hidden` must have at least 1"),
        ({"features": 4, "hidden": (0,)}, ValueError, "`hidden` must be at least 1"),
        ({"features": 4, "context": -1}, ValueError, "`context` must be at least 0, got -1"),
        ({"features": 4, "bound": 0.0}, ValueError, "`bound` must be a positive finite number"),
        ({"features": 4.0}, TypeError, "`features` must be an integer"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        RealNVP(**arguments)


def test_wrong_inputs_are_refused():
    flow, conditional = RealNVP(4, 2, (8,)), RealNVP(4, 2, (8,), context=2)
    x, c = torch.randn(3, 4), torch.randn(3, 2)
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 4\), got \(3, 5\)"):
        flow(torch.randn(3, 5))
    with pytest.raises(ValueError, match=r"`u` must be \(batch, 4\), got \(4,\)"):
        flow.inverse(torch.randn(4))
    with pytest.raises(TypeError, match="`x` must be floating point"):
        flow.log_prob(x.long())
    with pytest.raises(ValueError, match="`context` was given, but this flow has `context=0`"):
        flow(x, c)
    with pytest.raises(ValueError, match=r"`context` is missing: this flow needs \(batch, 2\)"):
        conditional(x)
    with pytest.raises(ValueError, match="`context` must have 3 rows"):
        conditional(x, c[:2])
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        flow.sample(0)


def test_base_density_is_the_standard_normal():
    flow = RealNVP(5, 3, (8,)).double()
    with torch.no_grad():
        for coupling in flow.couplings:
            coupling.weights[-1].zero_()
    x = torch.randn(7, 5).double()
    torch.testing.assert_close(flow.log_prob(x), standard_log_prob(x))
    assert torch.equal(flow(x)[0], x)
