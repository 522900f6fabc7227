"""ConvDraw beyond the contract: its recurrence, its densities, its options, its memory."""

import math

import pytest
import torch
from torch import distributions

from geco_models import ConvDraw
from geco_models.conv_draw import step as step_module
from geco_models.conv_draw.alignment import aligned


def small(shape=(1, 8, 8), **options):
    """A model small enough for float64 and finite samples."""
    sizes = {"steps": 3, "latent_channels": 2, "hidden": 5, **options}
    draw = ConvDraw(shape, **sizes).double()
    with torch.no_grad():  # fresh posteriors are nearly the prior: spread them
        for core in draw.network.cores:
            core.prior_head.weight.mul_(20)
            core.posterior_head.weight.mul_(20)
    return draw


def images(model, batch=3):
    return torch.rand(batch, *model.shape, dtype=torch.float64)


def contexts(model, batch=3):
    if model.context_shape is None:
        return None
    return torch.rand(batch, *model.context_shape, dtype=torch.float64)


OPTIONS = {
    "plain": {},
    "unshared": {"shared": False},
    "one-step": {"steps": 1},
    "own-canvas": {"canvas": 7},
    "planes": {"context_shape": (2, 8, 8)},
    "planes-unshared": {"context_shape": (2, 8, 8), "shared": False, "canvas": 3},
    "vector": {"context_shape": (4,)},
}


@pytest.fixture(params=OPTIONS, ids=list(OPTIONS))
def draw(request):
    return small(**OPTIONS[request.param])


def test_step_kls_sum_to_the_total(draw):
    out = draw(images(draw), contexts(draw))
    assert out.kl_steps.shape == (3, draw.steps)
    torch.testing.assert_close(out.kl_steps.sum(1), out.kl)
    assert (out.kl_steps > 0).all()


def test_step_kls_are_those_of_torch_distributions(draw, seeded):
    """The steps replayed with torch.distributions and no constant part computed in advance."""
    x, context = images(draw), contexts(draw)
    out = draw(x, context, generator=seeded(3))
    network = draw.network
    sources, state = network.sources(x, context), network.start()
    for step in range(draw.steps):
        core = network.core(step)
        offsets = core.offsets(sources)
        ours_p, prior = core.step_prior(state, offsets)
        ours_q, posterior = core.step_posterior(state, network.picture(state.canvas), offsets)
        p, q = (
            distributions.Normal(g.mean, torch.exp(0.5 * g.log_variance)) for g in (ours_p, ours_q)
        )
        expected = distributions.kl_divergence(q, p).expand(out.latents[:, step].shape)
        torch.testing.assert_close(out.kl_steps[:, step], expected.flatten(1).sum(1))
        z = out.latents[:, step]
        canvas, decoder = core.step_decoder(state, z, offsets)
        state = type(state)(canvas, prior, posterior, decoder, z)
    torch.testing.assert_close(network.image(state.canvas), out.reconstruction)


def test_kl_is_the_mean_log_ratio_along_the_paths(draw, seeded):
    """Path by path the log-ratio minus the KL has mean zero: both share their latents."""
    draws = 1000
    x, context = images(draw, 1), contexts(draw, 1)
    rows = x.expand(draws, *draw.shape)
    with torch.no_grad():
        out = draw(rows, context, generator=seeded(0))
        ratio = draw.posterior(rows, context).log_prob(out.latents)
        ratio = ratio - draw.prior_log_prob(out.latents, context)
    difference = ratio - out.kl
    error = difference.std() / math.sqrt(draws)
    assert difference.mean().abs() < 4 * error, (difference.mean(), error)
    assert error < 0.1 * out.kl.mean()  # so the agreement says something


def test_equal_distributions_have_no_kl(draw):
    """Heads that ignore their state and share their bias: prior and posterior coincide."""
    with torch.no_grad():
        for core in draw.network.cores:
            core.prior_head.bias.normal_()
            core.posterior_head.bias.copy_(core.prior_head.bias)
            core.prior_head.weight.zero_()
            core.posterior_head.weight.zero_()
    out = draw(images(draw), contexts(draw))
    assert torch.equal(out.kl_steps, torch.zeros_like(out.kl_steps))
    z = out.latents
    posterior = draw.posterior(images(draw), contexts(draw))
    torch.testing.assert_close(posterior.log_prob(z), draw.prior_log_prob(z, contexts(draw)))


def test_log_densities_given_the_latents_are_those_of_the_steps(draw):
    """Teacher forcing: the density of drawn latents, by the density of their noise."""
    x, context = images(draw), contexts(draw)
    generator = torch.Generator().manual_seed(5)
    z = draw.posterior(x, context).sample(generator)
    shape = (draw.steps, 3, *draw.latent_shape[1:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    # z = m + s e has density N(e) / prod s; the s follow from a second draw with other noise
    network = draw.network
    sources, state = network.sources(x, context), network.start()
    total = -0.5 * (noise.square() + math.log(2 * math.pi)).sum((0, 2, 3, 4))
    for step in range(draw.steps):
        core = network.core(step)
        offsets = core.offsets(sources)
        q, posterior = core.step_posterior(state, network.picture(state.canvas), offsets)
        total = total - 0.5 * q.log_variance.flatten(1).sum(1)
        canvas, decoder = core.step_decoder(state, z[:, step], offsets)
        state = type(state)(canvas, state.prior, posterior, decoder, z[:, step])
    torch.testing.assert_close(draw.posterior(x, context).log_prob(z), total)


def test_one_path_for_many_images_is_evaluated_as_for_each(draw):
    x, context = images(draw), contexts(draw)
    posterior = draw.posterior(x, context)
    path = posterior.sample()[:1]
    expected = posterior.log_prob(path.expand(3, *draw.latent_shape))
    torch.testing.assert_close(posterior.log_prob(path), expected)
    many = posterior.sample()
    first = None if context is None else context[:1]
    one = draw.posterior(x[:1], first)
    repeated = draw.posterior(
        x[:1].expand(3, *draw.shape), None if first is None else first.expand_as(context)
    )
    expected = repeated.log_prob(many)
    torch.testing.assert_close(torch.cat([one.log_prob(z[None]) for z in many]), expected)


def test_latents_decode_to_the_reconstruction(draw):
    x, context = images(draw), contexts(draw)
    out = draw(x, context)
    assert out.latents.shape == (3, *draw.latent_shape)
    torch.testing.assert_close(draw.decode(out.latents, context), out.reconstruction)
    changed = out.latents.clone()
    changed[:, 0] += 1
    assert (draw.decode(changed, context) - out.reconstruction).abs().max() > 1e-4


def test_sampling_uses_the_prior_only(draw, seeded):
    context = contexts(draw)
    before = draw.sample(3, context, generator=seeded(1))
    names = ("posterior", "image_net", "image_gates")
    with torch.no_grad():
        for name, parameter in draw.named_parameters():
            if any(part in name for part in names):
                parameter.fill_(math.nan)
    assert torch.equal(draw.sample(3, context, generator=seeded(1)), before)
    assert torch.isnan(draw(images(draw), context).kl).all()
    with torch.no_grad():
        draw.network.core(0).prior_head.bias.add_(0.5)
    assert not torch.equal(draw.sample(3, context, generator=seeded(1)), before)


def test_samples_are_the_decoded_latents_of_the_prior(draw, seeded):
    """Drawn step by step with noise of the same seed, then decoded as given latents."""
    context = contexts(draw)
    shape = (draw.steps, 3, *draw.latent_shape[1:])
    noise = torch.randn(shape, generator=seeded(2), dtype=torch.float64)
    network, latents = draw.network, []
    sources, state = network.sources(None, context), network.start()
    for step in range(draw.steps):
        core = network.core(step)
        offsets = core.offsets(sources)
        p, prior = core.step_prior(state, offsets)
        latents.append(p.mean + torch.exp(0.5 * p.log_variance) * noise[step])
        canvas, decoder = core.step_decoder(state, latents[-1], offsets)
        state = type(state)(canvas, prior, state.posterior, decoder, latents[-1])
    expected = draw.decode(torch.stack(latents, 1), context)
    torch.testing.assert_close(draw.sample(3, context, generator=seeded(2)), expected)


def test_each_hidden_state_changes_its_gates():
    draw = small()
    x = images(draw)
    network = draw.network
    sources, start, core = network.sources(x, None), network.start(), network.core(0)
    offsets = core.offsets(sources)

    def run(state):
        p, _ = core.step_prior(state, offsets)
        q, _ = core.step_posterior(state, network.picture(state.canvas), offsets)
        canvas, _ = core.step_decoder(state, torch.ones(3, 2, 4, 4).double(), offsets)
        return {"prior": p.mean, "posterior": q.mean, "decoder": canvas}

    before = run(start)
    for name in ("prior", "posterior", "decoder"):
        hidden, cell = getattr(start, name)
        after = run(start._replace(**{name: (hidden + 1, cell)}))
        for key, value in before.items():
            moved = (after[key] - value).abs().max() > 1e-6
            assert moved == (name == key), (name, key)


def test_later_steps_see_the_error():
    """A posterior that has painted something else gives another second latent."""
    draw = small(steps=2)
    x = images(draw)
    network, core = draw.network, draw.network.core(0)
    state, offsets = network.start(), core.offsets(network.sources(x, None))
    q, _ = core.step_posterior(state, network.picture(state.canvas), offsets)
    other, _ = core.step_posterior(state, network.picture(state.canvas + 1), offsets)
    assert (q.mean - other.mean).abs().max() > 1e-5


def test_later_latents_depend_on_earlier_ones():
    """Moving the first latent changes the densities by more than its own term."""
    draw = small(steps=2)
    x = images(draw)
    z = draw.posterior(x).sample().detach()
    moved = z.clone()
    moved[:, 0] += 1
    network, core = draw.network, draw.network.core(0)
    sources, start = network.sources(x, None), network.start()
    offsets = core.offsets(sources)
    p, _ = core.step_prior(start, offsets)
    q, _ = core.step_posterior(start, network.picture(start.canvas), offsets)
    changes = {
        "prior": (draw.prior_log_prob, p),
        "posterior": (draw.posterior(x).log_prob, q),
    }
    for name, (density, first) in changes.items():
        whole = density(moved) - density(z)
        own = first.log_prob(moved[:, 0]) - first.log_prob(z[:, 0])
        assert ((whole - own).abs() > 1e-4).all(), name


def test_shuffled_contexts_change_reconstructions_and_both_densities():
    for shape in ((2, 8, 8), (4,)):
        draw = small(context_shape=shape)
        x, context = images(draw), contexts(draw)
        z = draw.posterior(x, context).sample()
        rolled = context.roll(1, 0)
        pairs = {
            "prior": (draw.prior_log_prob(z, context), draw.prior_log_prob(z, rolled)),
            "decoder": (draw.decode(z, context), draw.decode(z, rolled)),
            "posterior": (
                draw.posterior(x, context).log_prob(z),
                draw.posterior(x, rolled).log_prob(z),
            ),
        }
        for name, (a, b) in pairs.items():
            assert ((a - b).reshape(3, -1).abs().amax(1) > 1e-6).all(), name


def test_unshared_steps_have_their_own_weights(seeded):
    draw = small(shared=False)
    assert len(draw.network.cores) == 3
    x = images(draw)
    before = draw(x, generator=seeded(0)).kl_steps
    with torch.no_grad():
        draw.network.core(2).posterior_head.bias.add_(1)
    after = draw(x, generator=seeded(0)).kl_steps
    assert torch.equal(before[:, :2], after[:, :2])
    assert (after[:, 2] > before[:, 2] + 0.1).all()


def test_equal_unshared_weights_are_shared_weights(seeded):
    shared, unshared = small(), small(shared=False)
    with torch.no_grad():
        for name, parameter in unshared.named_parameters():
            twin = ".".join(
                "0" if part.isdigit() and "cores." in name and i == 2 else part
                for i, part in enumerate(name.split("."))
            )
            parameter.copy_(dict(shared.named_parameters())[twin])
    x = images(shared)
    a, b = shared(x, generator=seeded(0)), unshared(x, generator=seeded(0))
    torch.testing.assert_close(a.kl_steps, b.kl_steps)
    torch.testing.assert_close(a.reconstruction, b.reconstruction)
    torch.testing.assert_close(
        shared.sample(2, generator=seeded(1)), unshared.sample(2, generator=seeded(1))
    )


@pytest.mark.parametrize("options", [{}, {"shared": False, "context_shape": (2, 8, 8)}])
def test_checkpointing_changes_no_number(options, seeded):
    plain = small(**options)
    again = small(**options, checkpoint=True)
    again.load_state_dict(plain.state_dict())
    x, context = images(plain), contexts(plain)
    results = []
    for model in (plain, again):
        out = model(x, context, generator=seeded(0))
        (out.kl.sum() + out.reconstruction.square().sum()).backward()
        results.append(out)
    assert torch.equal(results[0].kl_steps, results[1].kl_steps)
    for (name, p), q in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=lambda m, name=name: f"{name}: {m}")


def test_checkpointing_saves_memory():
    """What autograd keeps for the backward pass, counted by its own hooks."""

    def kept(steps, checkpoint):
        draw = small((3, 16, 16), steps=steps, hidden=8, checkpoint=checkpoint)
        x = images(draw)
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            draw(x)
        return sum(sizes.values())

    plain = kept(12, False) - kept(4, False)
    again = kept(12, True) - kept(4, True)
    assert again < plain / 3, (again, plain)


@pytest.mark.parametrize(
    ("shape", "stride", "size"),
    [
        ((1, 28, 28), 2, (14, 14)),
        ((3, 32, 32), 4, (8, 8)),
        ((1, 64, 64), 8, (8, 8)),
        ((2, 13, 7), 4, (4, 2)),
        ((1, 5, 9), 1, (5, 9)),
        ((1, 2, 3), 4, (1, 1)),
    ],
)
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_images_of_any_size(shape, stride, size, kernel):
    draw = small(shape, stride=stride, kernel=kernel, steps=2)
    out = draw(images(draw))
    assert out.reconstruction.shape == (3, *shape)
    assert out.latents.shape == (3, 2, 2, *size)
    assert draw.sample(2).shape == (2, *shape)


def test_context_planes_of_another_size_are_resampled():
    draw = small(context_shape=(2, 11, 5))
    assert draw(images(draw), contexts(draw)).kl.shape == (3,)


def test_every_pixel_of_a_cropped_image_reaches_the_posterior():
    draw = small((1, 7, 10), stride=4)
    x = images(draw).requires_grad_()
    draw(x).kl.sum().backward()
    assert (x.grad != 0).all()


def test_generative_pass_spares_the_posterior(monkeypatch):
    draw = small()

    def fail(*args, **kwargs):
        raise AssertionError("sampling ran the posterior")

    monkeypatch.setattr(type(draw.network.core(0)), "step_posterior", fail)
    draw.sample(2)
    draw.prior_log_prob(torch.zeros(1, *draw.latent_shape, dtype=torch.float64))


def test_image_is_convolved_once_whatever_the_number_of_steps(monkeypatch):
    counts = {}
    for steps in (1, 6):
        draw = small(steps=steps, context_shape=(1, 8, 8))
        calls = []
        for module in (draw.network.image_net, draw.network.context_net):
            module.register_forward_hook(lambda *_, calls=calls: calls.append("net"))
        draw.network.core(0).context_gates.register_forward_hook(
            lambda *_, calls=calls: calls.append("gates")
        )
        monkeypatch.setattr(
            step_module,
            "aligned",
            lambda *planes, calls=calls: calls.append("gates") or aligned(*planes),
        )
        draw(images(draw), contexts(draw))
        counts[steps] = calls
    assert counts[1] == counts[6]
    assert len(counts[6]) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "`steps` must be at least 1, got 0"),
        ({"steps": 2.0}, TypeError, "`steps` must be an integer"),
        ({"hidden": -1}, ValueError, "`hidden` must be at least 1"),
        ({"features": 0}, ValueError, "`features` must be at least 1"),
        ({"latent_channels": 0}, ValueError, "`latent_channels` must be at least 1"),
        ({"stride": 0}, ValueError, "`stride` must be at least 1"),
        ({"canvas": 0}, ValueError, "`canvas` must be at least 1"),
        ({"kernel": 4}, ValueError, "`kernel` must be odd"),
        ({"context_shape": (3, 3)}, ValueError, "`context_shape` must have 1 or 3 dimensions"),
    ],
)
def test_wrong_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message) as caught:
        ConvDraw((1, 8, 8), **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="`shape` must have 3 dimensions"):
        ConvDraw((8, 8))


def test_wrong_latents_are_refused():
    draw = small()
    z = draw.posterior(images(draw)).sample()
    calls = (draw.decode, draw.prior_log_prob, draw.posterior(images(draw)).log_prob)
    for call in calls:
        with pytest.raises(ValueError, match=r"`z` must be \(batch, 3, 2, 4, 4\)"):
            call(z[:, :2])
    with pytest.raises(ValueError, match="`z` must have 3 rows"):
        draw.posterior(images(draw)).log_prob(z[:2])


def test_checkpoint_of_another_configuration_is_refused(tmp_path):
    small().save(tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)["state"]
    with pytest.raises(ValueError, match="of another configuration"):
        small(hidden=6).load_state_dict(state)
    with pytest.raises(ValueError, match="of another configuration"):
        small(shared=False).load_state_dict(state)


def test_compiles_to_one_graph_with_checkpointing():
    torch.compiler.reset()
    draw = small(steps=2, checkpoint=True)
    compiled = torch.compile(draw, fullgraph=True, backend="aot_eager")
    x, context = images(draw), contexts(draw)
    torch.manual_seed(0)
    expected = draw(x, context)
    torch.manual_seed(0)
    out = compiled(x, context)
    torch.testing.assert_close(out.kl, expected.kl)
    out.kl.sum().backward()
    assert all(p.grad is not None for p in draw.network.core(0).posterior_cell.parameters())


# torch's own: the tracer looks at `.grad` of the states that enter a compiled step
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("shared", [True, False])
def test_the_step_alone_can_be_compiled(shared, seeded):
    torch.compiler.reset()
    draw = small(steps=2, shared=shared)
    x = images(draw)
    expected = draw(x, generator=seeded(0))
    draw.infer_step = torch.compile(draw.infer_step, fullgraph=True, backend="aot_eager")
    out = draw(x, generator=seeded(0))  # noise is drawn outside, so a generator is welcome
    torch.testing.assert_close(out.kl_steps, expected.kl_steps)
    torch.testing.assert_close(out.reconstruction, expected.reconstruction)
    out.kl.sum().backward()
    assert draw.network.first_canvas.grad.abs().sum() > 0
