from __future__ import annotations

import pytest

from ociforge.events import Event, Warned
from ociforge.network import Mirrors, Place, Route, prefix_problem

FORGE = "https://conda.anaconda.org/conda-forge/"
MIRRORS = Mirrors(
    prefixes={
        "https://conda.anaconda.org": ("https://near.example/conda", "file:///srv/conda/"),
        FORGE: ("oci://ghcr.io/channel-mirrors/conda-forge",),
    }
)


def urls(mirrors: Mirrors, url: str, public: str | None = None) -> list[str]:
    return [place.url for place in mirrors.places(url, public or url)]


def test_mirrors_are_tried_in_order_and_the_url_itself_last() -> None:
    url = "https://conda.anaconda.org/bioconda/noarch/a-1-0.conda"
    assert MIRRORS.places(url, url) == (
        Place(url="https://near.example/conda/bioconda/noarch/a-1-0.conda", mirror="https://near.example/conda"),
        Place(url="file:///srv/conda/bioconda/noarch/a-1-0.conda", mirror="file:///srv/conda/"),
        Place(url=url),
    )


def test_the_longest_prefix_counts() -> None:
    assert urls(MIRRORS, f"{FORGE}noarch/a.conda") == [
        "oci://ghcr.io/channel-mirrors/conda-forge/noarch/a.conda",
        f"{FORGE}noarch/a.conda",
    ]


@pytest.mark.parametrize("url", ["https://conda.anaconda.org.evil/a", "http://conda.anaconda.org/a", "https://a/b"])
def test_a_prefix_ends_where_a_name_ends(url: str) -> None:
    assert urls(MIRRORS, url) == [url]


def test_mirrors_are_told_no_credentials() -> None:
    secret = "https://u:pw@conda.anaconda.org/t/tk-1/bioconda/a.conda?sig=1"
    public = "https://conda.anaconda.org/bioconda/a.conda"
    assert urls(MIRRORS, secret, public) == [
        "https://near.example/conda/bioconda/a.conda",
        "file:///srv/conda/bioconda/a.conda",
        secret,
    ]


def test_what_a_url_stands_for() -> None:
    mirrors = Mirrors(
        prefixes={
            "https://pypi.org/simple": ("https://u:pw@m.example/t/tk/pypi/simple/",),
            "https://a/": ("https://m.example",),
        }
    )
    assert mirrors.original("https://m.example/pypi/simple/x/") == "https://pypi.org/simple/x/"
    assert mirrors.original("https://m.example/other") == "https://a/other"
    assert mirrors.original("https://elsewhere/x") == "https://elsewhere/x"
    assert urls(mirrors, "https://a")[0] == "https://m.example"


def test_the_mirror_on_whose_host_something_is() -> None:
    mirrors = Mirrors(
        prefixes={
            "https://pypi.org/simple": ("https://user:secret@m.example/simple",),
            "https://files.pythonhosted.org/": ("file:///srv/pypi/",),
            "https://own.example/a": ("https://own.example/b",),
        }
    )
    for url in ("https://m.example/files/a.whl", "https://u:p@m.example/simple/a.whl"):
        assert mirrors.host_of(url) == "https://m.example/simple"
    for url in (
        "https://files.pythonhosted.org/a.whl",  # as it is to be locked
        "https://else.example/a.whl",
        "https://own.example/b/a.whl",  # where originals are, too
        "file:///srv/pypi/a.whl",
    ):
        assert mirrors.host_of(url) is None


def test_variables_replace_the_settings_prefix_by_prefix() -> None:
    above = Mirrors(prefixes={FORGE.rstrip("/"): ("https://x",)})
    assert above.over(MIRRORS).prefixes == {
        "https://conda.anaconda.org": MIRRORS.prefixes["https://conda.anaconda.org"],
        FORGE.rstrip("/"): ("https://x",),
    }


def test_offline_only_this_machine_is_left() -> None:
    route = Route(MIRRORS, offline=True)
    url = "https://conda.anaconda.org/x/a"
    assert [place.url for place in route.places(url, url)] == ["file:///srv/conda/x/a"]
    assert route.places("https://elsewhere/a", "https://elsewhere/a") == ()
    assert route.places("file:///a", "file:///a") == (Place(url="file:///a"),)


def test_a_mirror_that_fails_is_left_out_and_one_that_lacks_something_is_not() -> None:
    events: list[Event] = []
    mirror = "https://u:pw@near.example/t/tk-1/conda"
    route = Route(Mirrors(prefixes={"https://far.example/": (mirror,)}), notify=events.append)
    url = "https://far.example/a"
    for _ in range(2):
        route.leave(mirror, "404", lacks=True)
    assert [place.url for place in route.places(url, url)] == [f"{mirror}/a", url]
    for _ in range(2):
        route.leave(mirror, "connection refused", lacks=False)
    assert route.places(url, url) == (Place(url=url),)
    assert events == [
        Warned("the mirror `https://near.example/conda` does not have everything: the rest comes from elsewhere"),
        Warned("the mirror `https://near.example/conda` is passed over: connection refused"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("https://a.example/b", None),
        ("file:///srv", None),
        ("oci://ghcr.io/x", None),
        ("ftp://a.example", "expected a URL that begins with"),
        ("a.example/b", "expected a URL that begins with"),
        ("https://", "a URL without a host"),
        ("https://a.example/?x=1", "a prefix of URLs has no `?` and no `#`"),
        ("https://[::1/", "no URL"),
        ("https://u:pw@a.example", "credentials belong into the mirror's URL"),
    ],
)
def test_what_is_a_prefix(text: str, problem: str | None) -> None:
    found = prefix_problem(text, mirror=False)
    assert found is None if problem is None else found is not None and found.startswith(problem)
    if "@" in text:
        assert prefix_problem(text, mirror=True) is None
