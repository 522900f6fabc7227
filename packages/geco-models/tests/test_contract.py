"""What every family promises, checked for each of them; the family's name is in the test's id."""

import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from geco_models import ModelOutput, load


def test_output_has_the_promised_shapes(model, inputs):
    x, context = inputs(model)
    out = model(x, context)
    assert isinstance(out, ModelOutput)
    assert out.reconstruction.shape == x.shape
    assert out.kl.shape == (3,)
    assert out.latents.shape[0] == 3
    for value in (out.reconstruction, out.kl, out.latents):
        assert torch.isfinite(value).all()


def test_gradient_reaches_every_parameter(model, inputs):
    x, context = inputs(model)
    out = model(x, context)
    (out.kl.sum() + (out.reconstruction - x).square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_evaluation_computes_what_training_computes(model, inputs, seeded):
    x, context = inputs(model)
    train = model.train()(x, context, generator=seeded(1))
    evaluation = model.eval()(x, context, generator=seeded(1))
    assert torch.equal(train.reconstruction, evaluation.reconstruction)
    assert torch.equal(train.kl, evaluation.kl)


def test_generator_determines_the_draws_and_spares_the_global_one(model, inputs, seeded):
    x, context = inputs(model)
    state = torch.get_rng_state()
    draws = [
        (
            model(x, context, generator=seeded(seed)).latents,
            model.sample(3, context, generator=seeded(seed)),
            model.posterior(x, context).sample(seeded(seed)),
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    for same, again, other in zip(*draws, strict=True):
        assert torch.equal(same, again)
        assert not torch.equal(same, other)


def test_global_generator_is_the_default(model, inputs):
    x, context = inputs(model)
    torch.manual_seed(5)
    first = model(x, context).latents
    second = model(x, context).latents
    torch.manual_seed(5)
    assert torch.equal(model(x, context).latents, first)
    assert not torch.equal(first, second)


def test_sample_is_a_batch_of_data_without_gradient(model, inputs):
    _, context = inputs(model, batch=5)
    samples = model.sample(5, context)
    assert samples.shape == (5, *model.shape)
    assert not samples.requires_grad
    assert torch.isfinite(samples).all()


def test_one_context_serves_all_samples(model, inputs, seeded):
    if model.context_shape is None:
        pytest.skip("this family is unconditional")
    _, context = inputs(model, batch=1)
    one = model.sample(4, context, generator=seeded(0))
    many = model.sample(4, context.expand(4, *model.context_shape), generator=seeded(0))
    torch.testing.assert_close(one, many)


def test_context_changes_the_samples(model, inputs, seeded):
    if model.context_shape is None:
        pytest.skip("this family is unconditional")
    _, context = inputs(model, batch=4)
    kept = model.sample(4, context, generator=seeded(0))
    shuffled = model.sample(4, context.roll(1, 0), generator=seeded(0))
    assert ((kept - shuffled).flatten(1).abs().amax(1) > 1e-6).all()


def test_densities_agree_with_the_kl(model, inputs):
    x, context = inputs(model)
    draws = 2000
    rows = x.repeat_interleave(draws, 0)
    contexts = None if context is None else context.repeat_interleave(draws, 0)
    with torch.no_grad():
        out = model(rows, contexts)
        z = model.posterior(rows, contexts).sample()
        posterior = model.posterior(rows, contexts)
        log_ratio = posterior.log_prob(z) - model.prior_log_prob(z, contexts)
    estimate, kl = log_ratio.view(3, draws), out.kl.view(3, draws)
    error = (estimate.var(1) / draws + kl.var(1) / draws).sqrt()
    assert ((estimate.mean(1) - kl.mean(1)).abs() < 5 * error + 1e-4).all()


def test_configuration_survives_json_and_builds_the_same_model(model):
    config = json.loads(json.dumps(model.config))
    assert config == model.config
    twin = type(model)(**config)
    assert twin.config == model.config
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert {name: p.shape for name, p in twin.named_parameters()} == shapes


def test_round_trip_through_a_file(model, inputs, seeded, tmp_path):
    model.save(tmp_path / "model.pt")
    state = torch.get_rng_state()
    for loaded in (load(tmp_path / "model.pt"), type(model).load(tmp_path / "model.pt")):
        assert type(loaded) is type(model)
        assert loaded.config == model.config
        x, context = inputs(model)
        before = model(x, context, generator=seeded(1))
        after = loaded(x, context, generator=seeded(1))
        assert torch.equal(before.reconstruction, after.reconstruction)
        assert torch.equal(before.kl, after.kl)
        assert all(p.requires_grad for p in loaded.parameters())
        torch.set_rng_state(state)


def test_repr_states_the_configuration(model):
    text = repr(model)
    assert text.startswith(type(model).__name__)
    for key in model.config:
        assert f"{key}=" in text
    assert "parameters=" in text


def test_is_built_on_the_meta_device(model):
    with torch.device("meta"):
        twin = type(model)(**model.config)
    on = {name: p.device.type for name, p in [*twin.named_parameters(), *twin.named_buffers()]}
    assert set(on.values()) == {"meta"}, on


def test_forward_and_sample_read_no_value_on_the_host(model, inputs):
    x, context = inputs(model)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # a host read raises here
        fake = mode.from_tensor(x)
        rows = None if context is None else mode.from_tensor(context)
        assert model(fake, rows).kl.shape == (3,)
        assert model.sample(3, rows).shape == x.shape
        z = model.posterior(fake, rows).sample()
        assert model.prior_log_prob(z, rows).shape == (3,)


def check_compiled(model, inputs, backend):
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for batch in (3, 4):  # the second size makes the batch symbolic
        x, context = inputs(model, batch)
        torch.manual_seed(0)
        expected = model(x, context)
        torch.manual_seed(0)
        out = compiled(x, context)
        torch.testing.assert_close(out.reconstruction, expected.reconstruction)
        torch.testing.assert_close(out.kl, expected.kl)
        out.kl.sum().backward()


def test_compiles_to_one_graph(compiled_model, inputs):
    check_compiled(compiled_model, inputs, "eager")


@pytest.mark.slow
def test_compiles_to_one_graph_with_its_backward_pass(compiled_model, inputs):
    check_compiled(compiled_model, inputs, "aot_eager")


def test_sampling_compiles_to_one_graph(compiled_model, inputs):
    _, context = inputs(compiled_model)
    compiled = torch.compile(compiled_model.sample, fullgraph=True, backend="eager")
    assert compiled(3, context).shape == (3, *compiled_model.shape)


def test_bfloat16_autocast_keeps_the_kl_in_float32(model, inputs):
    x, context = inputs(model)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, context)
        samples = model.sample(3, context)
    assert out.kl.dtype == torch.float32
    (out.kl.sum() + out.reconstruction.float().sum()).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    assert torch.isfinite(samples).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_whole_model_in_another_type(model, inputs, dtype, tmp_path):
    model.to(dtype)
    x, context = inputs(model)
    out = model(x, context)
    assert out.reconstruction.dtype == dtype
    assert out.kl.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(out.kl).all()
    assert model.sample(3, context).dtype == dtype
    model.save(tmp_path / "model.pt")
    assert load(tmp_path / "model.pt").reference().dtype == dtype


def test_channels_last_changes_nothing(model, inputs, seeded):
    if len(model.shape) != 3:
        pytest.skip("this family has no planes here")
    x, context = inputs(model)
    expected = model(x, context, generator=seeded(0))
    model.to(memory_format=torch.channels_last)
    out = model(x.to(memory_format=torch.channels_last), context, generator=seeded(0))
    torch.testing.assert_close(out.reconstruction, expected.reconstruction, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.kl, expected.kl, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 1e8])
def test_finite_at_extreme_inputs(model, inputs, value):
    x, context = inputs(model)
    out = model(torch.full_like(x, value), context)
    (out.kl.sum() + out.reconstruction.sum()).backward()
    assert torch.isfinite(out.kl).all()
    assert torch.isfinite(out.reconstruction).all()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_wrong_data_is_refused_in_one_sentence(model, inputs):
    x, context = inputs(model)
    bad = [
        (x[:, :0], ValueError, "`x` must be"),
        (x[0], ValueError, "`x` must be"),
        (torch.cat([x, x], 1), ValueError, "`x` must be"),
        ((255 * x).to(torch.uint8), TypeError, "`x` must be floating point, got torch.uint8"),
        (x.numpy(), TypeError, "`x` must be a torch.Tensor, got ndarray"),
    ]
    for value, error, message in bad:
        for call in (model, model.posterior):
            with pytest.raises(error, match=message) as caught:
                call(value, context)
            assert "\n" not in str(caught.value)


def test_wrong_context_is_refused(model, inputs):
    x, context = inputs(model)
    z = model(x, context).latents
    if model.context_shape is None:
        extra = torch.rand(3, 2)
        with pytest.raises(ValueError, match=r"`context` was given, but this .* unconditional"):
            model(x, extra)
        with pytest.raises(ValueError, match="`context` was given"):
            model.sample(3, extra)
        return
    calls = [
        lambda c: model(x, c),
        lambda c: model.posterior(x, c),
        lambda c: model.sample(3, c),
        lambda c: model.prior_log_prob(z, c),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="`context` is missing"):
            call(None)
        with pytest.raises(ValueError, match="`context` must be"):
            call(context[..., :1])
        with pytest.raises(ValueError, match="`context` must have 3 rows"):
            call(context[:2])
        with pytest.raises(TypeError, match="`context` must be floating point"):
            call(context.long())


def test_wrong_number_of_samples_is_refused(model, inputs):
    _, context = inputs(model)
    for n in (0, -2):
        with pytest.raises(ValueError, match=f"`n` must be at least 1, got {n}"):
            model.sample(n, context)
    for n in (1.5, True, "3"):
        with pytest.raises(TypeError, match="`n` must be an integer"):
            model.sample(n, context)


def test_weights_of_another_configuration_are_refused(model):
    state = model.state_dict()
    name = next(iter(state))
    wrong_size = {**state, name: torch.zeros(7, 7, 7)}
    with pytest.raises(ValueError, match=f"another configuration: {name} is") as caught:
        model.load_state_dict(wrong_size)
    assert "\n" not in str(caught.value)
    lacking = {key: value for key, value in state.items() if key != name}
    with pytest.raises(ValueError, match=f"{name} is only in this"):
        model.load_state_dict(lacking)
    with pytest.raises(ValueError, match="extra is only in it"):
        model.load_state_dict({**state, "extra": torch.zeros(1)})
