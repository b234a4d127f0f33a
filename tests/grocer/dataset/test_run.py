"""The dataset that later stages read, and the report on what was written."""

import json

import pandas as pd
import pytest

from grocer.artifacts.base import SIDES
from grocer.artifacts.counts import Counts
from grocer.artifacts.splits import Splits
from grocer.config.run import RunConfig
from grocer.config.stages import CatalogueConfig, PromptConfig
from grocer.dataset.run import run
from grocer.model.prompts import template
from tests.fixtures.stage_artifacts import COUNTS

COLUMNS = [
    "product_id", "product_name", "normalised_name", "department", "purchases", "prompt",
    "completion",
]  # fmt: skip


def tables(root, names=300, departments=("dairy", "pets", "produce")):
    """Write ingest's artifact: `names` products, two duplicates, one conflict, two unlabelled."""
    rows = [
        (f"Thing {number}", departments[number % len(departments)], number % 7)
        for number in range(names)
    ]
    rows += [("THING 0", departments[0], 50), ("thing  1", departments[0], 0)]
    rows += [("Gum", "missing", 3), ("Glue", "missing", 1)]
    frame = pd.DataFrame(rows, columns=["product_name", "department", "purchases"])
    frame.insert(0, "product_id", range(1, len(frame) + 1))
    aisles = {"dairy": "milk", "produce": "fruit", "missing": "missing"}  # others have none
    frame["aisle"] = frame["department"].map(aisles)
    frame["aisle_id"] = frame["department_id"] = 1
    frame["department"] = frame["department"].astype("category")
    root.mkdir()
    frame.to_parquet(root / "products.parquet", index=False)
    COUNTS.write(root)
    return root


def build(tmp_path, config, name="out", **shape):
    out = tmp_path / name
    out.mkdir()
    source = tmp_path / f"{name}-tables"
    return run(Counts.read(tables(source, **shape)), config, out), out


def read_sides(out):
    return {side: pd.read_parquet(out / f"{side}.parquet") for side in SIDES}


def test_dataset_files_and_report(tmp_path, capsys):
    splits, out = build(tmp_path, RunConfig(recipe="test", prompt=PromptConfig(template="short")))
    assert sorted(path.name for path in out.iterdir()) == [
        "labels.json", "split.html", "split.json", "template.json", "test.parquet", "train.parquet",
        "unlabelled.parquet", "validation.parquet",
    ]  # fmt: skip
    sides = read_sides(out)
    examples = pd.concat(sides.values()).set_index("normalised_name")
    assert all(list(side) == COLUMNS for side in sides.values())
    assert dict(splits.products) == {side: len(rows) for side, rows in sides.items()}
    assert len(examples) == 300
    assert examples.loc["thing 0", "product_name"] == "THING 0"
    assert examples.loc["thing 0", ["prompt", "completion"]].tolist() == ["THING 0 =>", " dairy"]
    assert examples.dtypes[["product_id", "purchases"]].tolist() == ["int64", "int64"]
    assert json.loads((out / "labels.json").read_text()) == ["dairy", "pets", "produce"]
    assert json.loads((out / "template.json").read_text())["id"] == "short-v1"
    assert Splits.read(out).model_dump() == splits.model_dump()
    assert pd.read_parquet(out / "unlabelled.parquet")["product_name"].tolist() == ["Gum", "Glue"]
    assert (splits.duplicate_names, splits.label_conflicts) == (2, 1)
    assert (splits.unlabelled, splits.truncated_names) == (2, 0)
    assert set(splits.overlap.model_dump().values()) == {0}
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("grocer | build_dataset | ") for line in lines)


def test_dataset_is_deterministic_to_the_byte(tmp_path):
    config = RunConfig(recipe="test")
    _, one = build(tmp_path, config, "one")
    _, other = build(tmp_path, config, "other")
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_chat_prompt_lists_aisles_if_they_are_the_label(tmp_path):
    config = RunConfig(recipe="test", catalogue=CatalogueConfig(label="aisle"))
    splits, out = build(tmp_path, config)
    prompt = pd.read_parquet(out / "train.parquet")["prompt"][0]
    assert "The aisles are: fruit, milk." in prompt
    assert splits.unlabelled == 2 + 100


def test_two_levels_write_the_aisles_with_training_products(tmp_path, capsys):
    config = RunConfig(recipe="test", catalogue=CatalogueConfig(levels=2))
    splits, out = build(tmp_path, config)
    sides = read_sides(out)
    assert all(list(side) == [*COLUMNS[:5], "aisle", *COLUMNS[5:]] for side in sides.values())
    assert json.loads((out / "aisles.json").read_text()) == {
        "dairy": ["milk"],
        "produce": ["fruit"],
    }
    assert json.loads((out / "labels.json").read_text()) == ["dairy", "pets", "produce"]
    rows = sides["train"].drop_duplicates("department").set_index("department")
    assert rows["completion"].to_dict() == {
        "dairy": " dairy: milk ",
        "pets": " pets: ",
        "produce": " produce: fruit ",
    }
    assert "a colon, its aisle there" in rows["prompt"].iloc[0]
    assert "The departments are: dairy, pets, produce." in rows["prompt"].iloc[0]
    assert (splits.aisles, splits.without_aisle, splits.aisles_without_training) == (2, 100, ())
    assert "100 products have no known aisle" in capsys.readouterr().out


def test_aisle_without_training_products_is_reported_and_not_a_label(tmp_path, capsys):
    config = RunConfig(recipe="test", catalogue=CatalogueConfig(levels=2))
    _, out = build(tmp_path, config, "before")
    test = pd.read_parquet(out / "test.parquet")
    product = int(test[test["department"] == "dairy"]["product_id"].iloc[0])
    path = tmp_path / "before-tables" / "products.parquet"
    products = pd.read_parquet(path)
    products.loc[products["product_id"] == product, "aisle"] = "caviar"
    products.to_parquet(path, index=False)
    out = tmp_path / "after"
    out.mkdir()
    splits = run(Counts.read(path.parent), config, out)
    assert splits.aisles_without_training == ("dairy: caviar",)
    assert json.loads((out / "aisles.json").read_text())["dairy"] == ["milk"]
    assert "caviar" in pd.read_parquet(out / "test.parquet")["aisle"].tolist()
    assert (
        "1 aisles have no training product and can't be predicted: dairy: caviar"
        in capsys.readouterr().out
    )


def test_names_equal_after_truncation_are_one_example(tmp_path, monkeypatch):
    monkeypatch.setattr(template, "MAX_NAME_CHARACTERS", 8)
    splits, out = build(tmp_path, RunConfig(recipe="test"), names=3000)
    assert len(pd.concat(read_sides(out).values())) == 100
    assert splits.truncated_names == 2900


def test_department_without_test_products_is_reported(tmp_path, capsys):
    departments = [f"d{number}" for number in range(60)]
    splits, _ = build(tmp_path, RunConfig(recipe="test"), departments=departments)
    assert len(splits.without_test) > 5
    listed = "; ".join(splits.without_test[:5])
    message = "departments without a test product, whose accuracy is not measured: "
    assert f"{message}{len(splits.without_test)} ({listed}; and " in capsys.readouterr().out


def test_labels_that_differ_only_in_case_or_punctuation_are_reported(tmp_path, capsys):
    departments = ("dairy & eggs", "pets", "Dairy and Eggs", "Pets!", "produce")
    build(tmp_path, RunConfig(recipe="test"), departments=departments)
    labels = "Dairy and Eggs; Pets!; dairy & eggs; pets"
    assert f"differ only in case, accents or punctuation: {labels};" in capsys.readouterr().out


@pytest.mark.parametrize(("template", "count"), [("llama2-chat", 1), ("short", 0)])
def test_long_instruction_suggests_the_short_template(tmp_path, capsys, template, count):
    config = RunConfig(recipe="test", prompt=PromptConfig(template=template))
    build(tmp_path, config, names=700, departments=[f"d{number}" for number in range(61)])
    assert capsys.readouterr().out.count("prompt.template=short") == count
