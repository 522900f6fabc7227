import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geco_theory.report.preparing import prepare
from geco_theory.report.reading import Table, read_table
from geco_theory.report.text import parse_text

X = np.random.default_rng(0).normal(size=(20, 3))


def values(text: str, name: str = "f.csv") -> list[list[float]]:
    return parse_text(text.encode(), name).values.tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x;y\n1,5;2,5\n2,5;3,5\n", [[1.5, 2.5], [2.5, 3.5]]),
        ("1,5;2,5\n2,5;3,5\n", [[1.5, 2.5], [2.5, 3.5]]),
        ("x\ty\n1,5\t2,5\n2,5\t3,5\n", [[1.5, 2.5], [2.5, 3.5]]),
        ("sep=;\nx;y\n1.5;2.5\n", [[1.5, 2.5]]),
        ("x,y,\n1,2,\n3,4,\n", [[1, 2], [3, 4]]),
        ("Length, mm\tWidth, mm\n1.0\t2.0\n", [[1, 2]]),
        ('"Length, mm";"Width, mm"\n1.0;2.0\n', [[1, 2]]),
        ("a|b\n1|2\n3|4\n", [[1, 2], [3, 4]]),
        ("0,1,2\n0.5,1.5,2.5\n", [[0.5, 1.5, 2.5]]),
        (",0,1\n0,0.5,1.5\n1,2.5,3.5\n", [[0.5, 1.5], [2.5, 3.5]]),
        ('"","a","b"\n"1",0.5,1.5\n"2",2.5,3.5\n', [[0.5, 1.5], [2.5, 3.5]]),
        ('"a","b"\n"r1",0.5,1.5\n"r2",2.5,3.5\n', [[0.5, 1.5], [2.5, 3.5]]),
        ("1,2\n3.5,4\n", [[1, 2], [3.5, 4]]),
        ("# a comment\n1 2\n3 4\n", [[1, 2], [3, 4]]),
        ("1e3,+2,-.5\n.5,3.,4E-2\n", [[1000, 2, -0.5], [0.5, 3, 0.04]]),
    ],
)
def test_tables_as_programs_write_them(text: str, expected: list[list[float]]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x\n1,5\n2,5\n3,5\n", "the header has 1 columns and the rows have 2"),
        ("x,y\n1_000,2\n3_000,4\n", "'1_000' is not a number"),
        ('x,y\n"1,000","2,000"\n', "'1,000' is not a number"),
        ("x,y\n1,NA\n3,4\n", r"row 1 of the data, column 2: 'NA' is missing \('y'\)"),
        ("x,y\n10%,20%\n30%,40%\n", "'10%' is not a number"),
        ("x,y\nmm,mm\n1,2\n", "'mm' is not a number"),
        ("x,y,z\n1,2\n3,4\n", "the header has 3 columns and the rows 2"),
    ],
)
def test_what_could_be_other_numbers_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values(text)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_what_pandas_writes_comes_back(tmp_path: Path, index: bool, names: list | None) -> None:
    pd.DataFrame(X, columns=names).to_csv(tmp_path / "a.csv", index=index)
    table = read_table(tmp_path / "a.csv")
    np.testing.assert_allclose(table.X, X)
    assert table.columns == tuple(names or ["0", "1", "2"])
    assert any("header" in note for note in table.notes)
    assert any("left out" in note for note in table.notes) is index


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes("größe,y\n1,2\n3,4\n".encode(encoding))
    table = read_table(tmp_path / "a.csv")
    assert table.X.tolist() == [[1, 2], [3, 4]]
    assert table.columns[0] == "größe"


def test_a_named_column_that_counts_the_rows_is_kept_and_told() -> None:
    table = parse_text(b"id,x\n1,0.5\n2,0.7\n3,0.1\n", "f.csv")
    assert table.values.shape == (3, 2)
    assert any("'id' counts the rows" in note for note in table.notes)


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz", ".nc"])
def test_packed_files(tmp_path: Path, suffix: str) -> None:
    plain = tmp_path / f"a{suffix}"
    match suffix:
        case ".csv":
            np.savetxt(plain, X, delimiter=",")
        case ".npy":
            np.save(plain, X)
        case ".npz":
            np.savez(plain, X=X)
        case _:
            xr.Dataset({"x": (("i", "j"), X)}).to_netcdf(plain, engine="h5netcdf")
    packed = tmp_path / f"a{suffix}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    np.testing.assert_allclose(read_table(packed).X, X)
    packed.write_bytes(gzip.compress(plain.read_bytes())[:-20])
    with pytest.raises(ValueError, match=r"'a.*gz' is not a readable"):
        read_table(packed)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"a,b\n1,2\n3,4\n", gzip.compress(b"a,b\n1,2\n3,4\n")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        table = read_table("-")
        assert table.X.tolist() == [[1, 2], [3, 4]]
        assert table.name == "standard input"


def test_arrays_beside_names_and_pickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=X, names=np.array(["p", "q", "r"]))
    np.savez(tmp_path / "b.npz", imgs=X, metadata=np.array({"title": "t"}, dtype=object))
    for name in ("a.npz", "b.npz"):
        np.testing.assert_array_equal(read_table(tmp_path / name).X, X)
    import scipy.sparse

    scipy.sparse.save_npz(tmp_path / "s.npz", scipy.sparse.csr_matrix(X))
    with pytest.raises(ValueError, match="sparse matrix"):
        read_table(tmp_path / "s.npz")


def test_memory_is_that_of_the_unpacked_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((4000, 500), np.uint8))
    monkeypatch.setattr("geco_theory.memory.available_memory", lambda: 4e6)
    with pytest.raises(ValueError, match=r"unpacking 'x' of 'a\.npz' would need 0\.0168 GiB"):
        read_table(tmp_path / "a.npz")
    monkeypatch.setattr("geco_theory.memory.available_memory", lambda: 1e9)

    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np.lib.format, "read_array", fails)
    with pytest.raises(ValueError, match="does not fit into memory"):
        read_table(tmp_path / "a.npz")


def test_netcdf_groups_and_times(tmp_path: Path) -> None:
    time = ("time", np.arange(20.0), {"units": "months since 1850-01-01"})
    xr.Dataset({"tas": (("time", "x"), X)}, {"time": time}).to_netcdf(
        tmp_path / "a.nc", engine="h5netcdf"
    )
    np.testing.assert_array_equal(read_table(tmp_path / "a.nc").X, X)
    for mode, group, scale in (("w", "inner/one", 1.0), ("a", "other", 2.0)):
        xr.Dataset({"v": (("i", "j"), X * scale)}).to_netcdf(
            tmp_path / "g.nc", mode=mode, group=group, engine="h5netcdf"
        )
    with pytest.raises(ValueError, match="'inner/one/v', 'other/v'"):
        read_table(tmp_path / "g.nc")
    np.testing.assert_array_equal(read_table(tmp_path / "g.nc", "other/v").X, 2 * X)


def test_columns_are_chosen_by_name_and_number() -> None:
    table = Table(X, "f", (), ("a", "b", "c"))
    for columns, expected in (("b", [1]), ("c,a", [2, 0]), ("2-3", [1, 2]), ("1,c", [0, 2])):
        found = prepare(table, columns)
        np.testing.assert_array_equal(found.X, X[:, expected])
        assert found.columns == tuple(np.array(["a", "b", "c"])[expected])
    for wrong in ("d", "0", "2-4", "3-2", ""):
        with pytest.raises(ValueError, match="has no column"):
            prepare(table, wrong)


def test_standardised_columns_and_the_one_that_carries_all() -> None:
    table = Table(np.column_stack([X * [1, 1, 100], np.ones(20)]), "f", (), ("a", "b", "c", "d"))
    assert any("Column 'c' carries" in note for note in prepare(table).notes)
    found = prepare(table, standardise=True)
    np.testing.assert_allclose(found.X.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(found.X.std(axis=0), 1.0)
    assert found.columns == ("a", "b", "c")
    assert not any("carries" in note for note in found.notes)
