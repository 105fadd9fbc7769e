"""The settings as a page for people: docs/configuration.md is what `configuration_page()` returns.

`python -m stateside.proxy.settings_page` prints it; a test compares the two, so that the page never lags
behind the table.
"""

from itertools import groupby

from stateside.proxy.config import TABLE, Setting

_HEAD = """# Configuration

*Made from the table in proxy/config.py by `python -m stateside.proxy.settings_page > docs/configuration.md`.*

A setting comes from the first of these places that has it: command line, environment, `stateside.toml`, default.

- Command line: `stateside proxy --http-port 9001`.
- Environment: `STATESIDE_` and the key in capitals, such as `STATESIDE_HTTP_PORT=9001`. The names of the Cloudstate
  reference proxy work as they are; they stand in the table. Where both are set, the `STATESIDE_` name wins.
- File: `http_port = 9001` in `stateside.toml` in the working directory, or in the file that `--config` or
  `STATESIDE_CONFIG` names.

An unknown key or `STATESIDE_` variable, or an impossible value, stops the start with exit code 2 and one line that says
what is allowed. Variables that Kubernetes sets for Services (`..._SERVICE_HOST`, `..._PORT=tcp://...`) are passed over.

Durations: `30s`, `100ms`, `1m`, `12h`, `2d`, or a number of seconds. Sizes: `512K`, `12M`, `1G` (units of 1024), or a
number of bytes.
"""

_COLUMNS = "| Key | Default | Allowed | Meaning | Reference environment |\n|---|---|---|---|---|\n"


def configuration_page() -> str:
    """The whole page in Markdown."""
    parts = [_HEAD]
    for group, settings in groupby(TABLE, key=lambda setting: setting.group):
        parts.append(f"\n## {group}\n\n{_COLUMNS}" + "".join(map(_line, settings)))
    return "".join(parts)


def _line(setting: Setting) -> str:
    default = setting.kind.show(setting.default)
    cells = [
        f"`{setting.key}`",
        f"`{default}`" if default else "",
        setting.kind.allowed(),
        setting.meaning,
        ", ".join(f"`{name}`" for name in setting.reference_names),
    ]
    return "| " + " | ".join(cells) + " |\n"


if __name__ == "__main__":
    print(configuration_page(), end="")
