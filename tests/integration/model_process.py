"""The TCK's model as a user function in a process of its own, to be killed.

python -m tests.integration.model_process <port>
"""

from __future__ import annotations

import asyncio
import sys

from .user_function import ScriptedUserFunction


async def main(port: int) -> None:
    user_function = await ScriptedUserFunction(port=port).start()
    print(f"listening on {user_function.port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
