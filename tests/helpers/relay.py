"""Stands between a client and Postgres, and loses answers when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any


class Relay:
    """Stands between client and server. After `cut` the next answer (or the one after `skipping` others) never arrives,
    and the connection goes with it."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.cuts = 0
        self._cutting = False
        self._skipping = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self, skipping: int = 0) -> None:
        self._cutting, self._skipping = True, skipping

    async def close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, server_writer]
        for source, sink, is_answer in ((reader, server_writer, False), (server_reader, writer, True)):
            task = asyncio.create_task(self._pass_on(source, sink, (writer, server_writer), is_answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: Any, sink: Any, both: Any, is_answer: bool) -> None:
        try:
            while data := await source.read(1 << 16):
                if is_answer and self._cutting:
                    self._skipping -= 1
                    if self._skipping < 0:
                        self._cutting = False
                        self.cuts += 1
                        break
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # the other side went first
        finally:
            for writer in both:
                writer.close()
