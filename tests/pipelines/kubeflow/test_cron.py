"""Cron expressions are checked before anything is sent to Kubeflow."""

from __future__ import annotations

import pytest

from grocer.errors import ConfigError
from pipelines.kubeflow.cron import with_seconds

UNREACHABLE = ("--host", "http://127.0.0.1:9")
INPUT = ("--data", "s3://bucket/data", "--set", "deploy.store=s3://bucket/bundles")


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 3 * * 1", "0 0 3 * * 1"),
        (" 30 0  3 * * ? ", "30 0 3 * * ?"),
        ("*/5 0-23/2 1,15 jan-Mar MON-fri", "0 */5 0-23/2 1,15 jan-Mar MON-fri"),
        ("59 23 31 12 6", "0 59 23 31 12 6"),
        ("5/15 * * * *", "0 5/15 * * * *"),
    ],
)
def test_valid_expression_has_seconds(cron, expected):
    assert with_seconds(cron) == expected


@pytest.mark.parametrize(
    ("cron", "fragment"),
    [
        ("weekly", "expected 5 fields"),
        ("", "expected 5 fields"),
        ("99 * * * *", "'99' is not valid for minutes"),
        ("0 24 * * *", "'24' is not valid for hours"),
        ("0 0 0 * *", "'0' is not valid for day of month"),
        ("0 0 1 13 *", "'13' is not valid for month"),
        ("0 0 * * 7", "'7' is not valid for day of week; use 0 to 6 or sun to sat"),
        ("60 0 0 * * *", "'60' is not valid for seconds"),
        ("10-5 * * * *", "'10-5'"),
        ("*/0 * * * *", "'*/0'"),
        ("1,,2 * * * *", "'1,,2'"),
        ("-1 * * * *", "'-1'"),
        ("\u0661 * * * *", "minutes"),
        ("mon * * * *", "'mon'"),
    ],
)
def test_invalid_expression_names_field_and_values(cron, fragment):
    with pytest.raises(ConfigError) as error:
        with_seconds(cron)
    assert fragment in str(error.value)


def test_invalid_expression_is_reported_before_connecting(user_error):
    assert "'99'" in user_error("schedule", *INPUT, "--cron", "99 * * * *", *UNREACHABLE)
