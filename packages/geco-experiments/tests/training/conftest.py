"""What the tests of runs share."""

import pytest


class StopAfter:
    """Asks a run to stop after so many steps."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def stop_after():
    """Makes what a run asks whether to stop: `stop=stop_after(3)`."""
    return StopAfter
