"""What the library tells about itself. By default it goes to the logger `stateside.support`, and to no other."""

import logging
from collections.abc import Sequence

logger = logging.getLogger("stateside.support")


class Hooks:
    """Override what you want to see elsewhere, for instance in metrics; call `super()` to keep the log line.

    Called on the event loop's thread; must not block.
    """

    def registered(self, entity: str, unhandled: Sequence[str]) -> None:
        """An entity class was registered; `unhandled` are rpcs of its service without command handler."""
        if unhandled:
            logger.warning("%s has no handler for %s: such commands will fail", entity, ", ".join(unhandled))

    def started(self, address: str) -> None:
        """The user function listens; `address` is host:port or the path of a socket."""
        logger.info("user function listens on %s", address)

    def reloading(self, files: Sequence[str]) -> None:
        """Source files changed; the process starts again with them (`run(reload=True)`)."""
        logger.info("starts again: %s changed", ", ".join(files))

    def stopping(self, open_streams: int) -> None:
        """A graceful stop began."""
        logger.info("user function stops, %d entity streams open", open_streams)

    def discovered(self, proxy_name: str, proxy_version: str, unsupported: Sequence[str]) -> None:
        """A proxy asked for the entities; `unsupported` are types served here that it does not offer."""
        logger.info("discovered by proxy %s %s", proxy_name, proxy_version)
        if unsupported:
            logger.warning("proxy %s does not support entity types: %s", proxy_name, ", ".join(unsupported))

    def error_reported(self, message: str) -> None:
        """The proxy found a fault in this user function (EntityDiscovery.reportError)."""
        logger.error("error reported by the proxy: %s", message)

    def command_failed(self, service: str, entity_id: str, command: str, description: str) -> None:
        """A command handler refused a command by `fail`."""
        logger.debug("%s %r: command %s failed: %s", service, entity_id, command, description)

    def stream_failed(self, service: str, entity_id: str, command: str, description: str, error: Exception) -> None:
        """The stream of an entity instance ended with a Failure: an exception in a handler, or a protocol error."""
        logger.error(
            "%s %r: %s%s", service, entity_id, f"command {command}: " if command else "", description, exc_info=error
        )
