"""A name's side never changes, departments have their shares, and no name is on two sides."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.artifacts.base import SIDES
from grocer.config.stages import SplitConfig
from grocer.dataset import split
from grocer.errors import CatalogueError
from grocer.model.prompts.product_names import normalise

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


def test_golden_sides_of_known_names():
    """If these change, test products of existing runs move into training."""
    sides = [split.side(name, SplitConfig()) for name in many(40)]
    assert [index for index, side in enumerate(sides) if side == "test"] == [23, 39]
    assert [index for index, side in enumerate(sides) if side == "validation"] == [
        2, 6, 9, 19, 25, 27, 34,
    ]  # fmt: skip


@given(st.lists(NAMES, min_size=1, unique=True), st.lists(NAMES), st.integers())
def test_adding_products_moves_no_other_product(names, more, seed):
    config = SplitConfig(seed=seed)
    before = {name: split.side(name, config) for name in names}
    frame = examples(sorted({*names, *more}))
    sides = frame["normalised_name"].map(lambda name: split.side(name, config))
    after = dict(zip(frame["normalised_name"], sides, strict=True))
    assert before == {name: after[name] for name in names}


@given(NAMES, st.integers(), SHARES, SHARES, SHARES)
def test_larger_test_share_only_adds_names(name, seed, small, large, validation):
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
def test_rewordings_and_plurals_are_on_one_side(family):
    assert len({split.family(name) for name in family}) == 1
    for seed in range(50):
        assert len({split.side(name, SplitConfig(seed=seed)) for name in family}) == 1


def test_family_keeps_short_words_and_repeated_words():
    assert split.family("us gas bus eggs class") == "bus clas egg gas us"
    assert split.family("tea tea") == "tea tea"


def test_seed_changes_the_split():
    names = many(200)
    one, other = ([split.side(n, SplitConfig(seed=s)) for n in names] for s in (1, 2))
    assert one != other


@pytest.mark.parametrize("department", ["produce", "pets"])
@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.05, 0.25)])
def test_each_department_has_its_share_up_to_sampling_error(department, validation, test):
    config = SplitConfig(validation=validation, test=test)
    parts = split.divide(examples(many(4000, department), department), config)
    # Four standard deviations of 4,000 draws are under 0.028.
    assert len(parts["test"]) / 4000 == pytest.approx(test, abs=0.028)
    assert len(parts["validation"]) / 4000 == pytest.approx(validation, abs=0.028)


def test_divide_keeps_each_row_once_in_order():
    frame = examples(sorted(many(300)))
    parts = split.divide(frame, SplitConfig())
    assert list(parts) == ["train", "validation", "test"]
    together = pd.concat(parts.values()).sort_values("normalised_name", ignore_index=True)
    pd.testing.assert_frame_equal(together, frame)
    for part in parts.values():
        assert part["normalised_name"].is_monotonic_increasing
        assert list(part.index) == list(range(len(part)))


def on(side, number=1):
    """Return `number` names of `side`."""
    return [name for name in many(400) if split.side(name, SplitConfig()) == side][:number]


def test_labels_without_training_products_are_rejected():
    names = on("train", 5) + on("validation", 2) + on("test", 2)
    frame = examples(names)
    frame.loc[frame["normalised_name"].isin(on("test") + on("validation")), "department"] = "rare"
    with pytest.raises(CatalogueError, match=r"no training product for rare: .*split.seed"):
        split.divide(frame, SplitConfig())
    frame.loc[frame["normalised_name"].isin(on("test")), "department"] = "another"
    with pytest.raises(CatalogueError, match="no training product for another, rare: each"):
        split.divide(frame, SplitConfig())
    names = on("test", 6)
    frame = examples(on("train") + on("validation") + names).assign(department=["a", "a", *names])
    with pytest.raises(CatalogueError, match=f"for {', '.join(sorted(names)[:5])}, and 1 more:"):
        split.divide(frame, SplitConfig())


@pytest.mark.parametrize("empty", SIDES)
def test_empty_side_is_rejected(empty):
    names = [name for side in SIDES if side != empty for name in on(side, 3)]
    with pytest.raises(CatalogueError, match=f"none of 6 products is on the {empty} side"):
        split.divide(examples(names), SplitConfig())


def parts(**names):
    return {side: examples(names[side]) for side in SIDES}


def test_summary_counts_products_and_purchases():
    sides = parts(train=["a", "b", "c", "f"], validation=["d"], test=["e"])
    sides["train"].loc[2:, "department"] = "y"
    summary = split.summary(sides, SplitConfig(validation=0.2, test=0.2))
    assert dict(summary["products"]) == {"train": 4, "validation": 1, "test": 1}
    assert dict(summary["purchases"]) == {"train": 8, "validation": 2, "test": 2}
    assert set(summary["overlap"].model_dump().values()) == {0}
    assert {name: dict(counts) for name, counts in summary["departments"].items()} == {
        "x": {"train": 2, "validation": 1, "test": 1},
        "y": {"train": 2, "validation": 0, "test": 0},
    }
    assert summary["without_test"] == ("y",)
    assert summary["stratification"].model_dump() == {
        "department": "y",
        "side": "train",
        "products": 2,
        "share": 1.0,
        "expected": pytest.approx(0.6),
        "z": pytest.approx(0.8 / (2 * 0.6 * 0.4) ** 0.5),
    }


@pytest.mark.parametrize("column", ["normalised_name", "prompt"])
@pytest.mark.parametrize(
    ("one", "other"), [("train", "validation"), ("train", "test"), ("validation", "test")]
)
def test_name_or_prompt_on_two_sides_raises(one, other, column):
    sides = parts(train=["a"], validation=["b"], test=["c"])
    shared = sides[other].loc[0, column] = sides[one].loc[0, column]
    with pytest.raises(RuntimeError, match=rf"{one}_{other}.*{shared!r}"):
        split.summary(sides, SplitConfig())


def test_digests_depend_on_names_and_labels():
    def digests(sides):
        return split.summary(sides, SplitConfig())["digests"]

    one = digests(parts(train=["a"], validation=["b"], test=["c"]))
    other_name = digests(parts(train=["a"], validation=["b"], test=["d"]))
    relabelled = parts(train=["a"], validation=["b"], test=["c"])
    relabelled["train"]["department"] = "y"
    other_label = digests(relabelled)
    assert one == digests(parts(train=["a"], validation=["b"], test=["c"]))
    assert one.train == other_name.train != other_label.train
    assert one.test == other_label.test != other_name.test
