"""`python -m stateside.journal`: the commands of `stateside journal` without the proxy."""

from stateside.journal.cli import journal

journal(prog_name="stateside journal")
