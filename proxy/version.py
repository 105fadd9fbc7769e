"""The version of the proxy, as ProxyInfo and `--version` tell it. A test holds it equal to the one in pyproject.toml."""

VERSION = "0.1.0"
