"""A thread that runs only the newest job."""

import threading
from collections.abc import Callable


class NewestJob:
    """A thread that runs only the newest job; older queued ones are dropped.

    The thread ends when there is nothing left to do; the next job starts another.
    """

    def __init__(self) -> None:
        self._job: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ask(self, job: Callable[[], None]) -> None:
        """Run `job` next, in place of any that is still queued."""
        with self._lock:
            self._job = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def settle(self) -> None:
        """Wait until nothing is left to do."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        try:
            while True:
                with self._lock:
                    job, self._job = self._job, None
                    if job is None:
                        self._thread = None
                        return
                job()
        except BaseException:
            with self._lock:
                self._thread = None
            raise
