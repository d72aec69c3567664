"""Writers to a store in Azure, against each other and on bad days: everything is decided right."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from curator.errors import ConflictError, TemporaryError
from tests.azurite import Azurite, BlobProxy, count_up, data
from tests.faults import Fault, Kind, always, answer, matching, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.ports import Store
    from tests.faults import Exchange, Plan, Request

SPAWN = multiprocessing.get_context("spawn")
DOCUMENT = json.dumps({"entries": ["pytorch-2.9.1-cuda12.8-py3.12"] * 40}).encode()
RESET_AFTER = Fault(kind=Kind.RESET_AFTER)
BAD_DAYS = (
    answer(408),
    answer(500),
    answer(502),
    answer(429, retry_after="0"),
    answer(503, retry_after="1"),
    Fault(kind=Kind.RESET_BEFORE),
    RESET_AFTER,
    Fault(kind=Kind.TRUNCATE),
)


@pytest.fixture
def container(azurite: Azurite) -> str:
    """A container that stands there, empty."""
    return azurite.created()


@pytest.fixture
def store(azurite: Azurite, container: str) -> Store:
    return azurite.store(container)


def count_up_in_a_process(connection: str, container: str, times: int) -> None:
    count_up(Azurite(connection=connection).store(container), times)


def test_processes_lose_no_replacement(azurite: Azurite, container: str, store: Store) -> None:
    arguments = (azurite.connection, container, 8)
    processes = [SPAWN.Process(target=count_up_in_a_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert data(store, "v1/count") == b"24"


def asked_to_wait(exchanges: list[Exchange]) -> list[tuple[float, float]]:
    """Return (asked, waited) in seconds of each exchange that asked to wait."""
    found = []
    for before, after in itertools.pairwise(exchanges):
        asked = before.fault and before.fault.headers.get("Retry-After")
        if asked:
            found.append((float(asked), after.request.at - before.request.at))
    return found


@pytest.mark.parametrize(("share", "seed", "times"), [(0.2, 1, 12), (0.5, 5, 4)])
def test_on_bad_days_everything_is_written_once(
    azurite: Azurite, container: str, store: Store, share: float, seed: int, times: int
) -> None:
    plan = seeded(seed, share=share, faults=BAD_DAYS)
    with BlobProxy(azurite.address, plan) as proxy:
        client = azurite.through(proxy.address).store(container)
        assert count_up(client, times) == 0
        paths = [f"v1/gen/{number}.json" for number in range(times)]
        for path in paths:
            client.add(path, f"{path} {DOCUMENT!r}".encode())
        assert client.list("v1/gen/") == tuple(sorted(paths))
        faults = [exchange.fault for exchange in proxy.exchanges if exchange.fault]
        waits = asked_to_wait(proxy.exchanges)
    assert data(store, "v1/count") == str(times).encode()
    assert [data(store, path) for path in paths] == [f"{x} {DOCUMENT!r}".encode() for x in paths]
    assert len(faults) > times * share
    assert waits
    assert all(waited >= asked for asked, waited in waits)


def test_writers_on_a_bad_day_lose_and_repeat_nothing(
    azurite: Azurite, container: str, store: Store
) -> None:
    faults = tuple(fault for fault in BAD_DAYS if not fault.headers)
    with BlobProxy(azurite.address, seeded(4, share=0.3, faults=faults)) as proxy:
        client = azurite.through(proxy.address).store(container)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: count_up(client, 5), range(4)))
    assert data(store, "v1/count") == b"20"


def test_an_add_whose_answer_was_lost_is_found(azurite: Azurite, container: str) -> None:
    with BlobProxy(azurite.address, matching("^PUT", RESET_AFTER, times=1)) as proxy:
        store = azurite.through(proxy.address).store(container)
        store.add("v1/x", DOCUMENT)
        assert data(store, "v1/x") == DOCUMENT
        assert [exchange.fault for exchange in proxy.exchanges[:2]] == [RESET_AFTER, None]


def test_a_replacement_whose_answer_was_lost_is_found(azurite: Azurite, container: str) -> None:
    with BlobProxy(azurite.address, matching("^PUT", RESET_AFTER, times=1)) as proxy:
        store = azurite.through(proxy.address).store(container)
        first = store.replace("v1/head", b"1", None)
        proxy.plan = matching("^PUT", RESET_AFTER, times=1)
        second = store.replace("v1/head", b"2", first)
        third = store.replace("v1/head", b"2", second)
        assert third != second
        assert data(store, "v1/head") == b"2"


def interrupted_by(intruder: Callable[[], object], first: Fault) -> Plan:
    """Plan a fault for the first write, and that somebody else writes before the second."""
    writes: list[Request] = []

    def plan(request: Request) -> Fault | None:
        if request.method != "PUT":
            return None
        writes.append(request)
        if len(writes) == 2:
            intruder()
        return first if len(writes) == 1 else None

    return plan


def test_a_replacement_that_landed_and_was_replaced_since_counts(
    azurite: Azurite, container: str, store: Store
) -> None:
    first = store.replace("v1/count", b"1", None)
    with BlobProxy(azurite.address) as proxy:
        proxy.plan = interrupted_by(lambda: count_up(store, 3), RESET_AFTER)
        client = azurite.through(proxy.address).store(container)
        etag = client.replace("v1/count", b"2", first)
        assert data(store, "v1/count") == b"5"
        with pytest.raises(ConflictError):
            client.replace("v1/count", b"3", etag)


def test_a_replacement_that_did_not_land_and_came_too_late_is_a_conflict(
    azurite: Azurite, container: str, store: Store
) -> None:
    first = store.replace("v1/count", b"1", None)
    with BlobProxy(azurite.address) as proxy:
        proxy.plan = interrupted_by(lambda: count_up(store, 1), Fault(kind=Kind.RESET_BEFORE))
        with pytest.raises(ConflictError, match="expected"):
            azurite.through(proxy.address).store(container).replace("v1/count", b"2", first)
    assert data(store, "v1/count") == b"2"


def test_a_creation_that_somebody_else_made_with_the_same_bytes_is_a_conflict(
    azurite: Azurite, container: str, store: Store
) -> None:
    with BlobProxy(azurite.address) as proxy:
        proxy.plan = interrupted_by(
            lambda: store.replace("v1/head", b"1", None), Fault(kind=Kind.RESET_BEFORE)
        )
        with pytest.raises(ConflictError):
            azurite.through(proxy.address).store(container).replace("v1/head", b"1", None)


def test_what_stays_unknown_is_temporary_and_the_same_call_finds_out(
    azurite: Azurite, container: str
) -> None:
    with BlobProxy(azurite.address, matching("^PUT", RESET_AFTER)) as proxy:
        store = azurite.through(proxy.address).store(container, deadline_s=0.5)
        # The write lands at once, the others find it there: no answer ever comes back.
        with pytest.raises(TemporaryError, match="try again") as caught:
            store.add("v1/x", b"x")
        with pytest.raises(TemporaryError):
            store.replace("v1/head", b"1", None)
        proxy.plan = seeded(0, share=0)
        store.add("v1/x", b"x")
        assert data(store, "v1/head") == b"1"
    assert (caught.value.retryable, caught.value.__context__) == (True, None)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_nobody_asks_again_before_the_time_that_the_service_named(
    azurite: Azurite, container: str, form: str
) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    text = "1" if form == "seconds" else format_datetime(until, usegmt=True)
    fault = answer(503, retry_after=text, headers={"x-ms-error-code": "ServerBusy"})
    with BlobProxy(azurite.address, matching(".", fault, times=1)) as proxy:
        assert azurite.through(proxy.address).store(container).read("v1/x") is None
        first, second = (exchange.request.at for exchange in proxy.exchanges)
    assert second - first >= 1 if form == "seconds" else datetime.now(UTC) >= until


def test_who_is_asked_to_wait_too_long_says_so_at_once(azurite: Azurite, container: str) -> None:
    with BlobProxy(plan=always(answer(503, retry_after="3600"))) as proxy:
        store = azurite.through(proxy.address).store(container)
        before = time.monotonic()
        with pytest.raises(TemporaryError):
            store.add("v1/x", b"x")
        assert (len(proxy.exchanges), time.monotonic() - before < 5) == (1, True)


def test_attempts_end_at_the_deadline(azurite: Azurite, container: str) -> None:
    with BlobProxy(plan=always(answer(500))) as proxy:
        before = time.monotonic()
        with pytest.raises(TemporaryError):
            azurite.through(proxy.address).store(container, deadline_s=1.0).list("")
        assert time.monotonic() - before < 2
        assert len(proxy.exchanges) > 2


def test_threads_share_a_store(store: Store) -> None:
    together = threading.Barrier(12)

    def work(number: int) -> bytes:
        together.wait()
        store.add(f"v1/{number}", DOCUMENT * number)
        return data(store, f"v1/{number}")

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(work, range(12))) == [DOCUMENT * number for number in range(12)]
