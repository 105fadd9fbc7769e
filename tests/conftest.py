"""A real Postgres for all tests that ask for one, started once."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.helpers.postgres import PostgresServer

_schemas = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    # What is tested on it does not cut the power: no need to wait for the disk.
    server = PostgresServer(["fsync=off", "max_connections=50"]).start()
    yield server
    server.remove()


@pytest.fixture
def postgres_schema(postgres_server: PostgresServer) -> str:
    """The name of a schema that nobody has used yet."""
    return f"test_{next(_schemas)}"
