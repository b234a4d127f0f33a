"""Object store checks of `grocer doctor`, against an S3 server and without one."""

import boto3
import httpx
import pytest

from grocer.errors import ConfigError
from pipelines.doctor.store import store
from tests.fixtures.http_server import Handler
from tests.fixtures.object_store import object_store
from tests.fixtures.oci_registry import PASSWORD, USER, small_registry


def test_empty_prefix_of_a_readable_bucket_is_ok(s3, bucket):
    (finding,) = store(f"s3://{bucket}/bundles")
    assert finding.state == "ok"
    assert f"s3://{bucket}/bundles at http://127.0.0.1" in finding.found
    assert "write access not checked" in finding.found
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_store_of_the_environment(s3_environment):
    (finding,) = store(None)
    assert finding.state == "ok"
    assert finding.found.startswith(s3_environment)


def test_missing_bucket(s3_environment):
    (finding,) = store("s3://no-such-bucket/bundles")
    assert (finding.state, finding.needed) == ("failed", True)
    assert "bucket not found" in finding.found
    assert finding.next == "aws s3 mb s3://no-such-bucket"


def test_rejected_credentials(s3_environment, monkeypatch):
    with object_store() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        # From here on moto checks credentials.
        boto3.session.Session().client("s3", region_name="us-east-1").list_buckets()
        reset = httpx.post(f"{address}/moto-api/reset-auth", content=b"0", trust_env=False)
        reset.raise_for_status()
        (finding,) = store("s3://bucket/bundles")
    assert (finding.state, finding.needed) == ("failed", True)
    assert "access denied: The AWS Access Key Id you provided does not exist" in finding.found
    assert "AWS_SECRET_ACCESS_KEY" in finding.next


def test_registry_that_is_readable(monkeypatch):
    monkeypatch.setenv("ORAS_USER", USER)
    monkeypatch.setenv("ORAS_PASS", PASSWORD)
    with small_registry("basic") as registry:
        (finding,) = store(f"oci://{registry.host}/grocer/bundles")
    assert finding.state == "ok"
    assert f"oci://{registry.host}/grocer/bundles is readable" in finding.found


def test_registry_that_denies_access(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with small_registry("basic") as registry:
        (finding,) = store(f"oci://{registry.host}/grocer/bundles")
    assert (finding.state, finding.needed) == ("failed", True)
    assert "access denied" in finding.found


def test_missing_credentials(s3_environment, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (finding,) = store("s3://bucket/bundles")
    assert "access denied: Unable to locate credentials" in finding.found


def test_unreachable_store(s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    (finding,) = store(None)
    assert (finding.state, finding.needed) == ("failed", True)
    assert (
        'unreachable: Could not connect to the endpoint URL: "http://127.0.0.1:9' in finding.found
    )
    assert "AWS_ENDPOINT_URL" in finding.next


@pytest.mark.parametrize("status", [200, 403, 404])
def test_google_cloud_storage(monkeypatch, serve, status):
    class GoogleStorage(Handler):
        def do_GET(self):
            requests.append(self.path)
            content = {"items": []} if status == 200 else {"error": {"message": "denied"}}
            self.reply(status, content, {"content-type": "application/json"})

    requests = []
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", serve(GoogleStorage))
    (finding,) = store("gs://bucket/bundles")
    assert requests
    assert all("/b/bucket/o?prefix=bundles" in path for path in requests)
    if status == 200:
        assert finding.state == "ok"
    elif status == 403:
        assert finding.found.startswith("gs://bucket/bundles: access denied: ")
        assert "GOOGLE_APPLICATION_CREDENTIALS" in finding.next
    else:
        assert finding.next == "gcloud storage buckets create gs://bucket"


@pytest.mark.parametrize("address", [None, "s3://bucket/bundles", "oci://{}/grocer/bundles"])
def test_server_that_is_not_a_store(s3_environment, monkeypatch, serve, address):
    class Console(Handler):
        def do_GET(self):
            self.reply(200, "<html>Sign in</html>", {"content-type": "text/html"})

    url = serve(Console)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    (finding,) = store(address and address.format(url.removeprefix("http://")))
    assert (finding.state, finding.needed) == ("failed", True)


def test_no_store_is_not_a_failure(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    (finding,) = store(None)
    assert finding.state == "optional"


@pytest.mark.parametrize("address", ["bundles", "s3://", "https://shop.example/bundles"])
def test_invalid_address_is_a_user_error(address):
    with pytest.raises(ConfigError, match="expected s3://bucket/prefix"):
        store(address)
