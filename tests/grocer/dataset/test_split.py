"""Protects: a name's side is its own for good, departments keep their shares, nothing leaks."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.config.stages import SplitConfig
from grocer.dataset import split
from grocer.dataset.catalogue import normalise
from grocer.errors import CatalogueError

NAMES = st.text(min_size=1, max_size=20).map(normalise).filter(bool)
SHARES = st.floats(0.01, 0.4)


def examples(names, department="x"):
    return pd.DataFrame(
        {
            "normalised_name": names,
            "department": department,
            "purchases": 2,
            "prompt": [f"{name} =>" for name in names],
        }
    )


def many(number, word="product"):
    return [f"{word} {index}" for index in range(number)]


def test_known_names_stand_where_they_always_stood():
    """Golden: a change here moves every user's test products into training."""
    sides = [split.side(name, SplitConfig()) for name in many(40)]
    assert [place for place, side in enumerate(sides) if side == "test"] == [23, 39]
    assert [place for place, side in enumerate(sides) if side == "validation"] == [
        2, 6, 9, 19, 25, 27, 34,
    ]  # fmt: skip


@given(st.lists(NAMES, min_size=1, unique=True), st.lists(NAMES), st.integers())
def test_no_product_changes_side_when_others_come(names, more, seed):
    config = SplitConfig(seed=seed)
    before = {name: split.side(name, config) for name in names}
    frame = examples(sorted({*names, *more}))
    sides = frame["normalised_name"].map(lambda name: split.side(name, config))
    after = dict(zip(frame["normalised_name"], sides, strict=True))
    assert before == {name: after[name] for name in names}


@given(NAMES, st.integers(), SHARES, SHARES, SHARES)
def test_a_larger_share_only_takes_names_in(name, seed, small, large, validation):
    small, large = sorted((small, large))
    one = SplitConfig(test=small, validation=validation, seed=seed)
    other = SplitConfig(test=large, validation=validation, seed=seed)
    if split.side(name, one) == "test":
        assert split.side(name, other) == "test"
    if split.side(name, other) == "train":
        assert split.side(name, one) == "train"


@pytest.mark.parametrize(
    "family",
    [
        ("greek yogurt vanilla", "vanilla greek yogurt", "vanilla greek yogurts"),
        ("almond bars", "bar almonds"),
    ],
)
def test_rewordings_and_plurals_stand_on_one_side(family):
    assert len({split.family(name) for name in family}) == 1
    for seed in range(50):
        assert len({split.side(name, SplitConfig(seed=seed)) for name in family}) == 1


def test_families_keep_short_words_and_counts_of_words():
    assert split.family("us gas bus eggs class") == "bus clas egg gas us"
    assert split.family("tea tea") == "tea tea"


def test_another_seed_is_another_split():
    names = many(200)
    one, other = ([split.side(n, SplitConfig(seed=s)) for n in names] for s in (1, 2))
    assert one != other


@pytest.mark.parametrize("department", ["produce", "pets"])
@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.05, 0.25)])
def test_each_department_has_its_share_within_chance(department, validation, test):
    config = SplitConfig(validation=validation, test=test)
    parts = split.divide(examples(many(4000, department), department), config)
    # Four standard deviations of 4,000 tosses are under 0.028.
    assert len(parts["test"]) / 4000 == pytest.approx(test, abs=0.028)
    assert len(parts["validation"]) / 4000 == pytest.approx(validation, abs=0.028)


def test_divide_keeps_every_row_once_in_order():
    frame = examples(sorted(many(300)))
    parts = split.divide(frame, SplitConfig())
    assert list(parts) == ["train", "validation", "test"]
    together = pd.concat(parts.values()).sort_values("normalised_name", ignore_index=True)
    pd.testing.assert_frame_equal(together, frame)
    for part in parts.values():
        assert part["normalised_name"].is_monotonic_increasing
        assert list(part.index) == list(range(len(part)))


def on(side, number=1):
    """`number` names that stand on `side`."""
    return [name for name in many(400) if split.side(name, SplitConfig()) == side][:number]


def test_a_label_without_training_products_is_refused_by_name():
    names = on("train", 5) + on("validation", 2) + on("test", 2)
    frame = examples(names)
    frame.loc[frame["normalised_name"].isin(on("test") + on("validation")), "department"] = "rare"
    with pytest.raises(CatalogueError, match=r"no training product for rare: .*split.seed"):
        split.divide(frame, SplitConfig())
    frame.loc[frame["normalised_name"].isin(on("test")), "department"] = "a rare one too"
    with pytest.raises(CatalogueError, match="no training product for a rare one too, rare: each"):
        split.divide(frame, SplitConfig())


@pytest.mark.parametrize("empty", split.SIDES)
def test_a_side_without_products_is_refused(empty):
    names = [name for side in split.SIDES if side != empty for name in on(side, 3)]
    with pytest.raises(CatalogueError, match=f"none of 6 products is on the {empty} side"):
        split.divide(examples(names), SplitConfig())


def parts(**names):
    return {side: examples(names[side]) for side in split.SIDES}


def test_the_report_counts_what_is_there():
    given = parts(train=["a", "b", "c", "f"], validation=["d"], test=["e"])
    given["train"].loc[2:, "department"] = "y"
    report = split.report(given, SplitConfig(validation=0.2, test=0.2))
    assert report["products"] == {"train": 4, "validation": 1, "test": 1}
    assert report["purchases"] == {"train": 8, "validation": 2, "test": 2}
    assert report["overlap"] == {"train_validation": 0, "train_test": 0, "validation_test": 0}
    assert report["departments"] == {
        "x": {"train": 2, "validation": 1, "test": 1},
        "y": {"train": 2, "validation": 0, "test": 0},
    }
    assert report["without_test"] == ["y"]
    furthest = report["stratification"]
    assert (furthest["department"], furthest["side"], furthest["products"]) == ("y", "train", 2)
    assert furthest["share"] == 1.0
    assert furthest["expected"] == pytest.approx(0.6)
    assert furthest["z"] == pytest.approx(0.8 / (2 * 0.6 * 0.4) ** 0.5)


@pytest.mark.parametrize("column", ["normalised_name", "prompt"])
@pytest.mark.parametrize(
    ("one", "other"), [("train", "validation"), ("train", "test"), ("validation", "test")]
)
def test_a_leak_is_an_assertion_that_names_the_sides(one, other, column):
    given = parts(train=["a"], validation=["b"], test=["c"])
    given[other].loc[0, column] = given[one].loc[0, column]
    with pytest.raises(AssertionError, match=f"'{one}_{other}': 1"):
        split.report(given, SplitConfig())


def test_digests_tell_splits_apart_by_names_and_labels():
    one = split.report(parts(train=["a"], validation=["b"], test=["c"]), SplitConfig())["digests"]
    again = split.report(parts(train=["a"], validation=["b"], test=["c"]), SplitConfig())["digests"]
    named = split.report(parts(train=["a"], validation=["b"], test=["d"]), SplitConfig())["digests"]
    changed = parts(train=["a"], validation=["b"], test=["c"])
    changed["train"]["department"] = "y"
    labelled = split.report(changed, SplitConfig())["digests"]
    assert one == again
    assert one["train"] == named["train"] != labelled["train"]
    assert one["test"] == labelled["test"] != named["test"]
