import gzip
import hashlib
import io
import lzma
import pickle
import tarfile

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits

from geco_experiments import datasets
from geco_experiments.config import DatasetConfig
from geco_experiments.datasets import olivetti
from geco_experiments.datasets.base import ImageData, Split
from geco_experiments.datasets.files import read_idx
from geco_experiments.datasets.home import DataHome, find_data_home
from geco_experiments.runtime.errors import DataError, MissingDataError


def load(name, home, **fields):
    return datasets.load(DatasetConfig(name=name, **fields), home)


def test_digits_are_all_there_and_in_range(home):
    data = load("digits", home)
    assert (len(data.train), len(data.test), data.shape) == (1437, 360, (1, 8, 8))
    stored = torch.cat([data.train.images, data.test.images]).reshape(1797, 64).numpy()
    original = load_digits().data.astype(np.uint8)
    assert sorted(map(bytes, stored)) == sorted(map(bytes, original))
    batch = data.batch("train", torch.arange(1437))
    assert batch.images.dtype == torch.float32
    assert (batch.images.min(), batch.images.max()) == (0, 1)
    assert batch.context is None
    assert data.train.images.dtype == torch.uint8


def test_limits_and_fingerprint(home):
    whole, part = load("digits", home), load("digits", home, train_limit=10, test_limit=5)
    assert (len(part.train), len(part.test)) == (10, 5)
    assert torch.equal(part.train.images, whole.train.images[:10])
    assert part.fingerprint() != whole.fingerprint()
    assert load("digits", home).fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", "mnist"])
@pytest.mark.parametrize("end", ["", ".gz", ".xz"])
def test_mnist_in_every_layout(home, write_idx, folder, end):
    rng = np.random.default_rng(0)
    opener = {"": open, ".gz": gzip.open, ".xz": lzma.open}[end]
    arrays = {}
    for part, count in (("train", 5), ("t10k", 3)):
        arrays[part] = rng.integers(0, 256, (count, 28, 28))
        base = home.named / folder
        write_idx(base / f"{part}-images-idx3-ubyte{end}", arrays[part], opener)
        write_idx(base / f"{part}-labels-idx1-ubyte{end}", np.arange(count), opener)
    data = load("mnist", home)
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(arrays["train"]).byte())
    assert data.test.labels.tolist() == [0, 1, 2]
    batch = data.batch("test", torch.tensor([1]))
    expected = torch.from_numpy(arrays["t10k"][1:2, None]).float() / 255
    torch.testing.assert_close(batch.images, expected)


def test_mnist_as_rotated_and_coloured(fake_mnist, tmp_path):
    home = DataHome(fake_mnist, tmp_path)
    rotated = load("mnist-rotate", home)
    assert (rotated.shape, rotated.context_shape) == ((1, 28, 28), (5, 28, 28))
    coloured = load("color-mnist", home)
    assert (coloured.shape, coloured.context_shape) == ((3, 28, 28), (3,))
    assert load("color-mnist", home, conditional=False).context_shape is None


def test_missing_files_are_named_once_with_folder_and_command(home):
    with pytest.raises(MissingDataError) as caught:
        load("fashion-mnist", home)
    text = str(caught.value)
    assert "train-images-idx3-ubyte" in text
    assert "t10k-labels-idx1-ubyte" in text
    assert str(home.named) in text
    assert "geco data fetch fashion-mnist" in text
    assert "\n" not in text


def test_only_the_missing_files_are_named(fake_mnist, tmp_path):
    (fake_mnist / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MissingDataError, match="no MNIST/raw/t10k-labels-idx1-ubyte"):
        load("mnist", DataHome(fake_mnist, tmp_path / "cache"))


def test_no_data_folder_says_how_to_name_one(tmp_path):
    with pytest.raises(MissingDataError, match="set GECO_DATA_HOME or give --data-home"):
        load("mnist", DataHome(None, tmp_path))
    with pytest.raises(MissingDataError, match="is no folder"):
        load("mnist", DataHome(tmp_path / "nowhere", tmp_path))


def test_data_home_from_argument_and_environment(monkeypatch, tmp_path):
    assert find_data_home() is None
    monkeypatch.setenv("GECO_DATA_HOME", str(tmp_path))
    assert find_data_home() == tmp_path
    assert find_data_home(tmp_path / "other") == tmp_path / "other"
    assert DataHome.resolve(tmp_path / "other").download_folder == tmp_path / "other"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no idx file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01a", "no idx file of unsigned bytes"),
        (b"\x00\x00\x08\x03\x00\x00", "is truncated"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", "holds 3 bytes where \\(5,\\) are due"),
    ],
)
def test_damaged_idx_files(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_truncated_archives(tmp_path, fake_mnist):
    path = fake_mnist / "MNIST/raw/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"cannot be read .*: replace or remove it"):
        load("mnist", DataHome(fake_mnist, tmp_path))
    (tmp_path / "x.xz").write_bytes(b"not xz")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "x.xz")


def test_images_and_labels_that_do_not_fit(tmp_path, fake_mnist, write_idx):
    write_idx(fake_mnist / "MNIST/raw/train-labels-idx1-ubyte.gz", np.zeros(7))
    with pytest.raises(DataError, match=r"has 40 images but .* 7 labels"):
        load("mnist", DataHome(fake_mnist, tmp_path))
    write_idx(fake_mnist / "MNIST/raw/train-images-idx3-ubyte.gz", np.zeros((7, 20, 20)))
    with pytest.raises(DataError, match=r"has shape \(7, 20, 20\)"):
        load("mnist", DataHome(fake_mnist, tmp_path))


@pytest.fixture(scope="module")
def cifar_records():
    rng = np.random.default_rng(1)
    # one column of noise: random enough to tell rows apart, quick to compress
    records = np.zeros((10_000, 3073), dtype=np.uint8)
    records[:, 0] = rng.integers(0, 10, 10_000)
    records[:, 1:9] = rng.integers(0, 256, (10_000, 8))
    return records


CIFAR_FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@pytest.mark.parametrize("layout", ["plain", "archive"])
def test_cifar_in_every_layout(home, cifar_records, layout):
    content = cifar_records.tobytes()
    if layout == "plain":
        (home.named / "cifar-10-batches-bin").mkdir()
        for name in CIFAR_FILES:
            (home.named / "cifar-10-batches-bin" / name).write_bytes(content)
    else:
        with tarfile.open(home.named / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as tar:
            for name in CIFAR_FILES:
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for _ in range(2):  # the second time from the cached copy
        data = load("cifar-10", home)
        assert (len(data.train), len(data.test), data.shape) == (50_000, 10_000, (3, 32, 32))
        image = torch.from_numpy(cifar_records[17, 1:].reshape(3, 32, 32))
        assert torch.equal(data.train.images[10_017], image)
        assert data.test.labels[17] == cifar_records[17, 0]
    copies = list((home.cache / "arrays").glob("*.npy")) if layout == "archive" else [1]
    assert len(copies) == 1


def test_cifar_pickles_are_never_opened(home, tmp_path):
    trap = tmp_path / "trapped"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    folder = home.named / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(MissingDataError, match="holds pickles, which can run code"):
        load("cifar-10", home)
    assert not trap.exists()


def test_cifar_with_wrong_content(home, cifar_records):
    folder = home.named / "cifar-10-batches-bin"
    folder.mkdir()
    for name in CIFAR_FILES:
        (folder / name).write_bytes(cifar_records.tobytes())
    (folder / "data_batch_3.bin").write_bytes(cifar_records.tobytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin holds .* no whole number of records"):
        load("cifar-10", home)
    wrong = cifar_records.copy()
    wrong[0, 0] = 77
    (folder / "data_batch_3.bin").write_bytes(wrong.tobytes())
    with pytest.raises(DataError, match="labels above 9"):
        load("cifar-10", home)
    (folder / "data_batch_3.bin").write_bytes(cifar_records[:5].tobytes())
    with pytest.raises(DataError, match="holds 5 images, not 10,000"):
        load("cifar-10", home)


@pytest.mark.parametrize("kind", ["mat", "pkz"])
def test_olivetti(home, monkeypatch, kind):
    faces = np.random.default_rng(0).integers(0, 256, (400, 4096), dtype=np.uint8)
    folder = home.named / "scikit_learn_data"
    folder.mkdir()
    if kind == "mat":
        savemat(folder / "olivettifaces.mat", {"faces": faces.T})
    else:
        path = folder / "olivetti_py3.pkz"
        joblib.dump(faces, path, compress=6)
        known = {hashlib.sha256(path.read_bytes()).hexdigest()}
        monkeypatch.setattr(olivetti, "KNOWN_PKZ", known)
    data = load("olivetti", home)
    assert (len(data.train), len(data.test), data.shape) == (360, 40, (1, 64, 64))
    assert data.test.labels.tolist() == list(range(40))
    # stored transposed: the third person's last picture
    assert torch.equal(data.test.images[2, 0].T.flatten(), torch.from_numpy(faces[29]))


def test_unknown_pickles_of_faces_are_not_opened(home, tmp_path):
    trap = tmp_path / "trapped"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    (home.named / "scikit_learn_data").mkdir()
    joblib.dump(Trap(), home.named / "scikit_learn_data/olivetti_py3.pkz")
    with pytest.raises(DataError, match="pickle of unknown content"):
        load("olivetti", home)
    assert not trap.exists()


@pytest.fixture
def celeba(home):
    folder = home.named / "celeba/img_align_celeba"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        colour = rng.integers(0, 256, 3, dtype=np.uint8)
        pixels = np.broadcast_to(colour, (218, 178, 3))
        Image.fromarray(pixels).save(folder / f"{i:06d}.jpg", quality=95)
    lines = [f"{i:06d}.jpg {i % 3}" for i in range(6)]
    (home.named / "celeba/list_eval_partition.txt").write_text("\n".join(lines))
    return home


def test_celeba(celeba):
    for _ in range(2):
        data = load("celeba", celeba, image_size=32)
        assert (len(data.train), len(data.test), data.shape) == (2, 2, (3, 32, 32))
    picture = np.asarray(Image.open(celeba.named / "celeba/img_align_celeba/000003.jpg"))
    assert (data.train.images[1, :, 5, 5].numpy().astype(int) - picture[100, 90]).max() <= 3
    assert "148" in data.preprocessing


def test_celeba_incomplete(celeba):
    (celeba.named / "celeba/img_align_celeba/000005.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"000005.jpg cannot be read"):
        load("celeba", celeba)
    (celeba.named / "celeba/list_eval_partition.txt").write_text("000000.jpg zero\n")
    with pytest.raises(DataError, match="line 1: expected"):
        load("celeba", celeba)
    (celeba.named / "celeba/list_eval_partition.txt").unlink()
    with pytest.raises(MissingDataError, match="non-commercial research"):
        load("celeba", celeba)


def test_splits_check_their_arrays():
    with pytest.raises(ValueError, match=r"`images` must be uint8"):
        Split(torch.zeros(3, 1, 2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"must be finite"):
        Split(torch.full((3, 2), torch.nan))
    with pytest.raises(ValueError, match=r"`labels` must be"):
        Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(2))
    split = Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    assert ImageData("toy", split, split).batch("train", torch.arange(3)).labels is None


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("mnist", (60_000, 10_000)), ("fashion-mnist", (60_000, 10_000)), ("olivetti", (360, 40))],
)
def test_real_data(real_data_home, name, sizes):
    data = load(name, real_data_home)
    assert (len(data.train), len(data.test)) == sizes
    pixels = data.batch("train", torch.arange(100)).images
    assert pixels.min() >= 0
    assert 0.5 < pixels.max() <= 1


def test_real_pixels_are_the_published_ones(real_data_home):
    data = load("olivetti", real_data_home)
    faces = torch.empty(400, 1, 64, 64, dtype=torch.uint8)
    held_out = torch.arange(400) % 10 == 9
    faces[~held_out], faces[held_out] = data.train.images, data.test.images
    rows = faces[:, 0].transpose(1, 2).contiguous().numpy().tobytes()
    digest = "b119468c2f13775df12d3950e7c96644811647a6e10d30617777f245bf9b2f8b"
    assert hashlib.sha256(rows).hexdigest() == digest
