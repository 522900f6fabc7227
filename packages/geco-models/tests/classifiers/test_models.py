"""The classifiers: features by name, frozen use, independence of the batch, files."""

import pytest
import torch
from torch import nn

from geco_models import AbstractClassifier, FeatureExtractor, SmallCNN, SmallResNet

FAMILIES = {
    "cnn": lambda: SmallCNN((1, 12, 10), 4, width=4),
    "cnn-odd": lambda: SmallCNN((3, 17, 9), 5, width=3),
    "resnet": lambda: SmallResNet((3, 12, 12), 4, width=4, blocks=2),
    "resnet-odd": lambda: SmallResNet((1, 13, 7), 3, width=8, blocks=1),
}


@pytest.fixture(params=FAMILIES, ids=list(FAMILIES))
def classifier(request):
    return FAMILIES[request.param]()


def images(classifier, batch=3):
    return torch.rand(batch, *classifier.shape)


def test_logits_have_one_column_per_class(classifier):
    assert classifier(images(classifier)).shape == (3, classifier.config["classes"])


def test_features_are_the_activations_of_that_layer(classifier):
    x = images(classifier)
    seen = {}
    for name, module in classifier.layers.named_children():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    logits = classifier(x)
    expected = dict(seen)
    assert tuple(expected) == classifier.layer_names
    assert torch.equal(expected["logits"], logits)
    for name in classifier.layer_names:
        assert torch.equal(classifier.features(x, name), expected[name])
    order = (classifier.layer_names[2], classifier.layer_names[0])
    several = classifier.features(x, order)
    assert all(torch.equal(a, expected[name]) for a, name in zip(several, order, strict=True))


def test_later_layers_are_not_computed(classifier, monkeypatch):
    def fail(*_):
        raise AssertionError("a layer after the last wanted one was run")

    monkeypatch.setattr(classifier.layers.logits, "forward", fail)
    classifier.features(images(classifier), classifier.layer_names[:2])


def test_an_image_is_classified_independently_of_its_batch(classifier):
    classifier.double()
    x = images(classifier, 4).double()
    whole = classifier.train()(x)
    alone = torch.cat([classifier.eval()(row[None]) for row in x])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)


def test_extractor_is_frozen_and_passes_the_gradient_to_the_image(classifier):
    layer = classifier.layer_names[1]
    features = FeatureExtractor(classifier, layer)
    holder = nn.Sequential(features).train()
    assert not any(module.training for module in classifier.modules())
    x = images(classifier).requires_grad_()
    out = holder(x)
    assert torch.equal(out, classifier.features(x, layer))
    out.square().sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()
    assert all(p.grad is None and not p.requires_grad for p in classifier.parameters())
    several = FeatureExtractor(classifier, [layer, "logits"])(x)
    assert len(several) == 2


def test_gradient_reaches_every_parameter(classifier):
    nn.functional.cross_entropy(classifier(images(classifier)), torch.tensor([0, 1, 2])).backward()
    for name, parameter in classifier.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_compiles_to_one_graph(classifier):
    torch.compiler.reset()
    x = images(classifier)
    extractor = FeatureExtractor(classifier, classifier.layer_names[1])
    compiled = torch.compile(extractor, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), extractor(x))


def test_bfloat16_and_channels_last(classifier):
    x = images(classifier)
    expected = classifier(x)
    with torch.autocast("cpu", torch.bfloat16):
        close = classifier(x)
    torch.testing.assert_close(close.float(), expected, atol=0.1, rtol=0.1)
    classifier.to(memory_format=torch.channels_last)
    out = classifier(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_round_trip_through_a_file(classifier, tmp_path):
    path = tmp_path / "classifier.pt"
    classifier.save(path)
    loaded = type(classifier).load(path)
    x = images(classifier)
    assert torch.equal(loaded(x), classifier(x))
    assert loaded.config == classifier.config
    other = SmallResNet if isinstance(classifier, SmallCNN) else SmallCNN
    with pytest.raises(ValueError, match=f"holds a {type(classifier).__name__}, not a"):
        other.load(path)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "config": {**content["config"], "width": 16}}, path)
    with pytest.raises(ValueError, match=r"configuration and the weights .* do not fit") as caught:
        type(classifier).load(path)
    assert "\n" not in str(caught.value)


def test_repr_states_the_configuration(classifier):
    assert all(f"{key}=" in repr(classifier) for key in classifier.config)


def test_bad_input_is_refused_in_one_sentence(classifier):
    x = images(classifier)
    bad = [
        ((255 * x).to(torch.uint8), TypeError, "`x` must be floating point, got torch.uint8"),
        (x.numpy(), TypeError, "`x` must be a torch.Tensor, got ndarray"),
        (x[0], ValueError, "`x` must be"),
        (x[..., 1:], ValueError, "`x` must be"),
        (torch.cat([x, x], 1), ValueError, "`x` must be"),
    ]
    for value, error, message in bad:
        with pytest.raises(error, match=message):
            classifier(value)
    for layer in ("stage9", [], ["logits", "nowhere"]):
        with pytest.raises(ValueError, match="`layer` must be one or several of"):
            classifier.features(x, layer)
        with pytest.raises(ValueError, match="`layer` must be one or several of"):
            FeatureExtractor(classifier, layer)
    with pytest.raises(TypeError, match="`model` must be a SmallCNN or SmallResNet, got Linear"):
        FeatureExtractor(nn.Linear(2, 2), "logits")


@pytest.mark.parametrize("family", [SmallCNN, SmallResNet])
def test_wrong_sizes_are_refused(family):
    assert issubclass(family, AbstractClassifier)
    for arguments, message in [
        (((1, 28),), "`shape` must have 3 dimensions"),
        (((1, 3, 28),), "`shape` must have sides of at least 4"),
        (((1, 28, 28), 1), "`classes` must be at least 2"),
        (((1, 28, 28), 10, 0), "`width` must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            family(*arguments)
