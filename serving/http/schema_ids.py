"""Schema ids of the topics a server writes, fetched beside the event loop: a hung registry delays no request."""

from concurrent.futures import Future, ThreadPoolExecutor, wait

from schemas.events import TOPICS
from schemas.registry import RegistryUnavailable, SchemaRegistry

WAIT_S = 0.1
"""How long a request waits for an id; the question goes on without it."""
START_S = 5.0
"""How long a start waits for the ids: a registry that has to store new schemas may take longer than a request waits."""


class SchemaIds:
    """Asks for the ids of all topics at the start, for START_S, and again for one that is needed and was not given."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self._pool = ThreadPoolExecutor(1, "schema-ids")
        self._asked: dict[str, Future[int]] = {}
        for topic in TOPICS:
            if not registry.knows(topic):
                self._ask(topic)
        wait(self._asked.values(), START_S)

    def _ask(self, topic: str) -> Future[int]:
        asked = self._asked.get(topic)
        if asked is None or asked.done():
            asked = self._asked[topic] = self._pool.submit(self._registry.id_for, topic)
        return asked

    def need(self, topic: str) -> None:
        """Return when the registry's `id_for` answers at once for the topic; raises RegistryUnavailable in 0.1 s.

        Call in a thread.
        """
        if self._registry.knows(topic):
            return
        try:
            self._ask(topic).result(WAIT_S)
        except TimeoutError:
            raise RegistryUnavailable(f"the schema registry has not given the id of {topic} yet") from None
