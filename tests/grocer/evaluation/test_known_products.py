"""Products that a run knew are recognised by their family, from hashes alone."""

from hypothesis import given
from hypothesis import strategies as st

from grocer.evaluation import known_products
from grocer.release.manifest import KNOWN

NAMES = st.lists(st.text("abs ", min_size=1, max_size=12), max_size=8)


def test_only_other_families_are_new(tmp_path):
    known_products.save(["greek yogurt vanilla", "milk"], tmp_path)
    names = ["vanilla greek yogurts", "milk", "oat milk", ""]
    assert known_products.are_new(names, tmp_path).tolist() == [False, False, True, True]


@given(NAMES, NAMES)
def test_saved_products_are_never_new(tmp_path_factory, known, names):
    directory = tmp_path_factory.getbasetemp()
    known_products.save(known, directory)
    assert not known_products.are_new(known, directory).any()
    new = known_products.are_new(names, directory)
    assert new.shape == (len(names),)
    assert not any(each for each, name in zip(new, names, strict=True) if name in known)


def test_file_holds_no_names_and_no_order(tmp_path):
    known_products.save(["milk", "banana", "milks"], tmp_path)
    first = (tmp_path / KNOWN).read_bytes()
    known_products.save(["banana", "milk"], tmp_path)
    assert (tmp_path / KNOWN).read_bytes() == first
    assert b"milk" not in first
