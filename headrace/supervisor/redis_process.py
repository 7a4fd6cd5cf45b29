"""The Redis of `headrace up`, started again when it dies; flow and server go on by themselves when it is back."""

import time

from headrace.supervisor.output import Output
from state.embedded_redis import EmbeddedRedis, RedisMissing

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0


class WatchedRedis:
    """A Redis that is started again when it dies."""

    def __init__(self, redis: EmbeddedRedis, output: Output) -> None:
        self._redis, self._output, self._due, self._pause_s = redis, output, 0.0, FIRST_PAUSE_S

    def watch(self) -> None:
        """Start Redis again when it is gone; where that fails, after a pause that grows."""
        process, now = self._redis.process, time.monotonic()
        if (process is not None and process.poll() is None) or now < self._due:
            return
        self._output.warn(f"redis ended{'' if process is None else f' with {process.returncode}'}; starting it again")
        try:
            self._redis.start()
            self._pause_s = FIRST_PAUSE_S
        except RedisMissing as error:
            self._output.warn(str(error))
            self._redis.kill()
            self._due, self._pause_s = now + self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
