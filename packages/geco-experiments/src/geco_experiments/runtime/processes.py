"""Worker processes that end by themselves once the process that started them is gone."""

import os
import threading
import time

__all__ = ["end_with_parent"]

TICK = 0.5
_watching = threading.Event()


def end_with_parent(parent: int) -> None:
    """End this process once `parent` is no longer its parent, looking twice a second.

    A worker whose parent was killed would go on with what it does, and wait for ever after that.

    Args:
        parent: The process number of the parent, as the parent itself knows it.
    """
    if _watching.is_set() or parent == os.getpid():
        return
    _watching.set()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(TICK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
