"""TF-IDF features equal those of scikit-learn."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from grocer.model.linear import tfidf
from grocer.model.linear.tfidf import TfIdf

NAMES = [
    "Organic Whole Milk",
    "organic  whole-milk yogurt",
    "Crème Brûlée 2%",
    "Milk Milk Chocolate, Milk",
    "A",
    "Ab & C",
]


def test_features_equal_those_of_scikit_learn() -> None:
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    expected = np.hstack([each.fit_transform(NAMES).toarray() for each in (words, characters)])
    fitted = TfIdf.fit(NAMES)
    assert fitted.words == tuple(words.get_feature_names_out())
    assert fitted.characters == tuple(characters.get_feature_names_out())
    assert fitted.transform(NAMES).toarray() == pytest.approx(expected, abs=1e-6)


def test_unknown_ngrams_are_ignored() -> None:
    fitted = TfIdf.fit(NAMES)
    rows = fitted.transform(["", "???", "żółw", "Milk żółw"])
    assert rows.shape == (4, len(fitted))
    assert rows[:3].nnz == 0
    assert rows[3].nnz > 0
    assert np.isfinite(rows.toarray()).all()


def test_most_frequent_features_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf, "MAX_FEATURES", 3)
    fitted = TfIdf.fit(["ox oat", "ox milk", "ox oat oat"])
    assert fitted.words == ("ox",)
    assert fitted.characters == (" o", " ox")


def test_names_are_cleaned_as_in_prompts() -> None:
    fitted = TfIdf.fit(NAMES)
    plain, decorated = fitted.transform(["Whole Milk", "Whole\u00a0Milk\u202e\n"]).toarray()
    assert plain.tolist() == decorated.tolist()


@pytest.mark.parametrize("names", [[], [""], ["  "]])
def test_names_without_ngrams_give_no_features(names: list[str]) -> None:
    fitted = TfIdf.fit(names)
    assert len(fitted) == 0
    assert fitted.transform(["Milk"]).shape == (1, 0)
