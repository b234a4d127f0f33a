"""The evaluation page escapes names and shows undefined metrics as such."""

import re

import pandas as pd
import pytest

from grocer.artifacts.evaluation import Evaluation
from grocer.config.stages import GatePolicy
from grocer.reports import evaluation as report
from tests.fixtures import evaluations
from tests.fixtures.evaluations import parse
from tests.fixtures.page_layout import with_aisles, with_labels
from tests.fixtures.stage_artifacts import ADAPTER

HOSTILE = '<script>alert(1)</script> & "Milk" \'; {{ 7*7 }} \u202e'
NONE_RECOVERED = pd.DataFrame(
    columns=["product_name", "suggested_department", "probability", "purchases"]
)


@pytest.fixture
def content(evaluation):
    """The evaluation as JSON content, to be changed."""
    return evaluation.model_dump(mode="json")


def page(evaluation, recovered=NONE_RECOVERED) -> str:
    return report.evaluation_page(evaluation, recovered, GatePolicy(), ADAPTER)


def recovered(**values) -> pd.DataFrame:
    row = {
        "product_name": "Late Kefir",
        "suggested_department": "dairy eggs",
        "probability": 0.9,
        "purchases": 3,
    }
    return pd.DataFrame([row | values])


def test_decision_and_test_accuracy_come_first(evaluation):
    first = page(evaluation).split("<h2>")[0]
    assert "Gate failed" in first
    assert "75.0\u00a0%" in first


def test_product_names_are_escaped(content):
    content["confident_errors"][0]["product_name"] = HOSTILE
    html = page(
        parse(content),
        recovered(product_name=HOSTILE, suggested_department="<i>dairy</i>", probability=0.99999),
    )
    assert "<script" not in html
    assert "<i>dairy" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "{{ 7*7 }}" in html
    assert "over 99.9" in html


def test_department_names_are_escaped(content):
    names = {"produce": "<img src=x>", "bakery": "a $b$ %s"}
    content["labels"] = [names.get(label, label) for label in content["labels"]]
    content["departments"] = {names.get(k, k): v for k, v in content["departments"].items()}
    for error in content["confident_errors"]:
        error["department"] = names.get(error["department"], error["department"])
    html = page(parse(content))
    assert "<img" not in html
    assert "a $b$ %s" in html


def test_department_without_test_products_is_not_measured(content):
    content["departments"]["bakery"] = {"support": 0, "precision": None, "recall": None, "f1": None}
    content["confusion"][0] = [0, 0, 0]
    content["departments"]["produce"] |= {"recall": 0.0}
    html = page(parse(content))
    assert "not measured" in html
    assert html.index("produce</th>") < html.index("bakery</th>"), "without recall comes last"


def test_many_labels_have_no_confusion_matrix(evaluation):
    html = page(with_labels(evaluation, report.MAX_MATRIX_LABELS + 1))
    assert 'class="heat"' not in html
    assert "Not shown for 41 aisles" in html
    assert "aisle 40" in html
    assert "<summary>21 more</summary>" in html  # 20 of 41 are not collapsed


def test_evaluation_without_errors_has_a_page(content):
    content["confident_errors"] = []
    content["confusion"] = [[14, 0, 0], [0, 13, 0], [0, 0, 13]]
    html = page(parse(content))
    assert "all test predictions are correct" in html
    assert "Most confident errors" not in html


def test_coverage_plot_has_no_tick_above_100(content):
    for point in content["coverage"]:
        point["accuracy"] = 1.0
    html = page(parse(content))
    assert "100.5" not in html[html.index("<h2>Coverage") :].split("</figure>")[0]


def test_leakage_and_weights_are_shown_only_with_repeated_purchases(content):
    html = page(parse(content))
    assert "Data leakage of a row split" in html
    assert "accuracy weighted by purchases" in html
    content["row_split_leakage"]["share_of_test_products_seen_in_training"] = 0.0
    html = page(parse(content))
    assert "Data leakage of a row split" not in html
    assert "accuracy weighted by purchases" not in html


def test_top_3_accuracy_is_shown_for_more_than_three_labels(evaluation):
    assert "top-3 accuracy" not in page(evaluation)
    assert "top-3 accuracy" in page(with_labels(evaluation, 4))


@pytest.mark.parametrize(
    ("won", "p_value", "outcome"),
    [(9, 0.001, "Better than"), (0, 0.001, "Worse than"), (9, 0.05, "No significant difference")],
)
def test_baseline_shows_the_outcome_of_the_paired_test(content, won, p_value, outcome):
    content["champion"] = None
    baseline = content["baselines"]["linear"]
    baseline["paired"] |= {"only_model_right": won, "only_baseline_right": 5, "p_value": p_value}
    content["baselines"] = {"linear": baseline}
    assert f"{outcome}" in page(parse(content))


def test_thresholds_that_are_not_reached_are_named(content):
    measured = content["metrics"]["test"]
    interval = ("products", "accuracy", "accuracy_low", "accuracy_high")
    reached = {"required_accuracy": 0.9, "threshold": 0.625, "coverage": 0.875}
    missed = {"required_accuracy": 0.99, "threshold": None, "coverage": 0.0, "accuracy": None}
    reached["accuracy"] = {key: measured[key] for key in interval}
    content["operating_points"] = [reached, missed]
    html = page(parse(content))
    table = html[html.index('aria-label="Confidence thresholds') :].split("</table>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("<tr>")[2:]]
    assert [len(row) for row in rows] == [5, 2]
    assert rows[0][1].startswith("62.5")
    assert rows[1][1] == "not reached"
    assert '<td colspan="4">not' in table  # on the right it is outside a phone's screen


def with_strategy(strategy: str) -> Evaluation:
    """Return an evaluation of arbitrary metrics with this selected classifier."""
    point = {"threshold": 0.5, "coverage": 1.0, "accuracy": 0.9}
    interval = {"low": 0.9, "high": 1.0, "count": 300, "confidence": 0.95, "accuracy": 0.9}
    content = evaluations.evaluation(strategy=strategy)
    return parse(content | {"reliability": [interval], "coverage": [point]})


def cells(html: str, row: str) -> list[str]:
    """Return the cells of the row of the table of classifiers whose name starts with `row`."""
    table = html[html.index('aria-label="Classifiers"') :].split("</table>")[0]
    (found,) = [each for each in table.split("<tr") if f">{row}" in each]
    return re.findall(r"<td[^>]*>([^<]*)</td>", found)


@pytest.mark.parametrize(
    "row", ["Adapter", "Linear model", "Ensemble", "Cascade", "Most frequent", "Base model"]
)
def test_classifiers_and_baselines_are_side_by_side(row):
    assert len(cells(page(with_strategy("adapter")), row)) == 7


def test_each_department_has_its_most_frequent_confusion():
    found = re.findall(r"<bdi>(.*?)</bdi> .*?\((\d+)\)", page(with_strategy("adapter")))
    assert found == [("bulk", "4"), ("dairy", "5"), ("bulk", "6")]  # of dairy, bulk, pets


@pytest.mark.parametrize("strategy", ["adapter", "ensemble", "cascade", "linear"])
def test_selected_classifier_is_marked(strategy):
    html = page(with_strategy(strategy))
    (selected,) = re.findall(r'class="selected"><th[^>]*>([^<]*)<', html)
    assert selected == f"{report.STRATEGIES[strategy]} (selected)"


def test_page_states_the_cost_of_a_language_model_that_is_not_deployed():
    assert "93 seconds of training" not in page(with_strategy("adapter"))
    evaluation = with_strategy("linear")
    html = page(evaluation)
    assert "93 seconds of training" in html
    assert "scores 100 names per second" in html


def test_linear_model_is_not_a_baseline_of_itself():
    html = page(with_strategy("linear"))
    assert "Linear model (TF-IDF)" not in html[html.index("<h2>Baselines") :]


def test_aisles_have_their_own_section(evaluation):
    assert "<h2>Aisles</h2>" not in page(evaluation)
    html = page(with_aisles(evaluation, "<b>curd"), recovered(suggested_aisle="sour & cold"))
    assert "<h2>Aisles</h2>" in html
    assert "65.4" in html
    assert "&lt;b&gt;curd" in html
    assert "2 more" in html
    assert "sour &amp; cold" in html
