"""Ray Train's `fit` in the background, so that the main thread can watch and take signals."""

import threading
from typing import Any


class FitThread(threading.Thread):
    """Runs `trainer.fit()`; its result, or its error, is kept for the main thread."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(name="ray-train-fit", daemon=True)
        self._trainer = trainer
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Fit, and keep what came of it."""
        try:
            self.result = self._trainer.fit()
        except BaseException as error:  # noqa: BLE001  also the SystemExit that ray.shutdown causes
            self.error = error
