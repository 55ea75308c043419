import os

import dagster as dg
import pytest

from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.storage.variables import advice, wrong_variables
from imgdl_pipeline.definitions import component, defs
from imgdl_pipeline.running import run_gallery

S3 = {
    "AWS_ENDPOINT_URL": "https://s3.example.com",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "whoever",
    "AWS_SECRET_ACCESS_KEY": "whatever",
}
WRONG_SECRET = "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID"
REFUSED = "the server refuses the key in AWS_ACCESS_KEY_ID, or its owner may not do this"
NO_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"
HTTP = {**S3, "AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)


def without(name, environ=S3):
    return {key: value for key, value in environ.items() if key != name}


@pytest.mark.parametrize(
    "environ",
    [S3, {}, {**HTTP, "AWS_ALLOW_HTTP": "true"}, {**HTTP, "AWS_ALLOW_HTTP": "1"}, without("AWS_REGION")],
)
def test_what_may_work_is_not_complained_about(environ):
    assert wrong_variables("s3://bucket", environ) == []


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (without("AWS_ACCESS_KEY_ID"), "AWS_ACCESS_KEY_ID is not set, but AWS_SECRET_ACCESS_KEY is"),
        (without("AWS_SECRET_ACCESS_KEY"), "AWS_SECRET_ACCESS_KEY is not set, but AWS_ACCESS_KEY_ID is"),
        (HTTP, "AWS_ENDPOINT_URL begins with http://, which needs AWS_ALLOW_HTTP=true"),
        (
            {**HTTP, "AWS_ALLOW_HTTP": "no"},
            "AWS_ENDPOINT_URL begins with http://, which needs AWS_ALLOW_HTTP=true",
        ),
        ({**S3, "AWS_ALLOW_HTTP": ""}, "AWS_ALLOW_HTTP must be true or false"),
        ({**S3, "AWS_ENDPOINT_URL": "localhost:9000"}, "AWS_ENDPOINT_URL must be a URL that begins with"),
        ({**S3, "AWS_ENDPOINT_URL": "http://[::1"}, "AWS_ENDPOINT_URL must be a URL that begins with"),
        (
            {**S3, "AWS_SECRET_ACCESS_KEY": "whatever\n"},
            "AWS_SECRET_ACCESS_KEY begins or ends with white space",
        ),
    ],
)
def test_a_variable_that_is_missing_or_wrong_is_named(environ, words):
    [found] = wrong_variables("s3://bucket/prefix", environ)
    assert found.startswith(words)
    assert wrong_variables("a/folder", environ) == []


def test_a_key_file_of_google_that_does_not_exist_is_named():
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": "/no/such.json"}
    [words] = wrong_variables("gs://bucket", environ)
    assert words == "GOOGLE_APPLICATION_CREDENTIALS names the file /no/such.json, which does not exist"


@pytest.mark.parametrize(
    ("root", "error", "environ", "words"),
    [
        ("s3://b", "<Code>SignatureDoesNotMatch</Code>", S3, WRONG_SECRET),
        ("s3://b", "<Code>ExpiredToken</Code>", S3, "AWS_SESSION_TOKEN has expired"),
        ("s3a://b", "403 Forbidden: ", S3, REFUSED),
        ("s3://b", "<Code>PermanentRedirect</Code>", S3, "AWS_REGION is not the bucket's region"),
        (
            "s3://b",
            "<Code>PermanentRedirect</Code>",
            without("AWS_REGION"),
            "AWS_REGION is not the bucket's region; AWS_REGION is not set, which means us-east-1",
        ),
        ("s3://b", "no answer of 169.254.169.254", {}, NO_KEYS),
        ("s3://b", "no answer", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/a"}, ""),
        ("s3://b", "HTTP error: sending", S3, "AWS_ENDPOINT_URL names a server that does not answer"),
        ("gs://b", "403 Forbidden", {}, "GOOGLE_APPLICATION_CREDENTIALS is not set"),
        ("gs://b", "500", {}, ""),
        ("az://b", "Account must be specified", {}, "AZURE_STORAGE_ACCOUNT_NAME is not set"),
        (
            "azure://b",
            "Error performing token request",
            {},
            "none of AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_CLIENT_ID is set",
        ),
        ("az://b", "500", {}, ""),
        ("a/folder", "403 Forbidden", {}, ""),
    ],
)
def test_an_error_is_explained_by_the_variable_behind_it(root, error, environ, words):
    assert advice(root, error, environ) == words


@pytest.mark.parametrize(
    ("root", "environ", "words"),
    [
        ("az://box/a", {}, r"AZURE_STORAGE_ACCOUNT_NAME is not set\)$"),
        (
            "az://box/a",
            {"AZURE_STORAGE_ACCOUNT_NAME": "x", "AZURE_STORAGE_ACCOUNT_KEY": "s3cret!!"},
            r"AZURE_STORAGE_ACCOUNT_KEY is not a key: it must be Base64\)$",
        ),
        (
            "gs://box/a",
            {"GOOGLE_APPLICATION_CREDENTIALS": "{file}"},
            "does not name a key file of Google Cloud",
        ),
    ],
)
def test_a_store_that_cannot_be_opened_says_so(root, environ, words, monkeypatch, tmp_path):
    (tmp_path / "key.json").write_text("{}")
    for name, value in environ.items():
        monkeypatch.setenv(name, value.format(file=tmp_path / "key.json"))
    with pytest.raises(StoreError, match=words) as told:
        Store(root)
    assert "s3cret" not in str(told.value)


@pytest.fixture
def bucket(_no_variables, request):
    """The tests' server, with all variables set."""
    return request.getfixturevalue("s3_bucket")


def test_a_bucket_that_is_not_there_is_told(bucket):
    with pytest.raises(StoreError, match="the bucket does not exist at this endpoint and in this region"):
        Store(f"{bucket}-not").put("a", b"1")


@pytest.mark.parametrize("name", ["AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_run_without_one_of_the_variables_fails_and_names_it(
    bucket, name, monkeypatch, tmp_path, demo_port
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMGDL_STORE", f"{bucket}/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-tests")
    monkeypatch.delenv(name)
    with dg.DagsterInstance.ephemeral() as instance:
        done = run_gallery(component(), defs(), "demo", instance)
    assert done.error is not None
    assert done.error.startswith(f"cannot open the store {bucket}/x: ")
    assert name in done.error
    assert "s3cret" not in done.error
