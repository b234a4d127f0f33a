"""Protects: the tables that every later step reads, and that the proof is about those tables."""

import json

import pandas as pd
import pytest

from grocer.config.run import RunConfig
from grocer.config.stages import CatalogueConfig, PromptConfig
from grocer.dataset import build as examples
from grocer.errors import CatalogueError
from grocer.model import prompt_template

COLUMNS = [
    "product_id", "product_name", "normalised_name", "department", "purchases", "prompt",
    "completion",
]  # fmt: skip


def tables(root, names=300, departments=("dairy", "pets", "produce")):
    """Ingest's products.parquet: `names` products, one twin, one conflict, two unlabelled."""
    rows = [
        (f"Thing {number}", departments[number % len(departments)], number % 7)
        for number in range(names)
    ]
    rows += [("THING 0", departments[0], 50), ("thing  1", departments[0], 0)]
    rows += [("Gum", "missing", 3), ("Glue", "missing", 1)]
    frame = pd.DataFrame(rows, columns=["product_name", "department", "purchases"])
    frame.insert(0, "product_id", range(1, len(frame) + 1))
    aisles = {"dairy": "milk", "produce": "fruit", "missing": "missing"}  # and none for the rest
    frame["aisle"] = frame["department"].map(aisles)
    frame["aisle_id"] = frame["department_id"] = 1
    frame["department"] = frame["department"].astype("category")
    root.mkdir()
    frame.to_parquet(root / "products.parquet", index=False)
    return root


def build(tmp_path, config, name="out", **shape):
    out = tmp_path / name
    out.mkdir()
    source = tmp_path / f"{name}-tables"
    return examples.build(tables(source, **shape), config, out), out


def test_what_is_written(tmp_path, capsys):
    report, out = build(tmp_path, RunConfig(recipe="test", prompt=PromptConfig(template="short")))
    assert sorted(path.name for path in out.iterdir()) == [
        "labels.json", "split.html", "split.json", "template.json", "test.parquet", "train.parquet",
        "unlabelled.parquet", "validation.parquet",
    ]  # fmt: skip
    sides = {side: pd.read_parquet(out / f"{side}.parquet") for side in report["products"]}
    everything = pd.concat(sides.values()).set_index("normalised_name")
    assert all(list(side) == COLUMNS for side in sides.values())
    assert report["products"] == {side: len(rows) for side, rows in sides.items()}
    assert len(everything) == 300
    assert everything.loc["thing 0", "product_name"] == "THING 0"
    assert everything.loc["thing 0", ["prompt", "completion"]].tolist() == ["THING 0 =>", " dairy"]
    assert everything.dtypes[["product_id", "purchases"]].tolist() == ["int64", "int64"]
    assert json.loads((out / "labels.json").read_text()) == ["dairy", "pets", "produce"]
    assert json.loads((out / "template.json").read_text())["id"] == "short-v1"
    assert json.loads((out / "split.json").read_text()) == report
    assert pd.read_parquet(out / "unlabelled.parquet")["product_name"].tolist() == ["Gum", "Glue"]
    counts = {key: report[key] for key in ("twins", "conflicts", "unlabelled", "cut_names")}
    assert counts == {"twins": 2, "conflicts": 1, "unlabelled": 2, "cut_names": 0}
    assert set(report["overlap"].values()) == {0}
    said = capsys.readouterr().out.splitlines()
    assert said
    assert all(line.startswith("grocer | prompts | ") for line in said)


def test_two_builds_are_the_same_to_the_byte(tmp_path):
    config = RunConfig(recipe="test")
    _, one = build(tmp_path, config, "one")
    _, other = build(tmp_path, config, "other")
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_the_chat_prompt_lists_the_labels_by_what_they_are_called(tmp_path):
    config = RunConfig(recipe="test", catalogue=CatalogueConfig(label="aisle"))
    report, out = build(tmp_path, config)
    prompt = pd.read_parquet(out / "train.parquet")["prompt"][0]
    assert "The aisles are: fruit, milk." in prompt
    assert report["unlabelled"] == 2 + 100


def test_two_levels_write_the_aisles_that_training_has(tmp_path, capsys):
    config = RunConfig(recipe="test", catalogue=CatalogueConfig(levels=2))
    report, out = build(tmp_path, config)
    sides = {side: pd.read_parquet(out / f"{side}.parquet") for side in report["products"]}
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
    assert report["aisles"] == 2
    assert (report["without_aisle"], report["aisles_untaught"]) == (100, [])
    assert "100 products teach their department alone" in capsys.readouterr().out


def test_an_aisle_without_training_products_is_said_and_no_answer(tmp_path, capsys):
    config = RunConfig(recipe="test", catalogue=CatalogueConfig(levels=2))
    _, out = build(tmp_path, config, "before")
    test = pd.read_parquet(out / "test.parquet")
    lonely = int(test[test["department"] == "dairy"]["product_id"].iloc[0])
    source = tmp_path / "before-tables" / "products.parquet"
    frame = pd.read_parquet(source)
    frame.loc[frame["product_id"] == lonely, "aisle"] = "caviar"
    frame.to_parquet(source, index=False)
    again = tmp_path / "again"
    again.mkdir()
    report = examples.build(tmp_path / "before-tables", config, again)
    assert report["aisles_untaught"] == ["dairy: caviar"]
    assert json.loads((again / "aisles.json").read_text())["dairy"] == ["milk"]
    assert "caviar" in pd.read_parquet(again / "test.parquet")["aisle"].tolist()
    assert "no training product in dairy: caviar: the model can't answer" in capsys.readouterr().out


def test_names_alike_up_to_the_cut_are_one_example_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_template, "MAX_NAME_CHARACTERS", 8)
    report, out = build(tmp_path, RunConfig(recipe="test"), names=3000)
    sides = [pd.read_parquet(out / f"{side}.parquet") for side in report["products"]]
    assert len(pd.concat(sides)) == 100
    assert report["cut_names"] == 2900


def test_a_department_without_test_products_is_said(tmp_path, capsys):
    shop = [f"d{number}" for number in range(60)]
    report, _ = build(tmp_path, RunConfig(recipe="test"), departments=shop)
    assert report["without_test"]
    assert f"no test product in {', '.join(report['without_test'])}" in capsys.readouterr().out


@pytest.mark.parametrize(("template", "count"), [("llama2-chat", 1), ("short", 0)])
def test_a_long_instruction_is_said(tmp_path, capsys, template, count):
    config = RunConfig(recipe="test", prompt=PromptConfig(template=template))
    build(tmp_path, config, names=700, departments=[f"d{number}" for number in range(61)])
    said = capsys.readouterr().out
    assert said.count("lists all 61 departments: prompt.template=short leaves it out") == count


def test_too_few_products_stop_the_step(tmp_path):
    with pytest.raises(CatalogueError, match=r"50 distinct names .*at least 100"):
        build(tmp_path, RunConfig(recipe="test"), names=50)
