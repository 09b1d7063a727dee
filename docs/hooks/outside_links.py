"""For the site: links of a page to files of the repository that are no pages become plain words.

On GitHub they work; the site holds the pages alone and may be opened where no repository is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Keep each link whose target is a page or a picture of the site."""
    known = {Path(file.src_uri) for file in files}
    here = Path(page.file.src_uri).parent

    def keep(match: re.Match[str]) -> str:
        words, target = match.groups()
        path = Path(os.path.normpath(here / target.partition("#")[0]))
        return match[0] if path in known else words

    return _LINK.sub(keep, markdown)
