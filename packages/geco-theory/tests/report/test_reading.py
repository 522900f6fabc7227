import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geco_theory.report.reading import read_table

X = np.random.default_rng(0).normal(size=(6, 4))


def test_every_format_gives_the_same_table(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    np.savez(tmp_path / "a.npz", samples=X)
    np.savetxt(tmp_path / "a.csv", X, delimiter=",", fmt="%.18e")
    np.savetxt(
        tmp_path / "a.tsv", X, delimiter="\t", fmt="%.18e", header="a\tb\tc\td", comments=""
    )
    np.savetxt(tmp_path / "a.txt", X, fmt="%.18e")
    dataset = xr.Dataset({"v": (("sample", "feature"), X), "name": ("sample", list("abcdef"))})
    dataset[["v"]].to_netcdf(tmp_path / "old.nc", engine="scipy")
    dataset.to_netcdf(tmp_path / "new.nc", engine="h5netcdf")
    for name in ("a.npy", "a.npz", "a.csv", "a.tsv", "a.txt", "old.nc", "new.nc"):
        table = read_table(tmp_path / name)
        np.testing.assert_array_equal(table.X, X)
        assert (table.X.dtype, table.name) == (np.float64, name)
    assert "header" in read_table(tmp_path / "a.tsv").notes[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.bool_])
def test_images_of_any_number_are_flattened_with_a_note(tmp_path: Path, dtype: type) -> None:
    images = (np.arange(60) % 2).reshape(5, 3, 4)
    images[0, 0, 0] = 1
    images = images.astype(dtype)
    np.save(tmp_path / "i.npy", images)
    table = read_table(tmp_path / "i.npy")
    assert table.X.shape == (5, 12)
    assert "5 arrays of 3 x 4 were flattened to 12 features" in table.notes[-1]


def test_an_array_is_chosen_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", x=X, y=np.zeros(6))
    with pytest.raises(ValueError, match=r"2 arrays of numbers \('x', 'y'\); choose one"):
        read_table(tmp_path / "two.npz")
    np.testing.assert_array_equal(read_table(tmp_path / "two.npz", "x").X, X)
    with pytest.raises(ValueError, match="has no array 'z' of numbers; there are: 'x', 'y'"):
        read_table(tmp_path / "two.npz", "z")
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(ValueError, match="no named arrays"):
        read_table(tmp_path / "a.npy", "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,b\n", "has a header but no rows"),
        ("1,2\n3\n", "row 2 of the data has 1 columns where the first has 2"),
        ("1,2\n3,abc\n", "row 2 of the data, column 2: 'abc' is not a number"),
        ("a,b\n1,2\n3,\n", "row 2 of the data, column 2: the cell is empty"),
        ("1,2\n3,nan\n", "1 values that are NaN or infinite, the first in row 2, column 2"),
        ("1,2\n", "at least two samples"),
        ("1,2\n1,2\n1,2\n", "no variance: all 3 samples are equal"),
    ],
)
def test_bad_text(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_table(tmp_path / "bad.csv")
    assert "\n" not in str(caught.value)
    assert "bad.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(5), r"got shape \(5,\)"),
        (np.zeros((0, 3)), "at least two samples"),
        (np.zeros((3, 0)), "at least two samples and one feature"),
        (np.array([["a", "b"], ["c", "d"]]), "must hold real numbers"),
        (np.ones((3, 2)) * 1j, "must hold real numbers, got complex128"),
        (np.array([[1.0, np.inf], [0.0, 1.0]]), "NaN or infinite"),
    ],
)
def test_bad_arrays(tmp_path: Path, values: np.ndarray, words: str) -> None:
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(ValueError, match=words):
        read_table(tmp_path / "bad.npy")


@pytest.mark.parametrize("name", ["bad.npy", "bad.npz", "bad.nc"])
@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"\x93NUMPY", b"PK\x03\x04", b"CDF", b"\x89HDF"]
)
def test_broken_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_truncated_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    np.savez(tmp_path / "a.npz", X=X)
    xr.Dataset({"v": (("i", "j"), X)}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    for name in ("a.npy", "a.npz", "a.nc"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(ValueError, match=name):
            read_table(tmp_path / name)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        read_table(tmp_path / "o.npy")


def test_missing_files_folders_and_types(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_table(tmp_path / "none.npy")
    with pytest.raises(ValueError, match="is a folder"):
        read_table(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"cannot be read \(.parquet\); pass one of .npy"):
        read_table(tmp_path / "a.parquet")


def test_netcdf_4_without_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xr.Dataset({"v": (("i", "j"), X)}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    monkeypatch.setitem(sys.modules, "h5netcdf", None)
    with pytest.raises(ValueError, match=r"pip install \"geco-theory\[report\]\""):
        read_table(tmp_path / "a.nc")
