"""The page: whole in one file, truthful about what was not measured, deaf to hostile names."""

import copy
import re

import pandas as pd

from grocer.config.stages import GatePolicy
from grocer.reports import evaluation as report

HOSTILE = '<script>alert(1)</script> & "Milk" \'; {{ 7*7 }} \u202e'
NOTHING_RECOVERED = pd.DataFrame(
    columns=["product_name", "suggested_department", "probability", "purchases"]
)


def page(evaluation, recovered=NOTHING_RECOVERED) -> str:
    return report.page(evaluation, recovered, GatePolicy())


def test_the_verdict_comes_first(measured):
    told = page(measured)
    assert "Refused" in told.split("<h2>")[0]
    assert "75.0\u00a0%" in told.split("<h2>")[0]


def test_nothing_is_asked_of_the_network(measured):
    told = page(measured)
    assert not re.search(r"""(src|href)=["'](?!#)""", told.replace("xlink:", ""))
    assert "<script" not in told
    assert "url(http" not in told


def test_hostile_names_stay_text(measured):
    evaluation = copy.deepcopy(measured)
    evaluation["confident_errors"][0]["product_name"] = HOSTILE
    recovered = pd.DataFrame(
        [
            {
                "product_name": HOSTILE,
                "suggested_department": "<i>dairy</i>",
                "probability": 0.99999,
                "purchases": 3,
            }
        ]
    )
    told = page(evaluation, recovered)
    assert "<script" not in told
    assert "<i>dairy" not in told
    assert told.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "{{ 7*7 }}" in told
    assert "over 99.9" in told


def test_hostile_departments_stay_text(measured):
    told = page(_renamed(measured, {"produce": "<img src=x>", "bakery": "a $b$ %s"}))
    assert "<img" not in told
    assert "a $b$ %s" in told


def test_a_department_without_test_products_is_told_as_not_measured(measured):
    evaluation = copy.deepcopy(measured)
    evaluation["departments"]["bakery"] = {
        "support": 0,
        "precision": None,
        "recall": None,
        "f1": None,
    }
    evaluation["confusion"][0] = [0, 0, 0]
    assert "not measured" in page(evaluation)


def test_many_labels_have_no_matrix_but_their_mix_ups(measured):
    evaluation = copy.deepcopy(measured)
    count = report.MOST_LABELS + 1
    labels = [f"aisle {i}" for i in range(count)]
    row = {"support": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    evaluation["labels"], evaluation["label"] = labels, "aisle"
    evaluation["departments"] = dict.fromkeys(labels, row)
    evaluation["confusion"] = [
        [int(j in (i, (i + 1) % count)) for j in range(count)] for i in range(count)
    ]
    told = page(evaluation)
    assert 'class="heat"' not in told
    assert "too many for a readable matrix" in told
    assert "aisle 40" in told
    assert "<summary>21 more</summary>" in told  # 20 of 41 stand open


def test_a_model_without_an_error_has_a_page_too(measured):
    evaluation = copy.deepcopy(measured)
    evaluation["confident_errors"] = []
    evaluation["confusion"] = [[14, 0, 0], [0, 13, 0], [0, 0, 13]]
    told = page(evaluation)
    assert "every test product is right" in told
    assert "Sure, and yet wrong" not in told


def test_a_catalogue_without_purchases_is_not_told_of_them(measured):
    evaluation = copy.deepcopy(measured)
    assert "As the study measured" in page(evaluation)
    evaluation["as_the_study_measured"]["share_of_test_products_seen_in_training"] = 0.0
    told = page(evaluation)
    assert "As the study measured" not in told
    assert "weighed by purchases</" not in told.split("<h2>")[0]


def test_three_guesses_of_three_labels_are_no_figure(measured):
    assert "within three guesses" not in page(measured)
    assert "within three guesses" in page(
        {**measured, "labels": [*measured["labels"], "pets"]} | _fourth(measured)
    )


def test_aisles_have_a_part_of_their_own(measured):
    assert "The aisle within the" not in page(measured)
    rows = [
        {
            "department": "produce",
            "aisle": f"<b>{i}",
            "support": 20 + i,
            "recall": 0.5,
            "precision": None,
        }
        for i in range(14)
    ]
    mix_up = {
        "department": "produce",
        "aisle": "<b>0",
        "said_department": "bakery",
        "said_aisle": "",
        "products": 3,
    }
    test = measured["metrics"]["test"] | {"accuracy_within": 0.9, "accuracy": 0.654}
    aisles = {
        "metrics": {"test": test},
        "linear": {"accuracy": 0.7},
        "aisles": rows,
        "mix_ups": [mix_up],
    }
    recovered = pd.DataFrame(
        [
            {
                "product_name": "Late Kefir",
                "suggested_department": "dairy eggs",
                "probability": 0.9,
                "purchases": 3,
                "suggested_aisle": "sour & cold",
            }
        ]
    )
    told = page({**measured, "aisles": aisles}, recovered)
    assert "The aisle within the department" in told
    assert "65.4" in told
    assert "&lt;b&gt;0" in told
    assert "2 more" in told
    assert "sour &amp; cold" in told


def _fourth(evaluation: dict) -> dict:
    """What the evaluation holds of a fourth label, to which nothing belongs."""
    row = {"support": 0, "precision": None, "recall": None, "f1": None}
    table = [[*counts, 0] for counts in evaluation["confusion"]]
    return {
        "departments": {**evaluation["departments"], "pets": row},
        "confusion": [*table, [0] * 4],
    }


def _renamed(evaluation: dict, names: dict[str, str]) -> dict:
    """The evaluation with other names of departments."""
    changed = copy.deepcopy(evaluation)
    changed["labels"] = [names.get(label, label) for label in changed["labels"]]
    changed["departments"] = {names.get(k, k): v for k, v in changed["departments"].items()}
    for error in changed["confident_errors"]:
        error["department"] = names.get(error["department"], error["department"])
    return changed
