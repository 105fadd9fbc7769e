"""HTTP/JSON of value entities: the TCK's scenario (support.md D5 22)."""

from __future__ import annotations

from .harness import World
from .http_client import JSON, HttpConnection
from .messages import VALUE_TWO
from .user_function import a_key
from .value_function import ValueFunction

SETTINGS = {"journal": "memory:"}
USER_FUNCTION = ValueFunction


def act(name: str, field: str, text: str) -> str:
    return f'{{"actions": [{{"{name}": {{"{field}": "{text}"}}}}]}}'


async def test_d5_22_a_value_entity(world: World) -> None:
    key = a_key()
    path = f"/tck/model/entity/{key}"
    async with HttpConnection(world.proxy.port) as http:
        for target, body, status, text in (
            (path, "{}", 200, '{"message":""}'),
            (f"/{VALUE_TWO}/Call", f'{{"id": "{key}"}}', 200, '{"message":""}'),
            (path, act("update", "value", "one"), 200, '{"message":"one"}'),
            (path, act("fail", "message", "expected failure"), 500, "expected failure"),
            (path, act("update", "value", "two"), 200, '{"message":"two"}'),
            (path, "{}", 200, '{"message":"two"}'),
        ):
            answer = await http.ask("POST", target, body)
            assert (answer.status, answer.text) == (status, text)
            assert status != 200 or answer.headers["content-type"] == JSON
