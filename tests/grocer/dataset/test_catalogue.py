"""Which names are duplicates, which label wins a conflict, and which products are unlabelled."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.config.run import RunConfig
from grocer.config.stages import CatalogueConfig, ValidationConfig
from grocer.dataset.catalogue import read_catalogue
from grocer.errors import CatalogueError
from grocer.model.prompts.product_names import normalise


def config(label="department", unlabelled=("missing",), min_products=1, levels=1):
    return RunConfig(
        recipe="test",
        catalogue=CatalogueConfig(label=label, unlabelled=unlabelled, levels=levels),
        validation=ValidationConfig(min_products=min_products),
    )


def products(*rows):
    """Rows of (name, department, purchases[, aisle]), numbered from 1."""
    return pd.DataFrame(
        [
            {
                "product_id": number,
                "product_name": row[0],
                "department": row[1],
                "purchases": row[2],
                "aisle": row[3] if len(row) > 3 else None,
            }
            for number, row in enumerate(rows, start=1)
        ]
    )


def catalogue_of(*rows):
    return read_catalogue(products(*rows), config())


OTHER = ("Something Else", "pets", 1)
UNLABELLED = ["product_id", "product_name", "normalised_name", "purchases"]


@pytest.mark.parametrize(
    "names",
    [
        (
            "Prune  Juice ",
            "prune juice",
            "PRUNE\tJUICE",
            "Prune\u00a0Juice",
            "Prune\u2003Juice",
            "Prune\u2028Juice",
            "Prune\x00Juice",
            "Prune\u200b Juice",
        ),
        ("All-Purpose Flour", "All Purpose Flour", "All–Purpose, Flour"),
        ("Brut Rosé", "Brut Rose", "Brut Rose\u0301"),
        ("Mac & Cheese", "Mac and Cheese", "Mac &amp; Cheese", "Mac&Cheese"),
        ("Ben's Rice", "Ben’s Rice", "Bens Rice", "Ben`s Rice®", "Ben's™ Rice"),
        ('9\\" Plate', '9" Plate', "9 Plate"),
        ("ﬁne ﬂour", "Fine Flour"),
        ("Straße", "STRASSE"),
        ("Milk\u202e", "\ufeffMilk", "Mi\u00adlk", "Mi\ud800lk"),
    ],
)
def test_spellings_of_a_name_have_one_normal_form(names):
    assert len({normalise(name) for name in names}) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("1.5 L Water", "15 L Water"),
        ("805", "1664", "2010"),
        ("が", "か"),
        ("हिन्दी", "हन्द"),
        ("Mac Cheese", "Mac and Cheese"),
        ("!!!", "???", "?!"),
    ],
)
def test_different_names_have_different_normal_forms(names):
    assert len({normalise(name) for name in names}) == len(names)


def test_normal_form_is_words_in_lower_case():
    assert normalise(" Ben & Jerry’s®  Half-Baked™ (1 pt.)\n") == "ben and jerrys half baked 1 pt"
    assert normalise("???") == "???"


@given(st.text())
def test_normalise_is_idempotent(name):
    once = normalise(name)
    assert normalise(once) == once
    assert once == " ".join(once.split())


@given(st.text())
def test_surrounding_and_zero_width_spaces_do_not_matter(name):
    assert normalise(f" {name}\u200b\n") == normalise(name)


def test_label_with_most_purchases_wins_a_conflict():
    catalogue = catalogue_of(
        ("Tofu", "deli", 5), ("tofu", "produce", 3), ("TOFU", "produce", 3), OTHER
    )
    row = catalogue.examples.set_index("normalised_name").loc["tofu"]
    assert (row["department"], row["purchases"], row["product_id"]) == ("produce", 6, 2)
    assert (catalogue.duplicate_names, catalogue.label_conflicts) == (1, 1)


def test_ties_go_to_the_label_of_most_products_then_the_first_by_name():
    most = catalogue_of(("a", "deli", 4), ("A", "produce", 2), ("A ", "produce", 2), OTHER)
    first = catalogue_of(("b", "produce", 1), ("B", "deli", 1), OTHER)
    assert most.examples["department"].tolist()[0] == "produce"
    assert first.examples["department"].tolist()[0] == "deli"


def test_example_has_the_name_of_the_most_purchased_duplicate():
    catalogue = catalogue_of(
        ("MILK", "dairy", 1), (" Milk®", "dairy", 9), ("milk", "dairy", 9), OTHER
    )
    row = catalogue.examples.iloc[0]
    assert row.to_dict() == {
        "product_id": 2,
        "product_name": " Milk®",
        "normalised_name": "milk",
        "department": "dairy",
        "purchases": 19,
    }
    assert (catalogue.duplicate_names, catalogue.label_conflicts) == (1, 0)


@given(st.randoms(use_true_random=False))
def test_order_of_products_does_not_matter(random):
    rows = products(
        ("Tofu", "deli", 3),
        ("tofu", "produce", 3),
        ("tea", "drinks", 0),
        ("TEA", "drinks", 0),
        ("x", "missing", 2),
        ("y", "missing", 1),
    )
    order = list(range(len(rows)))
    random.shuffle(order)
    one, other = read_catalogue(rows, config()), read_catalogue(rows.iloc[order], config())
    pd.testing.assert_frame_equal(one.examples, other.examples)
    pd.testing.assert_frame_equal(one.unlabelled, other.unlabelled)


def test_unlabelled_products_are_listed_and_no_examples():
    catalogue = catalogue_of(
        ("Ice Cream", " Missing ", 4),
        ("Gum", None, 2),
        ("Tape", "", 1),
        ("Milk", "dairy", 7),
        ("Kibble", "pets", 1),
        ("ice cream", "frozen", 1),
    )
    assert catalogue.labels == ("dairy", "frozen", "pets")
    assert catalogue.unlabelled["product_id"].to_dict() == {0: 1, 1: 2, 2: 3}
    assert list(catalogue.unlabelled) == UNLABELLED
    assert (catalogue.duplicate_names, catalogue.label_conflicts) == (0, 0)


def test_labels_that_mean_unlabelled_are_configurable():
    rows = products(("a", "missing", 1), ("b", "TBD", 1), ("c", "pets", 1), ("d", "dairy", 1))
    assert read_catalogue(rows, config()).labels == ("TBD", "dairy", "pets")
    assert read_catalogue(rows, config(unlabelled=("tbd",))).labels == ("dairy", "missing", "pets")
    assert read_catalogue(rows, config(unlabelled=())).unlabelled.empty


def test_label_can_be_the_aisle_and_spaces_are_normalised():
    rows = products(("a", "x", 1, "teas "), ("b", "x", 1, "teas"), ("c", "x", 1, "pet  food"))
    assert read_catalogue(rows, config("aisle")).labels == ("pet food", "teas")


def test_aisle_is_that_of_most_purchases_within_the_department():
    rows = products(
        ("Tofu", "deli", 9, "meals"),
        ("tofu", "deli", 2, "tofu"),
        ("TOFU", "deli", 3, "tofu "),
        ("Tofu!", "deli", 5, "missing"),
        ("tofu?", "produce", 18, "greens"),
        ("Kibble", "pets", 1, None),
        ("Tape", "missing", 1, "missing"),
    )
    catalogue = read_catalogue(rows, config(levels=2))
    table = catalogue.examples.set_index("normalised_name")
    assert table["aisle"].to_dict() == {"tofu": "meals", "kibble": ""}
    assert list(catalogue.unlabelled) == UNLABELLED


def test_second_level_does_not_change_the_first():
    rows = products(
        ("Tofu", "deli", 3, "meals"), ("tofu", "produce", 3, "greens"), ("x", "missing", 2, "y"),
        ("Kibble", "pets", 1, "dogs"),
    )  # fmt: skip
    one, two = read_catalogue(rows, config()), read_catalogue(rows, config(levels=2))
    pd.testing.assert_frame_equal(two.examples.drop(columns="aisle"), one.examples)
    assert "aisle" not in one.examples
    assert one.labels == two.labels
    assert one.duplicate_names == two.duplicate_names
    assert one.label_conflicts == two.label_conflicts


def test_names_with_equal_prompts_are_duplicates():
    catalogue = read_catalogue(
        products(("long name one", "dairy", 1), ("long name two", "dairy", 1), OTHER),
        config(),
        lambda name: name[:9],
    )
    assert catalogue.duplicate_names == 1
    assert len(catalogue.examples) == 2


@pytest.mark.parametrize(
    ("rows", "settings", "fragments"),
    [
        ([("a", "x", 1)], {"min_products": 3}, ["1 distinct name", "at least 3", "min_products"]),
        ([], {"min_products": 1}, ["0 distinct names", "at least 1"]),
        ([("a", "x", 1), ("b", "x", 1)], {}, ["same department, 'x'", "at least 2"]),
        ([("a", "x", 1), ("b", "y", 1)], {"label": "aisle"}, ["aisles.csv", "data.columns.aisle"]),
        ([("a", "x", 1), ("b", "y", 1)], {"levels": 2}, ["catalogue.levels=2", "aisles.csv"]),
    ],
)
def test_unusable_catalogue_is_rejected_in_one_line(rows, settings, fragments):
    frame = products(*rows) if rows else products(OTHER).iloc[:0]
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(frame, config(**settings))
    assert all(fragment in str(caught.value) for fragment in fragments)
    assert "\n" not in str(caught.value)


def test_minimum_number_of_products_is_accepted():
    rows = products(("a", "x", 1), ("b", "y", 1))
    assert len(read_catalogue(rows, config(min_products=2)).examples) == 2
