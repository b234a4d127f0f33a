"""`grocer drift`: a summary, JSON and a page about the products in a file."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from grocer.artifacts.drift import DriftReport
from grocer.inference.drift_report import report
from grocer.io.atomic import tree_files
from pipelines.cli.main import execute
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.predictor import StubScorer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training vocabulary is bread, milk, organic, fresh, apples."""
    return make_bundle(tmp_path_factory.mktemp("bundle"), strategy="linear").path


def write(path: Path, names: Sequence[str], column: str = "product_name") -> Path:
    path.write_text("\n".join([column, *(f'"{name}"' for name in names)]) + "\n")
    return path


def test_new_names_are_drift_and_the_page_shows_them(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"milk <i>wrd{number % 7}</i> {number}" for number in range(300)]
    source, page = write(tmp_path / "names.csv", [*names, names[0].upper(), " "]), tmp_path / "x"
    command = ["drift", str(source), "--bundle", str(bundle), "--page", str(page)]
    assert execute([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content.pop("drift") is True
    measured = DriftReport.model_validate_json(json.dumps(content))
    assert (measured.rows, measured.products) == (302, 300)
    assert measured.signals["new_words"].drift
    assert measured.signals["new_words"].value == pytest.approx(0.8, abs=0.05)
    assert measured.department_distance is None  # fewer than 1,000 predictions
    assert (measured.new_words[0].word, measured.new_words[0].products) == ("i", 300)
    for products in measured.drivers.values():
        assert len(products) == 10
    html = page.read_text()
    assert "&lt;i&gt;wrd" in html
    assert "<i>wrd" not in html
    shown = re.findall(r'<td class="n">([^<]*)</td><td><span class="(bad|good)">', html)
    assert shown == [
        ("below 0.0001" if p < 1e-4 else f"{p:.2g}", "bad" if drift else "good")
        for p, drift in ((each.p_value, each.drift) for each in measured.signals.values())
    ]
    assert execute(command) == 0
    output = capsys.readouterr().out
    assert "Drift detected" in output
    assert str(page) in output


def test_names_of_the_catalogue_are_no_drift(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three names are too few for any difference to be significant."""
    source = write(tmp_path / "names.csv", ["Bread", "Milk", "Organic Milk"], "title")
    files = tree_files(bundle)
    assert execute(["drift", str(source), "--bundle", str(bundle), "--column", "title"]) == 0
    assert "No drift" in capsys.readouterr().out
    assert tree_files(bundle) == files


def test_long_name_with_a_line_break_is_one_short_line(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "names.csv", ["Milk\nfresh " + "x" * 1000])
    assert execute(["drift", str(source), "--bundle", str(bundle)]) == 0
    assert f"Milk fresh {'x' * 48}…: " in capsys.readouterr().out


def test_without_a_linear_model_names_are_not_measured(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    source = write(tmp_path / "names.csv", ["Bread", "Milk"])
    measured = report(source, bundle.path, load=lambda _: StubScorer(bundle.labels))  # type: ignore[arg-type,return-value]
    assert set(measured.signals) == set(measured.drivers) == {"confidence", "departments"}
    assert measured.new_words == ()


@pytest.mark.parametrize(
    ("names", "column", "problem"), [([" ", ""], "product_name", "no product"), (["A"], "x", "'x'")]
)
def test_user_errors_are_one_line(
    tmp_path: Path,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    names: list[str],
    column: str,
    problem: str,
) -> None:
    source = write(tmp_path / "names.csv", names)
    assert execute(["drift", str(source), "--bundle", str(bundle), "--column", column]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert len(error.splitlines()) == 1
