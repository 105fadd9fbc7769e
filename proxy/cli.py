"""The command `stateside`: `stateside proxy` runs the sidecar, `stateside journal` looks into its journal,
`stateside load`
puts a service under load.

Options of `proxy` are made from the table of settings. Nothing heavy is imported until a command really runs.
"""

import os
import sys
from importlib import import_module
from typing import Any

import click

from stateside.proxy.config import TABLE, ConfigError, Setting, Settings, load
from stateside.proxy.version import VERSION

EXIT_CONFIG = 2


class JournalGroup(click.Group):
    """Commands of the journal, imported only when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._real().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._real().get_command(ctx, cmd_name)

    def _real(self) -> click.Group:
        group: click.Group = import_module("stateside.journal.cli").journal
        return group


class Commands(click.Group):
    """`load` is imported only when it is asked for."""

    LATER = {"load": "stateside.bench.load_command"}  # noqa: RUF012

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.LATER])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.LATER:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(self.LATER[cmd_name]), cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(VERSION, prog_name="stateside")
def main() -> None:
    """Stateside: the sidecar that keeps the state of your services."""


main.add_command(JournalGroup("journal", help="Look into the journal, check it, copy it."))


def _options(command: Any) -> Any:
    for setting in reversed(TABLE):
        command = click.option(setting.option, setting.key, metavar=_metavar(setting), help=_help(setting))(command)
    return command


def _metavar(setting: Setting) -> str:
    return type(setting.kind).__name__.upper()


def _help(setting: Setting) -> str:
    default = setting.kind.show(setting.default) or "empty"
    return f"{setting.meaning}  [{default}; {', '.join(setting.variables)}]"


@main.command()
@click.option("--config", "config_path", metavar="FILE", help="Settings file in place of stateside.toml.")
@_options
def proxy(config_path: str | None, **given: str | None) -> None:
    """Run the sidecar.

    Each option is also a key of stateside.toml and, as shown in brackets after the default, an environment variable.
    """
    settings = _load(config_path, {key: text for key, text in given.items() if text is not None})
    several = settings.workers > 1 or settings.journal_replica
    sys.exit(import_module(f"stateside.proxy.{'supervisor' if several else 'server'}").main(settings))


def _load(config_path: str | None, overrides: dict[str, str]) -> Settings:
    try:
        return load(overrides, os.environ, config_path)
    except ConfigError as error:
        click.echo(f"stateside: {error}", err=True)
        sys.exit(EXIT_CONFIG)


if __name__ == "__main__":
    main()
