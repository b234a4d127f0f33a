"""Storage on a real S3 server, web servers and Google's protocol: transient errors are retried,
other errors are one line, and truncated or changed files are rejected."""

import errno
import hashlib
import http.client
import os
import shutil
import traceback
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

import boto3
import pytest

from grocer.errors import OutputError, SourceError
from grocer.io import storage
from grocer.io.storage import Storage
from tests.fixtures.http_server import Handler, Serve
from tests.fixtures.ingest import ingest
from tests.fixtures.tables import tables, write_csvs


def kept_lines(data: str, tmp_path: Path) -> int:
    """Ingest `data` and return the number of order lines kept, which is 5 for the test tables."""
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    return ingest(data, tmp_path / "out").order_lines.kept


def source_error(data: str, tmp_path: Path) -> str:
    """Return the message of the error that ingesting `data` raises; it has one line."""
    with pytest.raises(SourceError) as caught:
        kept_lines(data, tmp_path)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.fixture
def csvs(tmp_path: Path) -> Path:
    return write_csvs(tmp_path / "csvs", tables())


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_WAIT_SECONDS", 0.01)


class Files(Handler, SimpleHTTPRequestHandler):
    """Serve a folder; the first `failures` requests fail with 503."""

    failures = 0

    def do_GET(self) -> None:
        if type(self).failures:
            type(self).failures -= 1
            self.send_error(503)
            return
        super().do_GET()


# ---- web ------------------------------------------------------------------------------------


def test_folder_on_a_web_server(serve: Serve, csvs: Path, tmp_path: Path) -> None:
    address = serve(partial(Files, directory=str(csvs)))
    assert kept_lines(address, tmp_path) == 5


def test_transient_errors_of_a_web_server_are_retried(
    serve: Serve, csvs: Path, tmp_path: Path
) -> None:
    shutil.make_archive(str(tmp_path / "web" / "all"), "zip", csvs)
    handler = type("Flaky", (Files,), {"failures": 2})
    address = serve(partial(handler, directory=str(tmp_path / "web")))
    assert kept_lines(f"{address}/all.zip", tmp_path) == 5


def test_errors_of_a_web_server_are_one_line(serve: Serve, csvs: Path, tmp_path: Path) -> None:
    address = serve(partial(Files, directory=str(csvs)))
    assert "none.zip: not found" in source_error(f"{address}/none.zip", tmp_path)
    assert "none of products, departments" in source_error(f"{address}/sub", tmp_path)
    unreachable = source_error("http://127.0.0.1:9/all.zip", tmp_path)
    assert f"after {storage.ATTEMPTS} attempts" in unreachable


def test_truncated_response_is_retried(serve: Serve, csvs: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "web" / "all"), "zip", csvs)
    remaining = {"truncated": 1}

    class Truncating(Files):
        def copyfile(self, source: object, outputfile: object) -> None:
            if remaining["truncated"]:
                remaining["truncated"] -= 1
                outputfile.write(source.read(100))
                self.close_connection = True
                return
            super().copyfile(source, outputfile)

    address = serve(partial(Truncating, directory=str(tmp_path / "web")))
    assert kept_lines(f"{address}/all.zip", tmp_path) == 5
    assert remaining["truncated"] == 0


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_credentials_of_an_address_are_not_shown(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    """Neither in a message nor in a traceback, which Kubeflow prints for every error."""

    class Failing(Files):
        def do_GET(self) -> None:
            self.send_error(status)

        do_HEAD = do_GET

    host = serve(Failing).removeprefix("http://")
    for address in (f"http://user:secret@{host}/all.zip", f"http://{host}/all.zip?sig=secret"):
        with pytest.raises(SourceError) as caught:
            kept_lines(address, tmp_path)
        assert "all.zip" in str(caught.value)
        assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert "secret" not in "".join(capsys.readouterr())


# ---- S3 -------------------------------------------------------------------------------------


@pytest.fixture
def s3(s3_environment: str, csvs: Path) -> str:
    """Create a bucket with six files below `data/`, and return the server's address."""
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="grocer")
    for path in csvs.iterdir():
        client.upload_file(str(path), "grocer", f"data/{path.name}")
    client.put_object(Bucket="grocer", Key="data/other/large.bin", Body=b"x")
    return s3_environment


def test_folder_on_s3(s3: str, tmp_path: Path) -> None:
    assert kept_lines("s3://grocer/data", tmp_path) == 5
    assert kept_lines("s3://grocer/data/", tmp_path) == 5


def test_missing_object_or_bucket_is_one_line(s3: str, tmp_path: Path) -> None:
    for missing in ("s3://grocer/none.zip", "s3://grocer/none", "s3://nobucket/data"):
        assert missing in source_error(missing, tmp_path)


class Proxy(Handler):
    """Forward requests to S3, except the first `failures`, which get 503 SlowDown."""

    target = ""
    failures = 2
    after: Callable[[str], None] = staticmethod(lambda path: None)

    def _forward(self) -> None:
        if type(self).failures:
            type(self).failures -= 1
            self.reply(503, b"<Error><Code>SlowDown</Code></Error>")
            return
        upstream = http.client.HTTPConnection(urlsplit(self.target).netloc)
        upstream.request(self.command, self.path, headers=dict(self.headers))
        response = upstream.getresponse()
        body = response.read()
        self.after(f"{self.command} {self.path}")
        headers = {name.lower(): value for name, value in response.getheaders()}
        for name in ("transfer-encoding", "connection", "server", "date"):
            headers.pop(name, None)
        self.reply(response.status, body, headers)

    do_GET = do_HEAD = _forward


def test_transient_errors_of_s3_are_retried(
    s3: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = type("Busy", (Proxy,), {"target": s3})
    monkeypatch.setenv("AWS_ENDPOINT_URL", serve(proxy))
    assert kept_lines("s3://grocer/data", tmp_path) == 5
    assert proxy.failures == 0


def test_object_changed_or_removed_while_read_is_rejected(
    s3: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=s3)

    def replace(request: str) -> None:
        if request.startswith("GET") and "orders.csv" in request:
            client.put_object(Bucket="grocer", Key="data/orders.csv", Body=b"order_id\n")

    settings = {"target": s3, "failures": 0}
    changing = type("Changing", (Proxy,), settings | {"after": staticmethod(replace)})
    monkeypatch.setenv("AWS_ENDPOINT_URL", serve(changing))
    assert "orders.csv changed while it was read" in source_error("s3://grocer/data", tmp_path)

    def remove(request: str) -> None:
        if "list-type" in request:
            client.delete_object(Bucket="grocer", Key="data/products.csv")

    vanishing = type("Vanishing", (Proxy,), settings | {"after": staticmethod(remove)})
    monkeypatch.setenv("AWS_ENDPOINT_URL", serve(vanishing))
    assert "data/products.csv: not found" in source_error("s3://grocer/data", tmp_path)


def test_missing_or_wrong_credentials_are_access_denied(
    s3: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Denying(Proxy):
        status = 401

        def _forward(self) -> None:
            self.reply(self.status, b"<Error><Code>InvalidAccessKeyId</Code></Error>")

        do_GET = do_HEAD = _forward

    monkeypatch.setenv("AWS_ENDPOINT_URL", serve(Denying))
    for Denying.status in (401, 403):
        for source in ("s3://grocer/data", "s3://grocer/all.zip"):
            assert "access denied" in source_error(source, tmp_path)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(SourceError, match=r"access denied .*credentials"):
        kept_lines("s3://grocer/data", tmp_path)


# ---- Any store ------------------------------------------------------------------------------


@pytest.fixture(params=["local", "file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Return an empty folder in each kind of store that can be written."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Storage(f"s3://grocer/{tmp_path.name}/store", setting="--out")
    prefix = "file://" if request.param == "file" else ""
    return Storage(f"{prefix}{tmp_path}/store/", setting="--out")


def test_files_are_written_listed_read_and_removed(store: Storage, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"content")
    assert not store.exists("[b]/one")
    store.put(tmp_path / "local", "[b]/one")
    store.write_bytes(b"two", "b/two")
    store.write_bytes(b"new", "b/two")  # overwrites
    assert store.exists("[b]/one")
    assert store.exists("[b]")
    assert sorted(store.list()) == ["[b]", "b"]
    assert sorted(store.find()) == ["[b]/one", "b/two"]
    assert (store.info("[b]/one")["size"], store.read_bytes("b/two")) == (7, b"new")
    assert store.sha256("[b]/one") == hashlib.sha256(b"content").hexdigest()
    store.get(tmp_path / "copy", "[b]/one")
    assert (tmp_path / "copy").read_bytes() == b"content"
    store.remove("[b]")  # not a pattern
    assert list(store.find()) == ["b/two"]


def test_missing_file_is_one_line_with_setting_and_address(store: Storage, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        store.get(tmp_path / "copy", "none.csv")
    assert str(caught.value).startswith(
        f"--out: cannot read {store.address.rstrip('/')}/none.csv: "
    )
    assert "\n" not in str(caught.value)


def test_failed_local_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Storage(str(tmp_path / "store"), setting="--out")
    store.write_bytes(b"old", "file")

    def fail(source: Path, target: Path) -> None:
        target.write_bytes(b"incomplete")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        store.put(tmp_path / "local", "file")
    assert store.read_bytes("file") == b"old"
    assert store.list() == ["file"]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("s3://key:secret@bucket/x", "hold no user or query"),
        ("gs://bucket/x?token=secret", "hold no user or query"),
        ("nosuch://x", "nosuch://x: Protocol not known"),
    ],
)
def test_invalid_address_is_one_line_without_credentials(address: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        Storage(address, setting="base.source", error=SourceError)
    (line,) = str(caught.value).splitlines()
    assert "secret" not in line


# ---- Google ---------------------------------------------------------------------------------


def test_folder_on_google_storage(
    serve: Serve, csvs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GoogleStorage(Handler):
        """The JSON API as far as reading needs it: list a prefix, get objects and metadata."""

        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, urlsplit(self.path).query
            names = [f"data/{file.name}" for file in csvs.iterdir()]
            name = unquote(path.rpartition("/o/")[2])
            if path.endswith("/o"):
                self.reply(200, {"items": [self._metadata(name) for name in names]})
            elif name not in names:
                self.send_error(404)
            elif "alt=media" in query or path.startswith("/download"):
                self.reply(200, (csvs / Path(name).name).read_bytes())
            else:
                self.reply(200, self._metadata(name))

        def _metadata(self, name: str) -> dict[str, str]:
            size = (csvs / Path(name).name).stat().st_size
            return {"name": name, "bucket": "grocer", "size": str(size), "generation": "1"}

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", serve(GoogleStorage))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "grocer")
    assert kept_lines("gs://grocer/data", tmp_path) == 5
