"""Who holds replicas, as the configuration says: this node and its peers, until somebody tells that one has left.

A member is called by the address of its peer port. Its identity is learned when it is first spoken with; a member that
never was counts like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stateside.proxy.replicas import Member, Membership


class StaticMembership(Membership):
    """This node and those that its settings name."""

    def __init__(self, own: Member, peers: Sequence[str]) -> None:
        self.own = own
        self._others = {name: Member(name, 0, 0) for name in peers if name != own.name}
        self._listeners: list[Callable[[], None]] = []

    def members(self) -> tuple[Member, ...]:
        return (self.own, *self._others.values())

    def watch(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    @property
    def others(self) -> dict[str, Member]:
        """By name, without this node."""
        return self._others

    def heard(self, name: str, replica: int, incarnation: int) -> None:
        """The member called `name`, or known as `replica`, said who it is. One that is neither is no member here."""
        known = self._others.get(name) or self.find(replica)
        if known is None or (known.replica, known.incarnation) == (replica, incarnation):
            return
        self._others[known.name] = Member(known.name, replica, incarnation)
        self._tell()

    def find(self, replica: int) -> Member | None:
        return next((member for member in self._others.values() if replica and member.replica == replica), None)

    def add(self, name: str) -> None:
        """One that had left is there again, as somebody new."""
        if name != self.own.name and name not in self._others:
            self._others[name] = Member(name, 0, 0)
            self._tell()

    def remove(self, name: str, replica: int) -> Member | None:
        """The member of this name, or identity, has left. None: there is none."""
        known = self._others.get(name) or self.find(replica)
        if known is None:
            return None
        del self._others[known.name]
        self._tell()
        return known

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
