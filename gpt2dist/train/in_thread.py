"""What blocks for hours runs in a thread."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable


class InThread:
    """A `fit` of Ray's in a thread, so that the main thread keeps signals and the screen."""

    def __init__(self, fit: Callable[[], None], name: str) -> None:
        self.error: BaseException | None = None
        self._fit = fit
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """True once it has returned, or raised what `error` holds then."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._fit()
        except BaseException as error:
            self.error = error
