"""Things that a module holds and that not every copy or pickle can take along."""

import copy
import pickle
from typing import Any

__all__ = ["Held"]


class Held:
    """A function or a process group inside of a module.

    Deep copies copy it where that is possible and else share it. A pickle takes it along where
    that is possible; where it is not (a lambda, a process group), the pickle is made all the same
    and says what is missing once it is needed.

    Args:
        value: What is held.
        what: What it is called, and what to do without it, for the error.
    """

    def __init__(self, value: Any, what: str) -> None:
        self._value = value
        self._what = what
        self._lost = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls what is held."""
        return self.value(*args, **kwargs)

    @property
    def value(self) -> Any:
        """What is held.

        Raises:
            RuntimeError: If a pickle could not take it along.
        """
        if self._lost:
            raise RuntimeError(
                f"this was read from a pickle, which could not take along {self._what}"
            )
        return self._value

    def __deepcopy__(self, memo: dict[int, Any]) -> "Held":
        """A copy, or the same where it cannot be copied."""
        try:
            value = copy.deepcopy(self._value, memo)
        except Exception:  # noqa: BLE001 - whatever it is that resists copying
            value = self._value
        duplicate = Held(value, self._what)
        duplicate._lost = self._lost
        return duplicate

    def __getstate__(self) -> dict[str, Any]:
        """Without what cannot be pickled."""
        try:
            pickle.dumps(self._value)
        except Exception:  # noqa: BLE001 - whatever it is that resists pickling
            return {"_value": None, "_what": self._what, "_lost": True}
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes over a state."""
        self.__dict__.update(state)

    def __repr__(self) -> str:
        """What is held."""
        return repr(self._value)
