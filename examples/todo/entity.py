"""A to-do list for several hands: each item is a map of its own, so that changes to different fields never collide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stateside.support import CrdtContext, CrdtEntity, ORMap, command

from .protos.todo import todo_pb2 as todo

SERVICE = todo.DESCRIPTOR.services_by_name["Todos"]


@CrdtEntity(service=SERVICE, persistence_id="todo-lists")
class TodoList:
    @command
    def write(self, edit: todo.Edit, items: ORMap[str], ctx: CrdtContext[ORMap[str]]) -> todo.Item:
        if not edit.item:
            ctx.fail("Which item?")
        fields: ORMap[str] = items.map(edit.item)
        if edit.HasField("title"):
            fields.register("title").value = edit.title
        if edit.HasField("done"):
            fields.register("done").value = edit.done
        if edit.add_labels or edit.remove_labels:
            labels = fields.orset("labels")
            labels.update(edit.add_labels)
            labels -= set(edit.remove_labels)
        return item(edit.item, fields)

    @command
    def remove(self, key: todo.ItemKey, items: ORMap[str]) -> None:
        items.pop(key.item, None)

    @command
    def get(self, items: ORMap[str]) -> todo.TodoList:
        return todo.TodoList(items=[item(name, items.map(name)) for name in sorted(items)])

    @command
    def watch(self, items: ORMap[str]) -> Iterator[todo.TodoList]:
        while True:
            yield self.get(items)


def item(name: str, fields: ORMap[str]) -> todo.Item:
    """An item as it is shown. It makes no entries: to look is not to change."""

    def read(field: str, default: Any) -> Any:
        return fields.register(field).value if field in fields else default

    labels = sorted(fields.orset("labels")) if "labels" in fields else []
    return todo.Item(item=name, title=read("title", ""), done=read("done", False), labels=labels)
