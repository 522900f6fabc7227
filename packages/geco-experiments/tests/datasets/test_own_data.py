"""Somebody's own files and folders as datasets."""

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from geco_experiments import datasets
from geco_experiments.config import DatasetConfig, RunConfig
from geco_experiments.runtime.errors import DataError, MissingDataError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def load(home):
    def load(path, **fields):
        return datasets.load(DatasetConfig(name=str(path), **fields), home)

    return load


@pytest.fixture
def pictures(tmp_path, rng):
    """Writes a folder of random pictures; returns the folder and what is in them."""

    def write(*names, size=(9, 8), mode="RGB"):
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        arrays = []
        for name in names:
            array = rng.integers(0, 256, shape, dtype=np.uint8)
            path = tmp_path / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array, mode=None).save(path)
            arrays.append(array)
        return tmp_path / "pictures", np.stack(arrays)

    return write


def test_a_folder_of_pictures(load, pictures):
    folder, arrays = pictures(*(f"{i:02d}.png" for i in range(20)))
    (folder / "notes.txt").write_text("no picture")
    data = load(folder, test_share=0.25)
    assert (len(data.train), len(data.test), data.shape) == (15, 5, (3, 8, 9))
    stored = torch.cat([data.train.images, data.test.images]).numpy()
    expected = arrays.transpose(0, 3, 1, 2)
    assert sorted(a.tobytes() for a in stored) == sorted(a.tobytes() for a in expected)
    again = load(folder, test_share=0.25)
    assert torch.equal(again.test.images, data.test.images)
    other = load(folder, test_share=0.25, split_seed=1)
    assert not torch.equal(other.test.images, data.test.images)
    assert other.fingerprint() != data.fingerprint()


def test_folders_for_both_parts_and_for_classes(load, pictures):
    names = [f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(3)]
    folder, _ = pictures(*names, "test/cat/9.png", "test/dog/9.png", mode="L")
    data = load(folder)
    assert data.shape == (1, 8, 9)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert data.classes == 2


def test_pictures_that_differ_or_are_damaged_are_named(load, pictures, tmp_path):
    folder, _ = pictures("a.png", "b.png")
    Image.new("RGB", (4, 4)).save(folder / "c.png")
    with pytest.raises(
        DataError, match=r"a\.png is colour, 9 x 8 pixels and .*c\.png is colour, 4"
    ):
        load(folder)
    Image.new("L", (9, 8)).save(folder / "c.png")
    with pytest.raises(DataError, match=r"c\.png is grey"):
        load(folder)
    (folder / "c.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(DataError, match=r"c\.png cannot be read"):
        load(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no picture that ends with"):
        load(tmp_path / "empty")


@pytest.mark.parametrize(
    ("shape", "kind", "seen"),
    [
        ((12, 5), "f8", (5,)),
        ((12, 5), "u1", (5,)),
        ((12, 2, 6), "f4", (2, 6)),
        ((12, 6, 6), "f4", (1, 6, 6)),
        ((12, 6, 5), "u1", (1, 6, 5)),
        ((12, 6, 5, 3), "u1", (3, 6, 5)),
        ((12, 3, 6, 5), "u1", (3, 6, 5)),
        ((12, 2, 3, 4, 5), "i2", (2, 3, 4, 5)),
        ((12, 4), "?", (4,)),
    ],
)
def test_arrays_of_every_shape(load, tmp_path, rng, shape, kind, seen):
    array = (200 * rng.random(shape)).astype(kind)
    np.save(tmp_path / "mine.npy", array)
    data = load(tmp_path / "mine.npy")
    assert data.shape == seen
    batch = data.batch("train", torch.arange(len(data.train))).images
    assert batch.dtype == torch.float32
    assert batch.min() >= 0
    assert batch.max() <= 1 + 1e-6
    assert len(data.train) + len(data.test) == 12


def test_the_range_of_the_values_is_known_and_can_be_given(load, tmp_path, rng):
    array = rng.normal(3, 10, (40, 4))
    np.save(tmp_path / "mine.npy", array)
    data = load(tmp_path / "mine.npy")
    batch = data.batch("train", torch.arange(36)).images.numpy()
    back = np.sort((batch / data.scale + data.offset).ravel())
    rows = np.stack([np.sort(row) for row in array])
    assert all(np.isclose(rows, value, atol=1e-4).any() for value in back[::7])
    assert (batch.min(), batch.max()) == pytest.approx((0, 1))
    given = load(tmp_path / "mine.npy", low=0.0, high=1.0)
    assert (given.offset, given.scale) == (0, 1)


def test_labels_context_and_masks_by_name(load, tmp_path, rng):
    x = rng.random((20, 6)).astype("f4")
    np.savez(
        tmp_path / "mine.npz",
        signals=x, kind=np.repeat(["b", "a"], 10), weather=rng.random((20, 2)), seen=x > 0.2,
        about=np.array([{"a": 1}], dtype=object),
    )  # fmt: skip
    names = {"array": "signals", "labels": "kind", "context": "weather", "mask": "seen"}
    data = load(tmp_path / "mine.npz", **names)
    assert data.context_shape == (2,)
    assert data.classes == 2
    batch = data.batch("train", torch.arange(18))
    assert batch.mask.shape == (18, 6)
    assert torch.equal(batch.mask, batch.images > 0.2 * data.scale) or not batch.mask.all()
    for name in ("train", "test"):
        part = data.split(name)
        rows = [
            np.flatnonzero((x == row).any(1))[0] for row in np.where(part.mask, part.images, -1)
        ]
        assert (part.labels.numpy() == (np.array(rows) < 10)).all()
    with pytest.raises(DataError, match=r"has no array 'colour' for `dataset.labels`; it has"):
        load(tmp_path / "mine.npz", array="signals", labels="colour")
    with pytest.raises(DataError, match=r"more than one array .* name it with --dataset.array"):
        load(tmp_path / "mine.npz")


def test_gaps_become_a_mask(load, tmp_path, rng):
    x = rng.random((20, 6))
    x[3, 2] = np.nan
    np.save(tmp_path / "mine.npy", x)
    data = load(tmp_path / "mine.npy")
    known = sum(int((~split.mask).sum()) for split in (data.train, data.test))
    assert known == 1
    assert torch.isfinite(data.train.images).all()


@pytest.mark.parametrize(
    "names", [("train", "test"), ("x_train", "x_test"), ("train_x", "test_x")]
)
def test_both_parts_in_one_file(load, tmp_path, rng, names):
    arrays = {name: rng.random((8, 3)) for name in names}
    np.savez_compressed(tmp_path / "mine.npz", **arrays)
    data = load(tmp_path / "mine.npz")
    assert (len(data.train), len(data.test)) == (8, 8)
    np.testing.assert_allclose(data.train.images, arrays[names[0]], rtol=1e-6)


def test_netcdf(load, tmp_path, rng):
    x = rng.random((20, 5))
    xr.Dataset({"x": (("n", "d"), x), "y": ("n", np.arange(20) % 3)}).to_netcdf(
        tmp_path / "mine.nc", engine="h5netcdf"
    )
    data = load(tmp_path / "mine.nc")
    assert data.shape == (5,)
    assert data.classes == 3


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), "must have a row for each"),
        (np.zeros((1, 3)), "a run needs 2 at least"),
        (np.zeros((5, 0)), "must hold something"),
        (np.array([["a", "b"]] * 4), "no numbers"),
        (np.full((5, 3), np.inf), "infinite"),
        (np.full((5, 3), 1e200), "rescale it"),
        (np.ones((5, 3), complex), "no numbers"),
    ],
)
def test_arrays_that_cannot_be_used(load, tmp_path, array, message):
    np.save(tmp_path / "mine.npy", array)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "mine.npy")


@pytest.mark.parametrize("name", ["mine.npy", "mine.npz", "mine.nc"])
@pytest.mark.parametrize("content", [b"", b"my thesis", b"PK\x03\x04 and then nothing"])
def test_damaged_files(load, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.n.* cannot be read"):
        load(tmp_path / name)


def test_files_that_are_not_there(load, tmp_path):
    with pytest.raises(MissingDataError, match=r"there is no file or folder .*gone\.npz"):
        load(tmp_path / "gone.npz")
    with pytest.raises(ValueError, match="own data: a file that ends with"):
        DatasetConfig(name="mnits")


def test_data_are_named_by_their_content(home, tmp_path, rng):
    def named(array, place="mine.npy", **fields):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        np.save(path, array)
        config = RunConfig(dataset=DatasetConfig(name=str(path), **fields))
        return datasets.identify(config, home)

    one = rng.random((20, 6))
    first = named(one)
    assert first.name.startswith("mine-mlp-vae-geco-kappa0.1-seed0-")
    assert named(one, "elsewhere/mine.npy").name == first.name  # the path is no part of it
    assert named(one + 1e-3).name != first.name
    assert named(one, train_limit=5).name != first.name
    assert RunConfig.from_json(first.to_json()) == first
    assert named(rng.random((20, 1, 8, 8))).model.name == "conv-vae"
    with pytest.raises(DataError, match="no longer holds the data of this run"):
        datasets.load(first.dataset, home)


def test_what_is_called_mnist_and_is_not(fake_mnist, tmp_path):
    home = datasets.named.DataHome(fake_mnist, tmp_path / "cache")
    config = RunConfig(dataset=DatasetConfig(name="mnist"))
    found = datasets.identify(config, home)
    assert found.name != config.name
    assert found.dataset.label.startswith("mnist-other-")
    assert len(datasets.load(found.dataset, home).train) == 40
