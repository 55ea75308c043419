"""Say which environment variable of an object store is missing or wrong, without the values of keys."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
S3_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
ALLOW_HTTP = "AWS_ALLOW_HTTP"
S3_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Variables that platforms set for a process that has a role instead of keys."""

GCS_FILES = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH")
AZURE_ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"
AZURE_KEYS = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_ID")

_TRUE = ("1", "true", "on", "yes", "y")
_FALSE = ("0", "false", "off", "no", "n")


def wrong_variables(root: str, environ: Mapping[str, str]) -> list[str]:
    """Return what in the environment keeps any store at a root from working, as clauses.

    Args:
        root: The store's root.
        environ: The environment variables.
    """
    kind = _kind(root)
    found = {"s3": _wrong_for_s3, "gs": _wrong_for_gcs}.get(kind)
    return list(found(environ)) if found else []


def _wrong_for_s3(environ: Mapping[str, str]) -> Iterator[str]:
    there = [name for name in S3_KEYS if environ.get(name)]
    if len(there) == 1:
        [missing] = set(S3_KEYS) - set(there)
        yield f"{missing} is not set, but {there[0]} is"
    for name in (*S3_KEYS, "AWS_SESSION_TOKEN", *S3_REGIONS):
        value = environ.get(name, "")
        if value != value.strip():
            yield f"{name} begins or ends with white space"
    allows = environ.get(ALLOW_HTTP)
    if allows is not None and allows.lower() not in (*_TRUE, *_FALSE):
        yield f"{ALLOW_HTTP} must be true or false"
    for name in S3_ENDPOINTS:
        endpoint = environ.get(name)
        if endpoint is not None and not _is_web_address(endpoint):
            yield f"{name} must be a URL that begins with https:// or http://"
        elif endpoint is not None and endpoint.startswith("http://") and _is_false(allows):
            yield f"{name} begins with http://, which needs {ALLOW_HTTP}=true"


def _wrong_for_gcs(environ: Mapping[str, str]) -> Iterator[str]:
    for name in GCS_FILES:
        file = environ.get(name)
        if file and not Path(file).is_file():
            yield f"{name} names the file {file}, which does not exist"


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _is_false(allows: str | None) -> bool:
    return allows is None or allows.lower() in _FALSE


def advice(root: str, error: str, environ: Mapping[str, str]) -> str:
    """Return which variables to look at after an error of a store, or "" where none explains it.

    Args:
        root: The store's root.
        error: All that the library says.
        environ: The environment variables.
    """
    found = {"s3": _advice_for_s3, "gs": _advice_for_gcs, "az": _advice_for_azure}.get(_kind(root))
    return found(error, environ) if found else ""


_OF_ANSWERS = (
    ("<Code>NoSuchBucket</Code>", "the bucket does not exist at this endpoint and in this region"),
    ("<Code>InvalidAccessKeyId</Code>", "the server does not know the key in AWS_ACCESS_KEY_ID"),
    ("<Code>SignatureDoesNotMatch</Code>", "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID"),
    ("<Code>ExpiredToken</Code>", "AWS_SESSION_TOKEN has expired"),
    ("<Code>InvalidToken</Code>", "AWS_SESSION_TOKEN does not belong to AWS_ACCESS_KEY_ID"),
    ("<Code>AuthorizationHeaderMalformed</Code>", "AWS_REGION is not the bucket's region"),
    ("<Code>PermanentRedirect</Code>", "AWS_REGION is not the bucket's region"),
    ("incorrectly configured region", "AWS_REGION is not the bucket's region"),
)


def _advice_for_s3(error: str, environ: Mapping[str, str]) -> str:
    hints = [words for sign, words in _OF_ANSWERS if sign in error][:1]
    if not any(environ.get(name) for name in (*S3_KEYS, *S3_ROLES, "AWS_SKIP_SIGNATURE")):
        hints.append(f"{S3_KEYS[0]} and {S3_KEYS[1]} are not set")
    elif not hints and "403 Forbidden" in error:
        hints.append(f"the server refuses the key in {S3_KEYS[0]}, or its owner may not do this")
    is_about_region = any("AWS_REGION" in each or "region" in each for each in hints)
    if is_about_region and not any(environ.get(name) for name in S3_REGIONS):
        hints.append("AWS_REGION is not set, which means us-east-1")
    if "HTTP error" in error and any(environ.get(name) for name in S3_ENDPOINTS):
        names = [name for name in S3_ENDPOINTS if environ.get(name)]
        hints.append(f"{names[0]} names a server that does not answer")
    return "; ".join(hints)


def _advice_for_gcs(error: str, environ: Mapping[str, str]) -> str:
    named = [name for name in GCS_FILES if environ.get(name)]
    if "Unable to decode service account" in error and named:
        return f"{named[0]} does not name a key file of Google Cloud"
    if not named and any(each in error for each in _REFUSED):
        return "GOOGLE_APPLICATION_CREDENTIALS is not set"
    return ""


def _advice_for_azure(error: str, environ: Mapping[str, str]) -> str:
    if "Account must be specified" in error:
        return f"{AZURE_ACCOUNT} is not set"
    if "Invalid Access Key" in error:
        return "AZURE_STORAGE_ACCOUNT_KEY is not a key: it must be Base64"
    if any(each in error for each in _REFUSED) and not any(environ.get(name) for name in AZURE_KEYS):
        return f"none of {', '.join(AZURE_KEYS)} is set"
    return ""


_REFUSED = (
    "401 Unauthorized",
    "403 Forbidden",
    "169.254.169.254",
    "metadata.google.internal",
    "token request",
)
"""Signs that a request had no right: as a last resort, the library asks the machine for a role."""


def _kind(root: str) -> str:
    scheme = root.partition("://")[0].lower() if "://" in root else ""
    aliases = {"s3a": "s3", "azure": "az", "abfs": "az", "abfss": "az", "adl": "az"}
    return aliases.get(scheme, scheme)
