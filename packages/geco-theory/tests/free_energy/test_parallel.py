import itertools
import threading

import pytest

from geco_theory.free_energy.parallel import over_rows


def test_stretches_are_in_order_and_cover_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geco_theory.free_energy.parallel._LEAST_ROWS", 10)
    for rows, workers, number in ((100, 3, 3), (25, 8, 2), (5, 4, 1), (100, 1, 1)):
        found = over_rows(lambda begin, end: (begin, end), rows, workers)
        assert len(found) == number
        assert found[0][0] == 0
        assert found[-1][1] == rows
        assert all(a[1] == b[0] for a, b in itertools.pairwise(found))


def test_the_stretches_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geco_theory.free_energy.parallel._LEAST_ROWS", 1)
    meeting = threading.Barrier(2, timeout=10)  # passes only if both are there
    over_rows(lambda begin, end: meeting.wait(), 2, 2)


def test_an_error_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geco_theory.free_energy.parallel._LEAST_ROWS", 1)

    def fails(begin: int, end: int) -> None:
        raise ValueError(f"{begin} {end}")

    with pytest.raises(ValueError, match="0 1"):
        over_rows(fails, 2, 2)
