"""Hooks of the documentation site: help texts as pages, and links that leave the folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

from polyres.cli.main import COMMANDS, load_command

_OUTSIDE = re.compile(r"\[([^]]+)\]\((?:\.\./)+(?:CONTRIBUTING|(?:src|tests|benchmarks|recipes)/)[^)]*\)")


def help_of(words: list[str]) -> str:
    """Return the help of a command as it is printed 100 columns wide."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "polyres", *words, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip("\n")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill the page of commands; links to code, which the site does not hold, become their text."""
    del config, files
    if page.file.src_uri == "reference/commands.md":
        for name in COMMANDS:
            texts = [[name], *([name, one] for one in getattr(load_command(name), "commands", ()))]
            for words in texts:
                head = "##" if len(words) == 1 else "###"
                markdown += f"\n{head} {' '.join(words)}\n\n```text\n{help_of(words)}\n```\n"
        return markdown
    return _OUTSIDE.sub(r"\1", markdown)
