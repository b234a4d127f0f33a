"""Protects sources at addresses: a real S3 server process, web servers, and Google's protocol;
faults that pass are waited out, others end with one clear line, and nothing comes cut short."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import boto3
import pytest

from grocer.errors import SourceError
from grocer.ingest.run import ingest
from grocer.ingest.source import download
from grocer.io import storage
from tests.fixtures.ingest import CONFIG
from tests.fixtures.tables import tables, write_csvs

Serve = Callable[[type[BaseHTTPRequestHandler] | partial], str]


def kept(source: str, tmp_path: Path) -> int:
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return int(ingest(source, CONFIG, out)["order_lines"]["kept"])


@pytest.fixture
def csvs(tmp_path: Path) -> Path:
    return write_csvs(tmp_path / "csvs", tables())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start web servers on loopback; returns each one's address."""
    servers = []

    def start(handler: type[BaseHTTPRequestHandler] | partial) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Files(SimpleHTTPRequestHandler):
    """Serves a folder; the first requests fail."""

    failures = 0

    def do_GET(self) -> None:
        if type(self).failures:
            type(self).failures -= 1
            self.send_error(503)
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


# ---- web ------------------------------------------------------------------------------------


def test_a_folder_on_a_web_server(serve: Serve, csvs: Path, tmp_path: Path) -> None:
    address = serve(partial(Files, directory=str(csvs)))
    assert kept(address, tmp_path) == 5


def test_a_zip_on_a_web_server_that_fails_twice(serve: Serve, csvs: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "web" / "all"), "zip", csvs)
    handler = type("Flaky", (Files,), {"failures": 2})
    address = serve(partial(handler, directory=str(tmp_path / "web")))
    assert kept(f"{address}/all.zip", tmp_path) == 5


def test_a_web_server_that_is_not_there_or_has_nothing(
    serve: Serve, csvs: Path, tmp_path: Path
) -> None:
    address = serve(partial(Files, directory=str(csvs)))
    with pytest.raises(SourceError, match=r"none\.zip: not found"):
        kept(f"{address}/none.zip", tmp_path)
    with pytest.raises(SourceError, match="none of products, departments"):
        kept(f"{address}/sub", tmp_path)
    with pytest.raises(SourceError, match=f"after {storage.ATTEMPTS} attempts"):
        kept("http://127.0.0.1:9/all.zip", tmp_path)
    with pytest.raises(SourceError, match="unknown protocol"):
        kept("ftp://127.0.0.1/all.zip", tmp_path)


def test_a_table_of_ones_own_on_the_web_needs_its_whole_address(tmp_path: Path) -> None:
    """A web server lists nothing, and the name of the file is anyone's."""
    with pytest.raises(SourceError, match="shop: give the address of the file itself"):
        download("https://127.0.0.1:9/shop", tmp_path / "fetched", own=True)


def test_an_answer_cut_short_is_fetched_again(serve: Serve, csvs: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "web" / "all"), "zip", csvs)
    cut = {"left": 1}

    class Cut(Files):
        def copyfile(self, source: object, outputfile: object) -> None:
            if cut["left"]:
                cut["left"] -= 1
                outputfile.write(source.read(100))  # type: ignore[attr-defined]
                self.close_connection = True
                return
            super().copyfile(source, outputfile)  # type: ignore[arg-type]

    address = serve(partial(Cut, directory=str(tmp_path / "web")))
    assert kept(f"{address}/all.zip", tmp_path) == 5
    assert cut["left"] == 0


# ---- S3 -------------------------------------------------------------------------------------


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch, csvs: Path) -> str:
    """The environment as on a cluster, and a bucket with the six files below `data/`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="grocer")
    for path in csvs.iterdir():
        client.upload_file(str(path), "grocer", f"data/{path.name}")
    client.put_object(Bucket="grocer", Key="data/other/large.bin", Body=b"x")
    return moto


def test_a_folder_on_s3(s3: str, tmp_path: Path) -> None:
    assert kept("s3://grocer/data", tmp_path) == 5
    assert kept("s3://grocer/data/", tmp_path) == 5


def test_what_is_not_on_s3(s3: str, tmp_path: Path) -> None:
    for missing in ("s3://grocer/none.zip", "s3://grocer/none", "s3://nobucket/data"):
        with pytest.raises(SourceError, match=re.escape(missing)):
            kept(missing, tmp_path)


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to S3, but answers the first ones with 503 SlowDown."""

    target = ""
    failures = 2
    after: Callable[[str], None] = staticmethod(lambda path: None)

    def _pass_on(self) -> None:
        if type(self).failures:
            type(self).failures -= 1
            self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        onward = http.client.HTTPConnection(urlsplit(self.target).netloc)
        onward.request(self.command, self.path, headers=dict(self.headers))
        answer = onward.getresponse()
        body = answer.read()
        self.after(f"{self.command} {self.path}")
        self._answer(answer.status, dict(answer.getheaders()), body)

    do_GET = do_HEAD = _pass_on  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        if not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_s3_that_answers_503_twice(
    s3: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = type("Busy", (Proxy,), {"target": s3})
    monkeypatch.setenv("AWS_ENDPOINT_URL", serve(proxy))
    assert kept("s3://grocer/data", tmp_path) == 5
    assert proxy.failures == 0


def test_an_object_that_changes_or_vanishes_while_it_is_read(
    s3: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=s3)

    def replace(request: str) -> None:
        if request.startswith("GET") and "orders.csv" in request:
            client.put_object(Bucket="grocer", Key="data/orders.csv", Body=b"order_id\n")

    changing = type("Changing", (Proxy,), {"target": s3, "failures": 0, "after": replace})
    changing.after = staticmethod(replace)
    monkeypatch.setenv("AWS_ENDPOINT_URL", serve(changing))
    with pytest.raises(SourceError, match=r"orders.csv changed while it was read"):
        kept("s3://grocer/data", tmp_path)

    def remove(request: str) -> None:
        if "list-type" in request:
            client.delete_object(Bucket="grocer", Key="data/products.csv")

    vanishing = type("Vanishing", (Proxy,), {"target": s3, "failures": 0})
    vanishing.after = staticmethod(remove)
    monkeypatch.setenv("AWS_ENDPOINT_URL", serve(vanishing))
    with pytest.raises(SourceError, match=r"data/products.csv: not found"):
        kept("s3://grocer/data", tmp_path)


def test_s3_without_or_with_wrong_credentials(
    s3: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Denying(Proxy):
        def _pass_on(self) -> None:
            self._answer(403, {}, b"<Error><Code>InvalidAccessKeyId</Code></Error>")

        do_GET = do_HEAD = _pass_on  # noqa: N815

    monkeypatch.setenv("AWS_ENDPOINT_URL", serve(Denying))
    for source in ("s3://grocer/data", "s3://grocer/all.zip"):
        with pytest.raises(SourceError, match="access denied"):
            kept(source, tmp_path)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(SourceError, match=r"access denied .*credentials"):
        kept("s3://grocer/data", tmp_path)


# ---- Google ---------------------------------------------------------------------------------


def test_a_folder_on_google_storage(
    serve: Serve, csvs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Storage(BaseHTTPRequestHandler):
        """As much of the JSON API as reading takes: list a prefix, look at an object, fetch it."""

        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, urlsplit(self.path).query
            names = [f"data/{file.name}" for file in csvs.iterdir()]
            name = unquote(path.rpartition("/o/")[2])
            if path.endswith("/o"):
                self._answer(json.dumps({"items": [self._about(name) for name in names]}).encode())
            elif name not in names:
                self.send_error(404)
            elif "alt=media" in query or path.startswith("/download"):
                self._answer((csvs / Path(name).name).read_bytes())
            else:
                self._answer(json.dumps(self._about(name)).encode())

        def _about(self, name: str) -> dict[str, str]:
            size = (csvs / Path(name).name).stat().st_size
            return {"name": name, "bucket": "grocer", "size": str(size), "generation": "1"}

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", serve(Storage))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "grocer")
    assert kept("gs://grocer/data", tmp_path) == 5
