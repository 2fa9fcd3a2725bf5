"""From a registry's URL to its storage, and from what an object store answers to one clear error.

fsspec and s3fs are imported here, and only when a URL is opened. Credentials, region and endpoint come from the usual
places (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`, profiles).
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ocad_registry.errors import Invalid, RemoteError, StorageFailed
from ocad_registry.storage_local import LocalStorage

if TYPE_CHECKING:
    from ocad_registry.storage import Storage

CONDITIONAL = frozenset({"memory", "s3", "s3a"})
"""Protocols whose fsspec file system is known to create an object only if it is absent: many take `mode="create"` and
replace all the same, or look first and then write. `memory` ends with its process."""
ATTEMPTS = 6
"""How often a request is sent in all where the server asks to slow down or the connection fails (`AWS_MAX_ATTEMPTS`)."""
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_ACCESS = "check `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and what that user may do with the bucket"
_CUT_BODIES = frozenset({"ClientPayloadError", "IncompleteRead", "IncompleteReadError", "ResponseStreamingError"})
_FOREIGN = ("botocore", "aiobotocore", "aiohttp")

Result = TypeVar("Result")


class _Cause(NamedTuple):
    """What a family of answers means: `code` of the error, its text, what to do."""

    code: str
    text: str
    hint: str


_DENIED = _Cause("no-access", "the server refuses these credentials ({code})", _ACCESS)
_THROTTLED = _Cause(
    "throttled",
    "the server asks to slow down ({code}), and did so each time",
    "try again later, or raise `AWS_MAX_ATTEMPTS`",
)
_FAILING = _Cause("storage", "the server fails ({code})", "look at its log, and try again")
_REGION = _Cause("wrong-region", "the bucket is in another region ({code})", "set `AWS_REGION` to the bucket's region")
_NO_BUCKET = _Cause(
    "no-bucket", "there is no such bucket", "create it, or correct the registry's URL and `AWS_ENDPOINT_URL`"
)
_SKEWED = _Cause(
    "clock-skew", "this machine's clock is too far from the server's ({code})", "set the clock (`timedatectl` shows it)"
)
_KNOWN = {
    **dict.fromkeys(
        ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403", "401"),
        _DENIED,
    ),
    **dict.fromkeys(("SlowDown", "ServiceUnavailable", "Throttling", "TooManyRequests", "503", "429"), _THROTTLED),
    **dict.fromkeys(("InternalError", "500", "502", "504"), _FAILING),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed", "301", "307"), _REGION),
    "NoSuchBucket": _NO_BUCKET,
    "RequestTimeTooSkewed": _SKEWED,
}
_NAMED = {
    "NoCredentialsError": _Cause(
        "no-access", "no credentials were found", "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`"
    ),
    "PartialCredentialsError": _Cause("no-access", "half of the credentials is missing", _ACCESS),
    "EndpointConnectionError": _Cause(
        "unreachable", "no server answers at `{endpoint}`", "check `AWS_ENDPOINT_URL` and the network"
    ),
    "ConnectTimeoutError": _Cause(
        "unreachable", "no server answers at `{endpoint}`", "check `AWS_ENDPOINT_URL` and the network"
    ),
    "ParamValidationError": _Cause(
        "storage", "the request is not legal", "correct the bucket and prefix of the registry's URL"
    ),
}
_CUT = _Cause("connection", "the connection was cut, and each new one too", "check the network, and try again")


def open_storage(place: str, *, private: bool = False) -> Storage:
    """The storage at `place`: a folder, or the URL of a bucket and prefix such as `s3://bucket/models`.

    With `private`, files are opened as copies that nobody else can change. Raises `Invalid` for a protocol that cannot create
    an object only if it is absent, and when its package is missing.
    """
    protocol, separator, rest = place.partition("://")
    if not separator:
        return LocalStorage(place, private=private)
    if protocol not in CONDITIONAL:
        known = ", ".join(f"`{name}://`" for name in sorted(CONDITIONAL - {"memory"}))
        raise Invalid(
            f"`{place}` is neither a folder nor a store that keeps versions safe", f"use a folder, or {known}"
        )
    if not rest.strip("/"):
        raise Invalid(f"`{place}` names no bucket", "use such as `s3://bucket/models`")
    from ocad_registry.storage_objects import ObjectStorage

    return ObjectStorage(place, private=private)


def connect(url: str) -> Any:
    """A new fsspec file system for `url`, without caches, its requests retried within bounds."""
    protocol = url.partition("://")[0]
    try:
        import fsspec

        if protocol in ("s3", "s3a"):
            return _connect_s3(fsspec, protocol)
        return fsspec.filesystem(protocol)
    except ImportError as error:
        hint = "`pip install 'ocad-registry[s3]'`"
        raise Invalid(f"`{url}` needs a package that is missing ({error.name})", hint) from None
    except Exception as error:
        raise StorageFailed(f"cannot connect to `{url}` ({_one_line(error)})", _ACCESS) from error


def _connect_s3(fsspec: Any, protocol: str) -> Any:
    retries = {
        "mode": os.environ.get("AWS_RETRY_MODE", "standard"),
        "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS") or ATTEMPTS),
    }
    endpoint = _endpoint()
    config: dict[str, Any] = {"retries": retries, "connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
    if endpoint:
        # servers other than AWS have no name for each bucket, and not all of them know the newer checksums
        config |= {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    system = fsspec.filesystem(
        protocol, skip_instance_cache=True, use_listings_cache=False, endpoint_url=endpoint, config_kwargs=config
    )
    system.retries = 1  # botocore's retries are enough: s3fs would multiply them
    return system


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Lets `FileNotFoundError` and `FileExistsError` pass; whatever else the store says becomes a `RemoteError`.

    A lost conditional put is `FileExistsError` on every server; a missing bucket is no `FileNotFoundError`.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RemoteError):
            raise
        code = _code(error)
        if code in ("PreconditionFailed", "412"):
            raise FileExistsError(errno.EEXIST, "it exists", url) from error
        if isinstance(error, FileNotFoundError | FileExistsError) and code != "NoSuchBucket":
            raise
        if not _is_remote(error):
            raise
        cause = _KNOWN.get(code) or _NAMED.get(type(error).__name__) or _other(error, code)
        text = cause.text.format(code=f"`{code}`", endpoint=_endpoint() or "AWS")
        raise RemoteError(cause.code, f"`{url}`: {text}", cause.hint) from error


def patiently(url: str, request: Callable[[], Result]) -> Result:
    """The result of `request`, sent again, later and later, where its answer was cut off or another writer was in its way.

    What the server itself refuses (throttling included) was retried below already, each single request by itself.
    """
    for attempt in range(ATTEMPTS):
        try:
            with translated(url):
                return request()
        except RemoteError as error:
            if attempt == ATTEMPTS - 1 or not _is_passing(error):
                raise
            time.sleep(random.uniform(0.5, 1.0) * min(0.1 * 2**attempt, 2.0))
    raise AssertionError


def _is_passing(error: RemoteError) -> bool:
    """Whether it is worth asking again: not for connections that fail at once, which botocore has tried anew each time."""
    cause = error.__cause__
    if isinstance(cause, ConnectionError) or type(cause).__name__ in _CUT_BODIES:
        return True
    return _code(cause) in ("ConditionalRequestConflict", "OperationAborted")


def _code(error: BaseException | None) -> str:
    """The server's code for `error` (`SlowDown`), or the status of an answer without a body (`403`); else nothing."""
    for known in (error, getattr(error, "__cause__", None)):
        response = getattr(known, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _is_remote(error: Exception) -> bool:
    """Whether a store said it: not a mistake of ours, which must stay visible as what it is."""
    return bool(_code(error)) or isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _FOREIGN


def _other(error: Exception, code: str) -> _Cause:
    if code or (isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError)):
        return _Cause("storage", f"the store failed ({_one_line(error)})", "look at the server's log, and try again")
    return _CUT


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return text.replace("{", "(").replace("}", ")")  # it becomes part of a format
