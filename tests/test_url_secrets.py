"""What is shown of addresses."""

from __future__ import annotations

import pytest

from ociforge.url_secrets import public


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@h/x", "https://h/x"),
        ("https://me:p@w@h/x", "https://h/x"),
        ("git+ssh://git@h/x@v1", "git+ssh://h/x@v1"),
        ("https://h/x@v1", "https://h/x@v1"),
        ("./a@b", "./a@b"),
        ("HTTPS://me:pw@h", "HTTPS://h"),
        ("https://h/t/to-ken/ch/", "https://h/ch/"),
        ("https://me:pw@h:8/get/t/to-ken/ch/linux-64", "https://h:8/get/ch/linux-64"),
        ("https://t/x/y/", "https://t/x/y/"),
        ("file:///home/t/x/ch/", "file:///home/t/x/ch/"),
        ("direct+https://h/a.whl?key=secret#sha256=0", "direct+https://h/a.whl#sha256=0"),
        ("git+https://me:pw@h/r?tag=v1#abc", "git+https://h/r?tag=v1#abc"),
        ("`a @ https://u:p@h/x`, not `https://v:q@i/?k=1` or c@d", "`a @ https://h/x`, not `https://i/` or c@d"),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert public(text) == shown
