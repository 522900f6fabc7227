import pytest

from geco_theory.memory import available_memory, require_memory


def test_memory_is_counted_against_a_limit() -> None:
    assert available_memory() > 0
    require_memory(100.0, "something", limit=100.0)
    with pytest.raises(ValueError, match="something would need"):
        require_memory(101.0, "something", limit=100.0)
