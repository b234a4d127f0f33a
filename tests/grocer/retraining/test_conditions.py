"""Conditions: parsing, and three-valued logic for those that are not known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.errors import ConfigError
from grocer.retraining.conditions import Condition, Expression, Trigger

CONDITIONS = st.one_of(
    st.just(Condition("drift")),
    st.builds(Condition, st.sampled_from(["corrections", "age"]), st.integers(1, 10**9 - 1)),
)
ALTERNATIVES = st.lists(st.lists(CONDITIONS, min_size=1, max_size=3).map(tuple), min_size=1)


@given(ALTERNATIVES.map(tuple).map(Expression), st.sampled_from([" ", "  ", "\n "]))
def test_text_of_an_expression_is_parsed_to_the_same_expression(expression, space):
    assert Expression.parse(str(expression).replace(" ", space)) == expression


@given(st.text(alphabet="drift or and 0123d corrections"))
def test_no_text_is_an_internal_error(text):
    try:
        expression = Expression.parse(text)
    except ConfigError:
        return
    assert Expression.parse(str(expression)) == expression


@pytest.mark.parametrize(
    "text",
    [
        *("", "or", "drift or", "or drift", "0 corrections", "0d", "-1d", "1.5d", "30", "30 days"),
        *("Drift", "5corrections", "drift, 30d", "(drift)", "drift xor 30d", "1234567890d"),
    ],
)
def test_invalid_expressions(text):
    with pytest.raises(ConfigError, match="is not a condition"):
        Expression.parse(text)


@given(ALTERNATIVES.map(tuple).map(Expression), st.data())
def test_result_is_known_if_unknown_conditions_cannot_change_it(expression, data):
    values = st.sampled_from([True, False, None])
    met = {condition: data.draw(values) for condition in expression.conditions}
    results = {
        any(
            all(default if met[each] is None else met[each] for each in alternative)
            for alternative in expression.alternatives
        )
        for default in (True, False)
    }
    assert expression.is_met(met) == (results.pop() if len(results) == 1 else None)


def test_and_binds_more_strongly_than_or():
    expression = Expression.parse("drift and 500 corrections or 30d")
    assert expression.alternatives == (
        (Condition("drift"), Condition("corrections", 500)),
        (Condition("age", 30),),
    )


@pytest.mark.parametrize(
    ("when", "metrics", "corrections", "message"),
    [
        ("drift", None, None, "drift requires --metrics"),
        ("1 corrections", None, None, "requires --corrections"),
        ("drift", "prometheus:9090", None, "--metrics prometheus:9090: expected"),
        ("drift", "http://me:secret@prometheus", None, r"http://\*\*\*@prometheus"),
        ("weekly", None, None, "'weekly' is not a condition"),
    ],
)
def test_condition_without_a_valid_source_is_rejected(when, metrics, corrections, message):
    with pytest.raises(ConfigError, match=message):
        Trigger.of(when, metrics=metrics, corrections=corrections, cool_down_days=7.0)
