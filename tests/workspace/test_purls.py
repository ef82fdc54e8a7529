from __future__ import annotations

import pytest
from rattler import BuildString, PackageRecord, RepoDataRecord

from ociforge.workspace.purls import purls_of, stated_purls

FORGE = "https://conda.anaconda.org/conda-forge/noarch/a-1.0-0.conda"
ELSEWHERE = "https://conda.anaconda.org/bioconda/noarch/a-1.0-0.conda"


def record(url: str, *depends: str) -> RepoDataRecord:
    made = PackageRecord("a", "1.0", BuildString("0"), 0, "noarch", depends=list(depends))
    return RepoDataRecord(made, url.rpartition("/")[2], url, url.rpartition("/")[0].rpartition("/")[0])


@pytest.mark.parametrize(
    ("url", "depends", "purls"),
    [
        (FORGE, ["python >=3.9"], ("pkg:pypi/a",)),
        (FORGE, ["python_abi 3.12.* *_cp312", "libc"], ("pkg:pypi/a",)),
        (FORGE, ["pythonic", "libc"], ()),
        (FORGE, [], ()),
        (ELSEWHERE, ["python >=3.9"], ()),
        ("file:///srv/conda-forge/noarch/a-1.0-0.conda", ["python"], ()),
    ],
)
def test_what_is_assumed(url: str, depends: list[str], purls: tuple[str, ...]) -> None:
    assert stated_purls(record(url, *depends)) is None
    assert purls_of(record(url, *depends), {}) == purls


def test_what_was_known_before_beats_what_is_assumed() -> None:
    assert purls_of(record(FORGE, "python"), {FORGE: ("pkg:pypi/b",)}) == ("pkg:pypi/b",)
    assert purls_of(record(FORGE, "python"), {FORGE: ()}) == ()
