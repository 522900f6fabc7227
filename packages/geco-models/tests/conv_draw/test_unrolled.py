"""ConvDraw's training pass: what it computes is that of single steps, with half the launches."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from geco_models import ConvDraw
from geco_models.conv_draw.conv_lstm import advance, advance_in_place
from geco_models.conv_draw.step import DrawState
from geco_models.conv_draw.unrolled import prepare

OPTIONS = {
    "plain": {},
    "one-step": {"steps": 1},
    "two-steps": {"steps": 2},
    "unshared": {"shared": False},
    "canvas": {"canvas": 5},
    "planes": {"context_shape": (2, 8, 8)},
    "vector-unshared": {"context_shape": (3,), "shared": False},
    "scales": {"likelihood": "heteroscedastic"},
    "tolerance": {"tolerance": (0.05, 0.2)},
    "tolerance-planes-unshared": {
        "tolerance": (0.05, 0.2),
        "context_shape": (2, 8, 8),
        "shared": False,
    },
}


def build(**options):
    model = ConvDraw((1, 8, 8), **{"steps": 3, "latent_channels": 2, "hidden": 5, **options})
    with torch.no_grad():  # modulations that do something, Gaussians that differ
        for name, parameter in model.named_parameters():
            if "head.weight" in name or "modulations" in name:
                parameter.normal_(std=0.5)
    return model.double()


def given(model, batch=3):
    x = torch.rand(batch, *model.shape, dtype=torch.float64)
    asked = {} if model.tolerance is None else {"kappa": torch.full((batch,), 0.08).double()}
    if model.context_shape is not None:
        asked["context"] = torch.rand(batch, *model.context_shape, dtype=torch.float64)
    return x, asked


@pytest.mark.parametrize("option", OPTIONS)
def test_it_computes_what_single_steps_compute(option, seeded):
    """The drawn path walked step by step, each network on its own, gives the same numbers."""
    model = build(**OPTIONS[option])
    x, asked = given(model)
    out = model(x, generator=seeded(1), **asked)
    network = model.network
    sources = network.sources(x, asked.get("context"), asked.get("kappa"))
    state, kls = network.start(), []
    for step, z in enumerate(out.latents.unbind(1)):
        core = network.core(step)
        offsets = core.offsets(sources)
        p, prior = core.step_prior(state, offsets)
        q, posterior = core.step_posterior(state, network.picture(state.canvas), offsets)
        canvas, decoder = core.step_decoder(state, z, offsets)
        state = DrawState(canvas, prior, posterior, decoder, z)
        kls.append(q.kl_per_dimension(p))
    torch.testing.assert_close(torch.stack(kls, dim=1), out.kl_per_dimension)
    mean, _ = model.observe(network.numbers(state.canvas, state.decoder[0]))
    torch.testing.assert_close(mean, out.reconstruction)
    torch.testing.assert_close(model.decode(out.latents, **asked), out.reconstruction)
    torch.testing.assert_close(model.posterior(x, **asked).sample(seeded(1)), out.latents)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_are_those_of_finite_differences(option, batch, seeded):
    model = build(**OPTIONS[option])
    x, asked = given(model, batch)

    def loss():
        out = model(x, generator=seeded(2), **asked)
        error = (out.reconstruction - x).square().sum()
        if out.distribution is not None:
            error = error - out.distribution.log_prob(x).sum()
        return out.kl.sum() + error

    loss().backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        slope = (parameter.grad * direction).sum()
        width = 1e-5
        with torch.no_grad():
            parameter.add_(direction, alpha=width)
            above = loss()
            parameter.sub_(direction, alpha=2 * width)
            below = loss()
            parameter.add_(direction, alpha=width)
        torch.testing.assert_close(
            slope, (above - below) / (2 * width), rtol=1e-4, atol=1e-5, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_in_float32_are_those_in_float64(batch, layout, seeded):
    """Every kernel that is chosen by type and layout computes the same."""
    exact = build()
    model = ConvDraw(**exact.config)
    model.load_state_dict(exact.state_dict())
    model.to(memory_format=layout)
    x = torch.rand(batch, 1, 8, 8)
    path = exact(x.double(), generator=seeded(0)).latents.shape
    noise = torch.randn(path[1], batch, *path[2:])
    for one in (exact, model):
        own = [n.to(one.reference().dtype) for n in noise.unbind(0)]
        one._noise = lambda *_, own=own: own
        out = one(x.to(one.reference().dtype))
        (out.kl.sum() + (out.reconstruction - 0.5).square().sum()).backward()
    expected = dict(exact.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad.double(), expected[name].grad, rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("shape", [(3, 8, 2, 2), (2, 2, 8, 1, 3)])
@pytest.mark.parametrize("batch", ["all", "one"])
def test_advancing_in_place_has_the_gradient_of_the_formulas(shape, batch):
    gates = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    size = [*shape[:-3], shape[-3] // 4, *shape[-2:]]
    if batch == "one":
        size[0] = 1
    cell = torch.randn(size, dtype=torch.float64, requires_grad=True)
    for mine, plain in zip(advance_in_place(gates, cell), advance(gates, cell), strict=True):
        torch.testing.assert_close(mine, plain)
        weights = torch.randn_like(plain)
        expected = torch.autograd.grad((plain * weights).sum(), (gates, cell), retain_graph=True)
        found = torch.autograd.grad((mine * weights).sum(), (gates, cell), retain_graph=True)
        torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(advance_in_place, (gates, cell))


def test_gradients_of_the_gates_lie_as_the_gates_do():
    gates = torch.randn(2, 8, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    cell = torch.randn(2, 2, 3, 3).to(memory_format=torch.channels_last)
    hidden, _ = advance_in_place(gates, cell)
    hidden.sum().backward()
    assert gates.grad.is_contiguous(memory_format=torch.channels_last)


def test_states_have_the_type_of_the_gates_under_autocast(monkeypatch):
    model = ConvDraw((1, 8, 8), 3, 2, 8)
    seen = []
    step = model.infer_step

    def watch(carry, *arguments):
        result = step(carry, *arguments)
        seen.append((result[0], result[1], result[2]))
        return result

    monkeypatch.setattr(model, "infer_step", watch)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.rand(2, 1, 8, 8))
    for carry, raw, z in seen:
        for state in (*carry.posterior, *carry.pair, carry.latent):
            assert state.dtype == torch.bfloat16
        assert (carry.canvas.dtype, raw.dtype, z.dtype) == (torch.float32,) * 3
    assert out.kl.dtype == out.reconstruction.dtype == torch.float32


def test_autocast_stays_near_full_precision(seeded):
    model = ConvDraw((1, 16, 16), 6, 2, 16)
    x = torch.rand(4, 1, 16, 16)
    full = model(x, generator=seeded(0))
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, generator=seeded(0))
    torch.testing.assert_close(half.reconstruction, full.reconstruction, atol=0.05, rtol=0.05)
    torch.testing.assert_close(half.kl, full.kl, atol=0.2, rtol=0.1)


def test_gradients_of_single_examples_by_functional_transforms():
    model = ConvDraw((1, 8, 8), 2, 2, 4).double()
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    noise = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64).unbind(0)
    model._noise = lambda *_: noise

    def loss(parameters, x):
        out = torch.func.functional_call(model, parameters, (x[None],))
        return out.kl.sum() + (out.reconstruction - x).square().sum()

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for index in range(3):
        model.zero_grad()
        loss(dict(model.named_parameters()), x[index]).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(found[name][index], parameter.grad)


def test_weights_are_packed_once_whatever_the_number_of_steps():
    for steps in (2, 5):
        model = ConvDraw((1, 8, 8), steps, 2, 8)
        prepared = prepare(
            model.network, model.network.sources(torch.rand(2, 1, 8, 8), None), steps
        )
        storages = {parts.read.weight.data_ptr() for parts in prepared.parts}
        assert len(prepared.parts) == steps
        assert len(storages) == 1


class Launches(TorchDispatchMode):
    """Counts operations that are neither views nor allocations nor questions."""

    free = ("detach", "_unsafe_view", "alias", "promote_types", "device", "empty", "new_empty")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        schema = func._schema
        view = any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
        name = schema.name.partition("::")[2]
        self.count += not view and not name.removesuffix("_strided").startswith(self.free)
        return func(*args, **(kwargs or {}))


def launches(steps):
    mode = FakeTensorMode()
    model = ConvDraw((3, 32, 32), steps)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = mode.from_tensor(parameter.detach())
                module._parameters[name] = torch.nn.Parameter(fake)
    with mode, Launches() as launched:
        x = torch.rand(32, 3, 32, 32)
        out = model(x)
        (out.kl.mean() + (out.reconstruction - x).square().mean()).backward()
    return launched.count


def test_a_training_step_launches_half_of_what_it_did():
    """1,290 operations in the first version; nothing reads the host on the way."""
    few, many = launches(4), launches(8)
    assert many <= 600
    assert many - few <= 4 * 58
