from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geco_theory import PhaseTransitions
from geco_theory.report import collecting as results
from geco_theory.report import writing
from geco_theory.report.reading import Table

X = np.repeat([[0.0, 0.0], [4.0, 0.0], [0.0, 6.0]], 4, axis=0) + np.linspace(0, 0.1, 24).reshape(
    12, 2
)


TABLE = Table(X, "points.npy", ("A note.",))


@pytest.fixture(scope="module")
def analysis() -> PhaseTransitions:
    return PhaseTransitions(temperatures=[0.2, 0.5, 1.0, 5.0, 30.0]).fit(X)


def test_parts_come_out_as_they_went_in(analysis: PhaseTransitions, tmp_path: Path) -> None:
    collected = results.collect(TABLE, analysis, "1.2.3", complete=True)
    writing.write_dataset(tmp_path / "a.nc", collected)
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as read:
        for source in (collected, read):
            path = results.part(source, "path")
            assert path is not None
            xr.testing.assert_allclose(path.drop_attrs(), analysis.path_.drop_attrs())
            found = results.part(source, "transition")
            assert found is not None
            assert found.sizes["transition"] == analysis.transitions_.sizes["transition"]
            advice = results.part(source, "advice")
            assert advice is not None
            assert set(advice.dims) == {"kappa"}
            tree = results.part(source, "tree")
            assert tree is not None
            assert tree.position.dims == ("temperature", "cluster")
            assert results.part(source, "nothing") is None
        assert read.attrs["geco_theory_version"] == "1.2.3"
        assert read.attrs["total_variance"] == pytest.approx(X.var(axis=0).sum())


def test_the_tree_is_the_decoder_values_on_the_first_axis(analysis: PhaseTransitions) -> None:
    collected = results.collect(TABLE, analysis, "1", complete=True)
    tree = results.part(collected, "tree")
    assert tree is not None
    counts = np.isfinite(tree.position).sum("cluster")
    np.testing.assert_array_equal(counts, analysis.path_.n_clusters)
    np.testing.assert_allclose(tree.mass.sum("cluster"), 1.0)
    assert float(np.abs(tree.position[-1]).max()) < 1e-6  # one value: the mean
    mean = (tree.position * tree.mass).sum("cluster")
    np.testing.assert_allclose(mean, 0.0, atol=1e-5)
