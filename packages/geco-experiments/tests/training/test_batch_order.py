import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_experiments.training.batch_order import Order


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 100), st.integers(0, 5))
def test_every_image_once_per_epoch(count, batch_size, seed):
    order = Order(count, batch_size, seed)
    stream = torch.cat([order.rows(step) for step in range(3 * count // batch_size + 1)])
    for start in range(0, len(stream) - count + 1, count):
        assert sorted(stream[start : start + count].tolist()) == list(range(count))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 30))
def test_any_step_can_be_the_first(count, batch_size, step):
    walked = Order(count, batch_size, 7)
    for earlier in range(step):
        walked.rows(earlier)
    assert torch.equal(walked.rows(step), Order(count, batch_size, 7).rows(step))


def test_epochs_and_seeds_differ():
    order = Order(100, 100, 0)
    assert not torch.equal(order.rows(0), order.rows(1))
    assert not torch.equal(order.rows(0), Order(100, 100, 1).rows(0))
