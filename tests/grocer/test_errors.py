"""Messages have no credentials."""

import pytest

from grocer.errors import SourceError, redacted

SIGNED = "https://host/a/in.csv?X-Amz-Credential=secret&X-Amz-Signature=secret"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:secret@host:8080/a.zip", "https://***@host:8080/a.zip"),
        ("https://user:sec@ret@host/a.zip", "https://***@host/a.zip"),
        ("s3://secret@bucket/a", "s3://***@bucket/a"),
        ("s3://key:sec/ret@bucket/a@1", "s3://***@1"),
        ("https://user:sec#r?e't@host/a", "https://***@host/a"),
        ("oci://host:5000/a@1",) * 2,
        (SIGNED, "https://host/a/in.csv?***"),
        (f"--data {SIGNED}: not found", "--data https://host/a/in.csv?***: not found"),
        (f"url='{SIGNED}' not found", "url='https://host/a/in.csv?***' not found"),
        ("https://a:secret@b/ https://c:secret@d/?secret", "https://***@b/ https://***@d/?***"),
        ("pypi://package==1.0/a.gguf#sha256=abc", "pypi://package==1.0/a.gguf#sha256=abc"),
        ("s3://bucket/a.csv: not found, me@example.org?",) * 2,
    ],
)
def test_credentials_in_a_uri_are_removed(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert str(SourceError(text)) == expected
