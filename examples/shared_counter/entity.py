"""A counter that every node can change at once, and none has to ask another for."""

from collections.abc import Iterator

from stateside.support import CrdtEntity, PNCounter, command

from .protos.counter import counter_pb2 as shared

SERVICE = shared.DESCRIPTOR.services_by_name["Counters"]


@CrdtEntity(service=SERVICE, persistence_id="shared-counter")
class SharedCounter:
    @command
    def add(self, change: shared.Change, counter: PNCounter) -> shared.Value:
        counter += change.by
        return shared.Value(value=int(counter))

    @command
    def get(self, counter: PNCounter) -> shared.Value:
        return shared.Value(value=int(counter))

    @command
    def watch(self, counter: PNCounter) -> Iterator[shared.Value]:
        while True:
            yield shared.Value(value=int(counter))
