"""Copy the scripts of examples/ into the documentation, below the comments that name them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "building.md"
_BLOCK = re.compile(r"(?P<head><!-- (?P<file>examples/\w+\.py) -->\n```python\n).*?^```$", re.DOTALL | re.MULTILINE)


def with_examples(text: str) -> str:
    """Return a page in which each code block below a comment such as `<!-- examples/own_loss.py -->` is that file."""
    return _BLOCK.sub(lambda block: block["head"] + (ROOT / block["file"]).read_text(encoding="utf-8") + "```", text)


if __name__ == "__main__":
    PAGE.write_text(with_examples(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
