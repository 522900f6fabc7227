"""What every family promises, checked for each of them; the family's name is in the test's id."""

import json

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from geco_models import NVPVAE, ModelOutput, load


def surprise(out, x):
    """What reaches the parameters of a decoder's distribution."""
    return 0.0 if out.distribution is None else -out.distribution.log_prob(x).sum()


def test_output_has_the_promised_shapes(model, inputs, asked):
    x, context = inputs(model)
    out = model(x, context, **asked(model))
    assert isinstance(out, ModelOutput)
    assert out.reconstruction.shape == x.shape
    assert out.kl.shape == (3,)
    assert out.latents.shape[0] == 3
    for value in (out.reconstruction, out.kl, out.latents):
        assert torch.isfinite(value).all()


def test_gradient_reaches_every_parameter(model, inputs, asked):
    x, context = inputs(model)
    out = model(x, context, **asked(model))
    (out.kl.sum() + (out.reconstruction - x).square().sum() + surprise(out, x)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_evaluation_computes_what_training_computes(model, inputs, seeded, asked):
    x, context = inputs(model)
    train = model.train()(x, context, **asked(model), generator=seeded(1))
    evaluation = model.eval()(x, context, **asked(model), generator=seeded(1))
    assert torch.equal(train.reconstruction, evaluation.reconstruction)
    assert torch.equal(train.kl, evaluation.kl)


def test_generator_determines_the_draws_and_spares_the_global_one(model, inputs, seeded, asked):
    x, context = inputs(model)
    state = torch.get_rng_state()
    draws = [
        (
            model(x, context, **asked(model), generator=seeded(seed)).latents,
            model.sample(3, context, **asked(model), generator=seeded(seed)),
            model.posterior(x, context, **asked(model)).sample(seeded(seed)),
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    for same, again, other in zip(*draws, strict=True):
        assert torch.equal(same, again)
        assert not torch.equal(same, other)


def test_global_generator_is_the_default(model, inputs, asked):
    x, context = inputs(model)
    torch.manual_seed(5)
    first = model(x, context, **asked(model)).latents
    second = model(x, context, **asked(model)).latents
    torch.manual_seed(5)
    assert torch.equal(model(x, context, **asked(model)).latents, first)
    assert not torch.equal(first, second)


def test_sample_is_a_batch_of_data_without_gradient(model, inputs, asked):
    _, context = inputs(model, batch=5)
    samples = model.sample(5, context, **asked(model))
    assert samples.shape == (5, *model.shape)
    assert not samples.requires_grad
    assert torch.isfinite(samples).all()


def test_one_context_serves_all_samples(model, inputs, seeded, asked):
    if model.context_shape is None:
        pytest.skip("this family is unconditional")
    _, context = inputs(model, batch=1)
    one = model.sample(4, context, **asked(model), generator=seeded(0))
    many = model.sample(
        4, context.expand(4, *model.context_shape), **asked(model), generator=seeded(0)
    )
    torch.testing.assert_close(one, many)


def test_context_changes_the_samples(model, inputs, seeded, asked):
    if model.context_shape is None:
        pytest.skip("this family is unconditional")
    _, context = inputs(model, batch=4)
    kept = model.sample(4, context, **asked(model), generator=seeded(0))
    shuffled = model.sample(4, context.roll(1, 0), **asked(model), generator=seeded(0))
    assert ((kept - shuffled).flatten(1).abs().amax(1) > 1e-6).all()


def test_densities_agree_with_the_kl(model, inputs, asked):
    x, context = inputs(model)
    draws = 2000
    rows = x.repeat_interleave(draws, 0)
    contexts = None if context is None else context.repeat_interleave(draws, 0)
    with torch.no_grad():
        out = model(rows, contexts, **asked(model))
        z = model.posterior(rows, contexts, **asked(model)).sample()
        posterior = model.posterior(rows, contexts, **asked(model))
        log_ratio = posterior.log_prob(z) - model.prior_log_prob(z, contexts, **asked(model))
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


def test_round_trip_through_a_file(model, inputs, seeded, tmp_path, asked):
    model.save(tmp_path / "model.pt")
    state = torch.get_rng_state()
    for loaded in (load(tmp_path / "model.pt"), type(model).load(tmp_path / "model.pt")):
        assert type(loaded) is type(model)
        assert loaded.config == model.config
        x, context = inputs(model)
        before = model(x, context, **asked(model), generator=seeded(1))
        after = loaded(x, context, **asked(model), generator=seeded(1))
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


def test_forward_and_sample_read_no_value_on_the_host(model, inputs, asked):
    x, context = inputs(model)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # a host read raises here
        fake = mode.from_tensor(x)
        rows = None if context is None else mode.from_tensor(context)
        assert model(fake, rows, **asked(model)).kl.shape == (3,)
        assert model.sample(3, rows, **asked(model)).shape == x.shape
        z = model.posterior(fake, rows, **asked(model)).sample()
        assert model.prior_log_prob(z, rows, **asked(model)).shape == (3,)


def check_compiled(model, inputs, backend, asked):
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for batch in (3, 4):  # the second size makes the batch symbolic
        x, context = inputs(model, batch)
        torch.manual_seed(0)
        expected = model(x, context, **asked(model))
        torch.manual_seed(0)
        out = compiled(x, context, **asked(model))
        torch.testing.assert_close(out.reconstruction, expected.reconstruction)
        torch.testing.assert_close(out.kl, expected.kl)
        out.kl.sum().backward()


def test_compiles_to_one_graph(compiled_model, inputs, asked):
    check_compiled(compiled_model, inputs, "eager", asked)


@pytest.mark.slow
def test_compiles_to_one_graph_with_its_backward_pass(compiled_model, inputs, asked):
    check_compiled(compiled_model, inputs, "aot_eager", asked)


def test_sampling_compiles_to_one_graph(compiled_model, inputs, asked):
    _, context = inputs(compiled_model)
    compiled = torch.compile(compiled_model.sample, fullgraph=True, backend="eager")
    assert compiled(3, context, **asked(compiled_model)).shape == (3, *compiled_model.shape)


def test_bfloat16_autocast_keeps_the_kl_in_float32(model, inputs, asked):
    x, context = inputs(model)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, context, **asked(model))
        samples = model.sample(3, context, **asked(model))
    assert out.kl.dtype == torch.float32
    (out.kl.sum() + out.reconstruction.float().sum() + surprise(out, x)).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    assert torch.isfinite(samples).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_whole_model_in_another_type(model, inputs, dtype, tmp_path, asked):
    model.to(dtype)
    x, context = inputs(model)
    out = model(x, context, **asked(model))
    assert out.reconstruction.dtype == dtype
    assert out.kl.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(out.kl).all()
    assert model.sample(3, context, **asked(model)).dtype == dtype
    model.save(tmp_path / "model.pt")
    assert load(tmp_path / "model.pt").reference().dtype == dtype


def test_channels_last_changes_nothing(model, inputs, seeded, asked):
    if len(model.shape) != 3:
        pytest.skip("this family has no planes here")
    x, context = inputs(model)
    expected = model(x, context, **asked(model), generator=seeded(0))
    model.to(memory_format=torch.channels_last)
    out = model(
        x.to(memory_format=torch.channels_last), context, **asked(model), generator=seeded(0)
    )
    torch.testing.assert_close(out.reconstruction, expected.reconstruction, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.kl, expected.kl, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 1e8])
def test_finite_at_extreme_inputs(model, inputs, value, asked):
    x, context = inputs(model)
    x = torch.full_like(x, value)
    out = model(x, context, **asked(model))
    (out.kl.sum() + out.reconstruction.sum() + surprise(out, x)).backward()
    assert torch.isfinite(out.kl).all()
    assert torch.isfinite(out.reconstruction).all()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_wrong_data_is_refused_in_one_sentence(model, inputs, asked):
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
                call(value, context, **asked(model))
            assert "\n" not in str(caught.value)


def test_wrong_context_is_refused(model, inputs, asked):
    x, context = inputs(model)
    z = model(x, context, **asked(model)).latents
    if model.context_shape is None:
        extra = torch.rand(3, 2)
        with pytest.raises(ValueError, match=r"`context` was given, but this .* unconditional"):
            model(x, extra, **asked(model))
        with pytest.raises(ValueError, match="`context` was given"):
            model.sample(3, extra, **asked(model))
        return
    calls = [
        lambda c: model(x, c, **asked(model)),
        lambda c: model.posterior(x, c, **asked(model)),
        lambda c: model.sample(3, c, **asked(model)),
        lambda c: model.prior_log_prob(z, c, **asked(model)),
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


def test_kl_splits_over_dimensions_where_it_can(model, inputs, asked):
    x, context = inputs(model)
    out = model(x, context, **asked(model))
    if isinstance(model, NVPVAE):  # a flow couples its dimensions
        assert out.kl_per_dimension is None
        with pytest.raises(ValueError, match="does not split over latent dimensions"):
            out.active_units()
        return
    assert out.kl_per_dimension.shape == out.latents.shape
    assert (out.kl_per_dimension >= 0).all()
    torch.testing.assert_close(out.kl_per_dimension.flatten(1).sum(1), out.kl)
    mean = out.kl_per_dimension.mean(0)
    units = out.active_units(mean.median().item())
    assert units.shape == out.latents.shape[1:]
    assert torch.equal(units, mean > mean.median())


def test_steps_sum_to_the_kl(model, inputs, asked):
    x, context = inputs(model)
    out = model(x, context, **asked(model))
    if out.kl_steps is None:
        pytest.skip("this family has one stochastic layer")
    torch.testing.assert_close(out.kl_steps.sum(1), out.kl)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_data_of_another_type_are_cast(model, inputs, asked, seeded, dtype):
    x, context = inputs(model)
    x, context = x.to(dtype), None if context is None else context.to(dtype)
    out = model(x, context, **asked(model), generator=seeded(0))
    rows = None if context is None else context.float()
    same = model(x.float(), rows, **asked(model), generator=seeded(0))
    assert out.reconstruction.dtype == torch.float32
    assert torch.equal(out.reconstruction, same.reconstruction)
    assert torch.equal(out.kl, same.kl)
    log_prob = model.posterior(x, context, **asked(model)).log_prob(out.latents)
    expected = model.posterior(x.float(), rows, **asked(model)).log_prob(out.latents)
    assert torch.equal(log_prob, expected)
    assert model.sample(3, context, **asked(model)).dtype == torch.float32


def test_distribution_is_that_of_the_reconstruction(model, inputs, asked):
    x, context = inputs(model)
    out = model(x, context, **asked(model))
    if model.likelihood is None:
        assert out.distribution is None
        return
    assert out.distribution.event_shape == model.shape
    torch.testing.assert_close(out.distribution.mean, out.reconstruction)
    log_prob = out.distribution.log_prob(x)
    assert log_prob.shape == (3,)
    assert torch.isfinite(log_prob).all()
    (out.kl - log_prob).sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_wrong_tolerance_is_refused_in_one_sentence(model, inputs, asked):
    x, context = inputs(model)
    z = model(x, context, **asked(model)).latents
    calls = [
        lambda **k: model(x, context, **k),
        lambda **k: model.posterior(x, context, **k),
        lambda **k: model.sample(3, context, **k),
        lambda **k: model.prior_log_prob(z, context, **k),
        lambda **k: model.decode(z, context, **k),
    ]
    if model.tolerance is None:
        bad = [({"kappa": 0.1}, ValueError, "`kappa` was given, but this .* has no `tolerance`")]
    else:
        bad = [
            ({}, ValueError, "`kappa` is missing: this .* needs a number"),
            ({"kappa": 0.01}, ValueError, r"`kappa` must be in \[0.05, 0.2\].*got 0.01"),
            ({"kappa": float("nan")}, ValueError, "`kappa` must be finite, got nan"),
            ({"kappa": torch.tensor([0.1, 0.3, 0.1])}, ValueError, "`kappa` must be in .* 0.3"),
            ({"kappa": torch.full((3,), float("nan"))}, ValueError, "`kappa` must be in .* nan"),
            ({"kappa": torch.full((2,), 0.1)}, ValueError, r"`kappa` .* \(3,\), one per example"),
            ({"kappa": torch.full((3, 1), 0.1)}, ValueError, r"one per example, got \(3, 1\)"),
            ({"kappa": torch.tensor([1, 1, 1])}, TypeError, "`kappa` must be a number or float"),
            ({"kappa": "tight"}, TypeError, "`kappa` must be a number, got 'tight'"),
            ({"kappa": True}, TypeError, "`kappa` must be a number, got True"),
            ({"kappa": [0.1, 0.1, 0.1]}, TypeError, "`kappa` must be a number, got .0.1"),
            ({"kappa": np.full(3, 0.1)}, TypeError, "`kappa` must be a number, got array"),
        ]
    for call in calls:
        for keywords, error, message in bad:
            with pytest.raises(error, match=message) as caught:
                call(**keywords)
            assert "\n" not in str(caught.value)


def test_tolerance_may_be_a_number_or_one_for_each_example(model, inputs, seeded):
    if model.tolerance is None:
        pytest.skip("this family has no tolerance")
    x, context = inputs(model)
    many = torch.tensor([0.05, 0.1, 0.2])
    out = model(x, context, generator=seeded(0), kappa=many)
    for index, kappa in enumerate(many.tolist()):
        one = model(x, context, generator=seeded(0), kappa=kappa)
        torch.testing.assert_close(out.reconstruction[index], one.reconstruction[index])
        torch.testing.assert_close(out.kl[index], one.kl[index])
    whole = model(x, context, generator=seeded(0), kappa=torch.tensor(0.1))
    torch.testing.assert_close(whole.kl[1], out.kl[1])
    assert not torch.allclose(whole.reconstruction[0], out.reconstruction[0], atol=1e-5)
    assert not torch.allclose(whole.kl[0], out.kl[0], atol=1e-5)


def test_a_fresh_model_with_a_tolerance_is_the_plain_one(model, inputs, seeded, asked):
    if model.tolerance is None:
        pytest.skip("this family has no tolerance")
    x, context = inputs(model)
    fresh = type(model)(**model.config)
    plain = type(model)(**{k: v for k, v in model.config.items() if k != "tolerance"})
    own = plain.state_dict()
    with torch.no_grad():  # the same weights; a flow's layer that also reads kappa is wider
        for name, value in fresh.state_dict().items():
            if name in own:
                wide = value.shape != own[name].shape
                own[name].copy_(value[:, : own[name].shape[1]] if wide else value)
    for kappa in (0.05, 0.07, 0.2):
        out = fresh(x, context, generator=seeded(0), kappa=kappa)
        expected = plain(x, context, generator=seeded(0))
        torch.testing.assert_close(out.reconstruction, expected.reconstruction)
        torch.testing.assert_close(out.kl, expected.kl)
        torch.testing.assert_close(
            fresh.sample(3, context, generator=seeded(0), kappa=kappa),
            plain.sample(3, context, generator=seeded(0)),
        )
