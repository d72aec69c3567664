"""What a reader offers, and how what is not offered any more is answered."""

from __future__ import annotations

import logging
import typing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import curator
from curator.cli._ports import now
from curator.errors import InputError, RefusedError
from curator.index import Status
from curator.publish import Committed
from curator.reader import Entry, IndexReader
from tests.publishing import CANDIDATE, REFUSED, Farm
from tests.readers import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.index import State
    from curator.publish import Change


def standing(change: Change, state: State, **more: str) -> Change:
    """Return the same image in another state."""
    status = Status(state=state, reason=f"made {state} by hand", **more)
    return replace(change, entry=change.entry.model_copy(update={"status": status}))


def published(farm: Farm, *changes: Change) -> list[Entry]:
    """Publish, and return what the index holds of it."""
    assert isinstance(farm.publish(*changes, now=now()), Committed)
    return [farm.recorded(change) for change in changes]


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path / "farm")


@pytest.fixture
def index(farm: Farm) -> Iterator[IndexReader]:
    published(farm, farm.change())
    with opened(str(farm.root / "store")) as index:
        yield index


def test_a_failed_build_hides_no_good_one(farm: Farm, index: IndexReader) -> None:
    (good,) = index.entries()
    (failed,) = published(farm, farm.change(build=2, verdict=REFUSED))
    index.refresh()
    assert failed.cell == good.cell
    assert index.entries() == (good,)
    assert index.find(good.cell) == index.find("cupy:14.2") == good


@pytest.mark.parametrize("state", ["yanked", "quarantined", "expired", "unpublished"])
def test_what_is_not_offered_is_in_no_list_and_under_no_tag_or_cell(
    state: State, farm: Farm, index: IndexReader
) -> None:
    (good,) = index.entries()
    (gone,) = published(farm, standing(farm.change("14.2.1"), state))
    index.refresh()
    assert index.entries() == (good,)
    assert index.entries(states={state}) == (gone,)
    assert index.find(gone.cell) is None
    assert index.find(f"cupy:{gone.tags[0]}") is None
    assert index.find("cupy:14.2") == good


@pytest.mark.parametrize("state", ["yanked", "expired", "unpublished"])
def test_an_exact_name_is_answered_with_a_warning(
    state: State, farm: Farm, index: IndexReader, caplog: pytest.LogCaptureFixture
) -> None:
    (gone,) = published(farm, standing(farm.change("14.2.1"), state, replaced_by="cupy-14.2.2"))
    index.refresh()
    for name in (gone.id, gone.digest):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert index.find(name) == gone
        assert f"{gone.id} is {state}: made {state} by hand; it was replaced by" in caplog.text


def test_a_quarantined_image_is_refused(farm: Farm, index: IndexReader) -> None:
    (bad,) = published(farm, standing(farm.change("14.2.1"), "quarantined"))
    index.refresh()
    for name in (bad.id, bad.digest):
        with pytest.raises(RefusedError, match="is quarantined: made quarantined by hand"):
            index.find(name)


def test_a_deprecated_build_of_a_cell_comes_last(farm: Farm, index: IndexReader) -> None:
    (good,) = index.entries()
    (old,) = published(farm, standing(farm.change(build=2), "deprecated"))
    index.refresh()
    assert set(index.entries()) == {good, old}
    assert index.find(good.cell) == good
    assert index.find(old.id) == old


def test_a_moving_tag_leads_into_its_own_repository(farm: Farm, index: IndexReader) -> None:
    published(farm, farm.change("14.1.0", verdict=CANDIDATE))
    index.refresh()
    found = index.find("candidate/cupy:14.1")
    assert found is not None
    assert found.repository == "candidate/cupy"
    assert index.find("cupy:14.1") is None


def test_versions_are_beginnings_or_ranges(farm: Farm, index: IndexReader) -> None:
    published(farm, farm.change("14.1.0", cuda="13.0"), farm.change("13.6.0"))
    index.refresh()

    def versions(version: str | None = None, cuda: str | None = None) -> list[str]:
        return [entry.stack.version for entry in index.entries(version=version, cuda=cuda)]

    assert versions(">=14") == ["14.1.0", "14.2.0"]
    assert versions(">=14,<14.2") == versions("==14.1.*") == ["14.1.0"]
    assert versions("~=13.5") == versions("13") == ["13.6.0"]
    assert versions(cuda=">=13") == ["14.1.0"]
    for wrong in ("14.", "14.2.*", "newest"):
        with pytest.raises(InputError, match="neither a version"):
            index.entries(version=wrong)
        with pytest.raises(InputError, match="neither a version"):
            index.entries(cuda=wrong)


def test_its_types_can_be_looked_up_by_those_who_annotate(index: IndexReader) -> None:
    assert typing.get_type_hints(curator.open_index)["return"] is IndexReader
    assert isinstance(index, IndexReader)
    assert isinstance(index.entries()[0], Entry)
