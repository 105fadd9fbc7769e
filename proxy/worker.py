"""The program of one worker: `python -m stateside.proxy.worker`, started by the supervisor.

Its settings are in the environment (`settings_environment`), word for word those of the supervisor, whatever has become
of the file that they were read from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from stateside.proxy.config import CONFIG_VARIABLE, PREFIX, TABLE, Setting, Settings, load


def main() -> int:
    from stateside.proxy.server import main as serve

    return serve(load({}, os.environ))


def settings_environment(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment in which `load({}, environment)` gives these settings."""
    kept = {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
    own = {setting.variable: _text(setting, getattr(settings, setting.key)) for setting in TABLE}
    return kept | own | {CONFIG_VARIABLE: os.devnull}


def _text(setting: Setting, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.12f}"  # what people are shown is rounded
    return setting.kind.show(value)


if __name__ == "__main__":
    sys.exit(main())
