"""Loading beside the I/O loop: what takes long must not keep links waiting."""

import threading
from collections.abc import Callable
from typing import Any

LOOK_S = 0.02
"""How often to ask whether it is done."""


class Loading:
    """Runs `load` once, in a thread of its own."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self.result: Any = None
        """What `load` returned, when it is done."""
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def done(self) -> bool:
        """Tell whether it is over; raise what `load` raised."""
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    def _run(self) -> None:
        try:
            self.result = self._load()
        except BaseException as error:  # raised again in the I/O loop
            self._error = error
