"""A real Postgres server for tests; the benchmarks use the same."""

from stateside.bench.postgres_server import PostgresServer

__all__ = ["PostgresServer"]
