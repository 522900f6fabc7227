"""Progress of long work behind one small interface; the library itself never prints."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from tqdm.auto import tqdm

__all__ = ["LineMeter", "Meter", "NoMeter", "TqdmMeter"]


class Meter(Protocol):
    """Something that is told how far a run has come."""

    interval: float
    """Seconds between two reports; reading values waits for the device, so not every step."""

    def start(self, name: str, total: int, done: int) -> None:
        """A run of `total` steps begins, `done` of them already made."""
        ...

    def report(self, done: int, values: dict[str, float]) -> None:
        """So many steps are done; the last step's numbers."""
        ...

    def phase(self, text: str) -> None:
        """What happens after the steps, in words."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class NoMeter:
    """Says nothing."""

    interval = float("inf")

    def start(self, name: str, total: int, done: int) -> None:
        """Say nothing."""

    def report(self, done: int, values: dict[str, float]) -> None:
        """Say nothing."""

    def phase(self, text: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


class LineMeter:
    """Whole lines, for files and pipes: no carriage returns, and only now and then.

    Args:
        say: Told each line.
        every: Seconds between two lines.
    """

    interval = 1.0

    def __init__(self, say: Callable[[str], None], every: float = 30.0) -> None:
        self._say = say
        self._every = every
        self._name, self._total, self._next, self._last = "", 0, 0.0, -1

    def start(self, name: str, total: int, done: int) -> None:
        """Note what begins."""
        self._name, self._total = name, total
        self._next, self._last = time.monotonic() + self._every, -1

    def report(self, done: int, values: dict[str, float]) -> None:
        """Say how far it is, if it is time or all is done."""
        now = time.monotonic()
        if (now < self._next and done < self._total) or done == self._last:
            return
        self._next, self._last = now + self._every, done
        shown = ", ".join(f"{name}={value:.3g}" for name, value in values.items())
        self._say(f"{self._name}: {done} of {self._total} steps; {shown}")

    def phase(self, text: str) -> None:
        """Say nothing: the result follows soon."""

    def close(self) -> None:
        """Say nothing."""


class TqdmMeter:
    """A tqdm bar with RE/kappa, KL, beta and lambda.

    Args:
        interval: Seconds between two updates.
        options: Passed on to tqdm (`file`, `position`, `disable`, ...).
    """

    def __init__(self, interval: float = 0.5, **options: Any) -> None:
        self.interval = interval
        self._options = options
        self._bar: tqdm[Any] | None = None

    def start(self, name: str, total: int, done: int) -> None:
        """Draw the bar."""
        self._bar = tqdm(total=total, initial=done, desc=name, unit="step", **self._options)

    def report(self, done: int, values: dict[str, float]) -> None:
        """Move the bar and show the numbers."""
        if self._bar is not None:
            shown = {name: f"{value:.3g}" for name, value in values.items()}
            self._bar.set_postfix(shown, refresh=False)
            if not self._bar.update(done - self._bar.n):
                self._bar.refresh()

    def phase(self, text: str) -> None:
        """Show what happens now in place of the numbers."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
