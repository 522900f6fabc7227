"""Training a classifier: it learns, it repeats itself, it refuses what makes no sense."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geco_models import SmallCNN, SmallResNet, accuracy, train_classifier
from geco_models.classifiers.training import _augmented


@pytest.fixture
def stripes():
    """Images of horizontal or vertical stripes under noise, as 8-bit integers."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(2, (400,), generator=generator)
    rows = (torch.arange(12) // 2 % 2).float()
    clean = torch.where(labels[:, None, None] == 0, rows[:, None], rows[None, :])
    noisy = clean + 0.5 * torch.randn(400, 12, 12, generator=generator)
    return (255 * noisy.clamp(0, 1)).to(torch.uint8)[:, None], labels


@pytest.mark.parametrize("family", [SmallCNN, SmallResNet])
def test_learns_what_can_be_learned(family, stripes, seeded):
    images, labels = stripes
    model = family((1, 12, 12), 2, 4)
    before = accuracy(model, images[300:], labels[300:])
    history = train_classifier(
        model, images[:300], labels[:300], epochs=6, batch_size=32, generator=seeded(0)
    )
    assert len(history) == 6
    assert history[-1] < 0.5 * history[0]
    assert accuracy(model, images[300:], labels[300:]) > max(0.95, before)
    assert not model.training


def test_generator_determines_the_result_and_spares_the_global_one(stripes, seeded):
    images, labels = stripes
    first = SmallCNN((1, 12, 12), 2, 4)
    start = {name: value.clone() for name, value in first.state_dict().items()}
    results = []
    state = torch.get_rng_state()
    for seed in (1, 1, 2):
        first.load_state_dict(start)
        history = train_classifier(
            first, images, labels, epochs=1, padding=2, flip=True, generator=seeded(seed)
        )
        results.append((history, first.layers.logits.weight.clone()))
    assert torch.equal(torch.get_rng_state(), state)
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][1], results[2][1])


def test_progress_is_told_each_epoch(stripes, capsys):
    images, labels = stripes
    told = []
    model = SmallCNN((1, 12, 12), 2, 4)
    history = train_classifier(
        model, images, labels, epochs=2, progress=lambda *now: told.append(now)
    )
    assert told == [(1, history[0]), (2, history[1])]
    assert capsys.readouterr().out == ""


def test_accuracy_counts_the_right_answers():
    images = torch.eye(4).view(4, 1, 2, 2)
    labels = torch.tensor([0, 1, 2, 0])
    assert accuracy(torch.nn.Flatten(), images, labels, batch_size=3) == 0.75


def test_shifts_and_mirrors_keep_the_pixels_together(seeded):
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)
    assert torch.equal(_augmented(x, 0, False, None), x)
    mirrored = _augmented(x.repeat(50, 1, 1, 1), 0, True, seeded(0))
    flips = (mirrored == x.repeat(50, 1, 1, 1).flip(3)).flatten(1).all(1)
    same = (mirrored == x.repeat(50, 1, 1, 1)).flatten(1).all(1)
    assert (flips ^ same).all()
    assert 25 < flips.sum() < 75
    shifted = _augmented(x.repeat(50, 1, 1, 1), 1, False, seeded(0))
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    windows = [padded[:, :, i : i + 4, j : j + 5] for i in range(3) for j in range(3)]
    found = set()
    for index, row in enumerate(shifted):
        hits = [k for k, w in enumerate(windows) if torch.equal(w[index % 2], row)]
        assert len(hits) == 1
        found.update(hits)
    assert found == set(range(9))


def test_what_makes_no_sense_is_refused(stripes):
    images, labels = stripes
    model = SmallCNN((1, 12, 12), 2, 4)
    cases = [
        ((images[:0], labels[:0]), {}, ValueError, "`images` must hold at least one"),
        ((images, labels[:9]), {}, ValueError, r"`labels` must be \(400,\), one per image"),
        ((images, labels.float()), {}, TypeError, "`labels` must be integers"),
        ((images, labels), {"epochs": 0}, ValueError, "`epochs` must be at least 1"),
        ((images, labels), {"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        ((images, labels), {"padding": -1}, ValueError, "`padding` must be at least 0"),
    ]
    for arguments, options, error, message in cases:
        with pytest.raises(error, match=message):
            train_classifier(model, *arguments, **{"epochs": 1, **options})
        if not options:
            with pytest.raises(error, match=message):
                accuracy(model, *arguments)


@pytest.mark.slow
def test_mnist_classifier_reaches_its_accuracy(seeded):
    """98.5% of the 10,000 test digits after one pass over the training set."""
    home = os.environ.get("GECO_DATA_HOME")
    if not home or not (Path(home) / "MNIST/raw").is_dir():
        pytest.skip("GECO_DATA_HOME names no folder with MNIST/raw")

    def read(name):
        with gzip.open(Path(home) / "MNIST/raw" / f"{name}.gz") as file:
            content = file.read()
        shape = np.frombuffer(content, ">i4", content[3], 4)
        array = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
        return torch.from_numpy(array.copy())

    images, labels = read("train-images-idx3-ubyte")[:, None], read("train-labels-idx1-ubyte")
    model = SmallCNN((1, 28, 28))
    train_classifier(model, images, labels, epochs=1, padding=2, generator=seeded(0))
    tests = read("t10k-images-idx3-ubyte")[:, None], read("t10k-labels-idx1-ubyte")
    assert accuracy(model, *tests) >= 0.985
