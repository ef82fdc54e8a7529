from __future__ import annotations

import pytest

from ociforge.conda.url import shipped_channel, shipped_url, without_credentials


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://conda.example/main/linux-64/a-1-0.conda", "https://conda.example/main/linux-64/a-1-0.conda"),
        ("https://me:secret@conda.example:8443/x", "https://conda.example:8443/x"),
        ("https://token@conda.example/x", "https://conda.example/x"),
        ("https://conda.example/t/tk-12_3/main/linux-64/a.conda", "https://conda.example/main/linux-64/a.conda"),
        ("https://conda.example/t/tk-123", "https://conda.example/"),
        ("https://conda.example/t/", "https://conda.example/t/"),
        ("https://conda.example/x?token=1#md5", "https://conda.example/x"),
        ("https://[::1]:80/x", "https://[::1]:80/x"),
        ("https://[::1/x", "https://[::1/x"),
        ("s3://key:secret@bucket/x", "s3://bucket/x"),
        ("file:///srv/t/main/a.conda", "file:///srv/t/main/a.conda"),
        ("conda-forge", "conda-forge"),
    ],
)
def test_credentials_are_dropped(url: str, expected: str) -> None:
    assert without_credentials(url) == expected


def test_a_local_archive_ships_no_directory_of_the_host() -> None:
    assert shipped_url("file:///home/me/ch/linux-64/a.conda", subdir="linux-64", filename="a.conda") == (
        "file:///linux-64/a.conda"
    )
    assert shipped_channel("file:///home/me/ch/") == "file:///"


def test_a_remote_archive_ships_its_public_address() -> None:
    url = "https://u:p@conda.example/t/tk/main/noarch/a.conda"
    assert shipped_url(url, subdir="noarch", filename="a.conda") == "https://conda.example/main/noarch/a.conda"
    assert shipped_channel("https://u:p@conda.example/t/tk/main/") == "https://conda.example/main/"
    assert shipped_channel("conda-forge") == "conda-forge"
