"""Hooks of the documentation site: help texts as pages, and links that leave the folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from polyres.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
_GROUPS = {"models": ("fetch", "push"), "runs": ("list", "compare"), "data": ("check", "index")}
_OUTSIDE = re.compile(r"\]\((?:\.\./)+((?!docs/)[^)#]+)(#[^)]*)?\)")


def help_of(words: list[str]) -> str:
    """Return the help of a command as it is printed 100 columns wide."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "polyres", *words, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip("\n")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill the page of commands; turn links to files beside `docs` into their names."""
    del config, files
    if page.file.src_uri == "reference/commands.md":
        for name in COMMANDS:
            texts = [[name], *([name, one] for one in _GROUPS.get(name, ()))]
            for words in texts:
                head = "##" if len(words) == 1 else "###"
                markdown += f"\n{head} {' '.join(words)}\n\n```text\n{help_of(words)}\n```\n"
        return markdown
    return _OUTSIDE.sub(lambda found: f"](#){{title='{found[1]}'}}", markdown)
