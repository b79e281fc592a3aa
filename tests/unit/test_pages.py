"""What of a page is run: its ```sh blocks, in order, and what happens between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import Step, steps

_PAGE = """# A page

```sh
DISK=/dev/sdd
echo $DISK
```

1. In a list:

   <!-- test: pull the disk 2 -->

   ```sh ends=2 needs=resize
   sudo pacs check
   ```

```text
not run
```
"""


def test_blocks_and_what_happens_between_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(_PAGE)
    assert steps(page) == [
        Step(3, "DISK=/dev/sdd\necho $DISK\n"),
        Step(10, hook="pull_the_disk_2"),
        Step(12, "sudo pacs check\n", ends=2, needs="resize"),
    ]


@pytest.mark.parametrize(
    "text", ["```sh\nnever closed\n", "```\nof no kind\n```\n", "```sh end=2\nx\n```\n", "<!-- test: Fill! -->\n"]
)
def test_what_is_not_understood_is_not_passed_over(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page\.md|line 1"):
        steps(page)
