"""Rooms of a chat, which go on on every node while others are away.

A room is a map with two kinds of entries: the set of its messages, and a vote for each user. A node votes for a user
while it has calls of his; somebody is online while one node votes for him, so a node that dies takes no ghosts along.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from stateside.support import CrdtContext, CrdtEntity, GSet, ORMap, Vote, command

from .protos.chat import chat_pb2 as chat

Context = CrdtContext[ORMap[str]]
SERVICE = chat.DESCRIPTOR.services_by_name["Rooms"]
MESSAGES, PRESENCE = "messages", "presence"


@CrdtEntity(service=SERVICE, persistence_id="chat-rooms")
class Room:
    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        """Calls of each user on this node."""
        self.is_new = True

    @command
    def say(self, post: chat.Post, room: ORMap[str]) -> None:
        messages: GSet[chat.Message] = room.gset(MESSAGES)
        messages.add(chat.Message(user=post.user, text=post.text, sent_at_us=time.time_ns() // 1000))

    @command
    def look(self, room: ORMap[str]) -> chat.Room:
        return chat.Room(messages=said(room), online=online(room))

    @command
    def join(self, request: chat.JoinRoom, room: ORMap[str], ctx: Context) -> Iterator[chat.Room | None]:
        if not request.user:
            ctx.fail("Who are you?")
        self._comes(request.user, room)
        seen: list[chat.Message] = []
        present: list[str] = []
        try:
            while True:
                messages, users = said(room), online(room)
                news = [message for message in messages if message not in seen]
                yield chat.Room(messages=news, online=users) if news or users != present else None
                seen, present = messages, users
        finally:
            self._goes(request.user, room)

    def _comes(self, user: str, room: ORMap[str]) -> None:
        presence = room.map(PRESENCE)
        if self.is_new:  # in a user function that had to start again: its votes are older than its calls
            self.is_new = False
            for known in presence:
                presence.vote(known).vote = False
        self.calls[user] += 1
        presence.vote(user).vote = True

    def _goes(self, user: str, room: ORMap[str]) -> None:
        self.calls[user] -= 1
        if not self.calls[user]:
            room.map(PRESENCE).vote(user).vote = False


def said(room: ORMap[str]) -> list[chat.Message]:
    """The messages, in the order they were sent."""
    messages: GSet[chat.Message] = room.gset(MESSAGES) if MESSAGES in room else GSet()
    return sorted(messages, key=lambda message: (message.sent_at_us, message.user, message.text))


def online(room: ORMap[str]) -> list[str]:
    """Users with calls on some node."""
    presence: ORMap[str] = room.map(PRESENCE) if PRESENCE in room else ORMap()
    return sorted(user for user, vote in presence.items() if isinstance(vote, Vote) and vote.at_least_one)
