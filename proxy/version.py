"""The version of the proxy, as ProxyInfo and `--version` tell it; a test compares it with pyproject.toml."""

VERSION = "0.1.0"
