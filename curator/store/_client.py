"""The SDK's client for a container, with HTTP that is bounded and keeps secrets out of logs."""

from __future__ import annotations

import io
import logging
import re
from typing import TYPE_CHECKING, Any, Final

import requests
import urllib3
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient, LinearRetry

from curator.errors import IntegrityError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from curator.store._location import AzureLocation

CHUNK: Final = 256 * 1024
CONNECTIONS: Final = 32
_SIGNATURE = re.compile(r"\bsig=[^&\s\"']*")


def container_client(
    place: AzureLocation, certificates: str | None, *, limit_bytes: int
) -> ContainerClient:
    """Return a client of a container that tries everything once; nothing is asked yet.

    A document of `limit_bytes` is written and read by one request.
    """
    for name in ("azure.core", "azure.storage"):
        # What the SDK tells of requests and answers is in our own words already.
        logging.getLogger(name).setLevel(logging.ERROR)
    return ContainerClient(
        place.endpoint,
        place.container,
        credential=_credential(place),
        transport=_Transport(certificates, limit_bytes),
        retry_policy=LinearRetry(retry_total=0),
        permit_redirects=False,
        max_single_put_size=limit_bytes,
        max_single_get_size=limit_bytes + 1,
    )


def _credential(
    place: AzureLocation,
) -> AzureSasCredential | AzureNamedKeyCredential | TokenCredential:
    if place.sas:
        for name in ("urllib3.connectionpool", "urllib3.connection"):
            logging.getLogger(name).addFilter(_unsigned)
        return AzureSasCredential(place.sas)
    if place.key:
        return AzureNamedKeyCredential(place.account, place.key)
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - the slowest of them

    return DefaultAzureCredential()


def _unsigned(record: logging.LogRecord) -> bool:
    """Take the signature out of what the HTTP client logs."""
    record.msg, record.args = _SIGNATURE.sub("sig=...", record.getMessage()), ()
    return True


class _Transport(RequestsTransport):  # type: ignore[misc] # the SDK loads it late
    """HTTP for the SDK, which reads each download as a whole and within bounds.

    The SDK would decode it first, and read what broke off again by a loop of its own.
    """

    def __init__(self, certificates: str | None, limit_bytes: int) -> None:
        session = requests.Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS))
        # Requests are signed already: a ~/.netrc must not replace that.
        session.auth = _unchanged
        super().__init__(session=session, connection_verify=certificates or True)
        self._limit = limit_bytes

    def send(self, request: Any, *, proxies: Any = None, **options: Any) -> Any:  # noqa: ANN401 - the SDK's own
        """Send a request; the answer to a download is read already."""
        response: Any = super().send(request, proxies=proxies, **options)
        if options.get("stream"):
            answer = response.internal_response
            answer.raw = io.BytesIO(_received(answer, self._limit + 1))
        return response


def _received(answer: requests.Response, limit_bytes: int) -> bytes:
    """Return a body as it was sent, not decoded."""
    received = bytearray()
    try:
        for chunk in answer.raw.stream(CHUNK, decode_content=False):
            received += chunk
            if len(received) > limit_bytes:
                answer.raw.close()
                raise IntegrityError(f"an answer has more than {limit_bytes} bytes")
    except urllib3.exceptions.HTTPError as error:
        raise ServiceResponseError(type(error).__name__, error=error) from error
    return bytes(received)


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
