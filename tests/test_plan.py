from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from layers.digest import Digest
from ociforge.errors import BuildError
from ociforge.plan import Group, Kind, Member, Recipe, partition

if TYPE_CHECKING:
    import random


def member(name: str, size: int = 1, version: str = "1", python: str | None = None, kind: Kind = "conda") -> Member:
    archive = Digest.of(f"{name}{version}".encode())
    return Member(
        kind=kind,
        name=name,
        version=version,
        archive=archive,
        size=size,
        record=Digest.of(name.encode()),
        python=python,
    )


members_strategy = st.lists(
    st.builds(member, st.text("abcdefghij-", min_size=1, max_size=8), st.integers(0, 5000)),
    unique_by=lambda m: m.name,
    max_size=60,
)


@given(members_strategy, st.integers(1, 50), st.randoms(use_true_random=False))
def test_partition_is_complete_disjoint_within_budget_and_independent_of_order(
    members: list[Member], budget: int, chance: random.Random
) -> None:
    together = [[m.id for m in chance.sample(members, min(2, len(members)))]] if members else []
    groups = partition(members, budget=budget, together=together)
    assert sorted(m.name for g in groups for m in g.members) == sorted(m.name for m in members)
    assert len(groups) <= budget
    assert all(g.members for g in groups)
    for ids in together:
        assert sum(bool({m.id for m in g.members} & set(ids)) for g in groups) == 1
    shuffled = list(members)
    chance.shuffle(shuffled)
    assert partition(shuffled, budget=budget, together=together) == groups


def names(groups: tuple[Group, ...]) -> list[list[str]]:
    return [[m.name for m in g.members] for g in groups]


def test_up_to_the_budget_every_package_has_its_own_layer() -> None:
    groups = partition([member("b", 5), member("a", 1), member("c", 9)], budget=3)
    assert names(groups) == [["a"], ["b"], ["c"]]


def test_above_the_budget_four_fifths_are_the_largest_and_the_rest_bins_by_name() -> None:
    members = [member(f"p{i:02}", size=1000 - i) for i in range(20)]
    groups = partition(members, budget=10)
    assert names(groups)[:8] == [[f"p{i:02}"] for i in range(8)]
    assert sorted(n for g in names(groups)[8:] for n in g) == [f"p{i:02}" for i in range(8, 20)]
    assert len(groups) <= 10


def test_adding_a_small_package_changes_one_bin() -> None:
    members = [member(f"p{i:02}", size=1000 - i) for i in range(60)]
    before, after = partition(members, budget=20), partition([*members, member("new")], budget=20)
    assert len([g for g in after if g not in before]) == 1


def test_packages_that_share_a_path_share_a_layer_transitively() -> None:
    groups = partition(
        [member(n) for n in "abcd"], together=[[("conda", "d"), ("conda", "b")], [("conda", "b"), ("conda", "c")]]
    )
    assert names(groups) == [["a"], ["b", "c", "d"]]


def test_wheels_come_after_conda_packages_and_share_no_layer_with_them() -> None:
    members = [member(f"p{i:02}", size=100 - i, kind="wheel" if i % 2 else "conda") for i in range(40)]
    groups = partition(members, budget=10)
    kinds = [{m.kind for m in g.members} for g in groups]
    assert all(len(kind) == 1 for kind in kinds)
    assert [*map(min, kinds)] == sorted(map(min, kinds))
    assert len(groups) <= 10


def test_a_conda_package_and_a_wheel_may_have_one_name() -> None:
    groups = partition([member("a"), member("a", kind="wheel")])
    assert [[m.id for m in g.members] for g in groups] == [[("conda", "a")], [("wheel", "a")]]


def test_a_budget_of_one_gives_one_layer() -> None:
    assert names(partition([member("a"), member("b")], budget=1)) == [["a", "b"]]


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(BuildError, match="layer budget: 0"):
        partition([], budget=0)


def test_title() -> None:
    assert Group(members=(member("numpy", version="2.1"),)).title == "numpy 2.1"
    assert Group(members=tuple(member(n) for n in "abcde")).title == "a, b, c and 2 more"


recipe = Recipe(codec="gzip", prefix="/app/.pixi/envs/prod", mtime=0)


def test_key_is_pinned_for_the_format() -> None:
    pinned = "3074a5e571d9abe803fb0f3c8f09fd3c33b1a3feb6cf504f0b4ec4b71962a341"
    assert recipe.key([member("a"), member("b")]).hex == pinned


def test_key_ignores_the_order_of_members() -> None:
    assert recipe.key([member("a"), member("b")]) == recipe.key([member("b"), member("a")])


@pytest.mark.parametrize(
    "other",
    [
        Recipe(codec="zstd", prefix=recipe.prefix, mtime=0),
        Recipe(codec="gzip", prefix="/opt/env", mtime=0),
        Recipe(codec="gzip", prefix=recipe.prefix, mtime=1),
        Recipe(codec="gzip", prefix=recipe.prefix, mtime=0, clamp=5),
        Recipe(codec="gzip", prefix=recipe.prefix, mtime=0, parents=("srv 0700",)),
    ],
)
def test_key_depends_on_the_recipe(other: Recipe) -> None:
    assert other.key([member("a")]) != recipe.key([member("a")])


def test_key_depends_on_archive_source_and_python() -> None:
    keys = {
        recipe.key([m])
        for m in (member("a"), member("a", version="2"), member("a", python="lib/python3.12/site-packages"))
    }
    assert len(keys) == 3


def test_bins_of_noarch_packages_are_kept_apart() -> None:
    """Images for two platforms have such bins in common, whatever else differs."""
    shared = [replace(member(f"noarch-{n}", 10), noarch=True) for n in range(60)]
    images = [
        partition([*shared, *(member(f"{platform}-{n}", 11 + n) for n in range(20 + extra))], budget=40)
        for platform, extra in (("amd64", 0), ("arm64", 7))
    ]
    assert all(len(groups) <= 40 for groups in images)
    for groups in images:
        assert all(len({m.noarch for m in group.members}) == 1 for group in groups)


def test_bins_are_mixed_where_there_is_no_room_for_more() -> None:
    members = [*(replace(member(f"n{n}"), noarch=True) for n in range(5)), *(member(f"a{n}") for n in range(5))]
    assert len(partition(members, budget=1)) == 1
