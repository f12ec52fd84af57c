import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle_runtime.errors import RuntimeFault
from treadle_runtime.manifest import DTYPES, CallSpec, Check, Entry, Manifest, TensorSpec

TEXT = st.text(max_size=8)
INDEX = st.none() | st.integers(0, 9)
TENSORS = st.builds(
    TensorSpec,
    TEXT,
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 2**40) | TEXT, max_size=3).map(tuple),
)
NAMES = st.lists(TEXT, max_size=2).map(tuple)


def some(strategy):
    return st.lists(strategy, max_size=2).map(tuple)


ENTRIES = st.builds(
    Entry,
    TEXT,
    some(TENSORS),
    some(TENSORS),
    NAMES,
    some(st.builds(Check, TEXT, INDEX, INDEX)),
    some(st.builds(CallSpec, TEXT, TEXT, TEXT, TEXT)),
    NAMES,
    NAMES,
)
MANIFESTS = st.builds(
    Manifest, some(ENTRIES), TEXT, TEXT, members=st.dictionaries(TEXT, TEXT, max_size=2)
)


@given(MANIFESTS)
def test_write_then_read_is_identity(manifest):
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.to_json() == manifest.to_json()


def test_every_truncation_is_refused(axpy_entry):
    text = Manifest((axpy_entry,)).to_json()
    for length in range(len(text)):
        with pytest.raises(RuntimeFault, match="E0720"):
            Manifest.from_json(text[:length])


def code_of(text):
    try:
        Manifest.from_json(text)
    except RuntimeFault as fault:
        return fault.code
    return "good"


def leaves(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else ()
    children = enumerate(value) if isinstance(value, list) else children
    for key, child in children:
        yield from leaves(child, (*path, key))


@pytest.mark.parametrize("junk", [None, -1, 1.5, True, [[]], {"a": None}, 2**70])
def test_a_wrong_value_anywhere_is_refused_or_allowed_by_its_type(axpy_entry, junk):
    plain = json.loads(Manifest((axpy_entry,), members={"a": "b"}).to_json())
    refused = 0
    for path in leaves(plain):
        changed = json.loads(json.dumps(plain))
        place = changed
        for key in path[:-1]:
            place = place[key]
        if path:
            place[path[-1]] = junk
        else:
            changed = junk
        refused += code_of(json.dumps(changed)) == "E0720"
    assert refused > 20


def test_a_missing_field_is_named():
    with pytest.raises(RuntimeFault, match=r"manifest.entries is missing"):
        Manifest.from_json('{"version": 3}')


def test_another_version_is_told():
    with pytest.raises(RuntimeFault, match="has version 1, and this run time reads 3"):
        Manifest.from_json('{"version": 1}')


@pytest.mark.parametrize("text", ["", "null", "[" * 100_000, b"\xff\xfe\x00", "NaN", '"a"'])
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(RuntimeFault, match="E0720"):
        Manifest.from_json(text)


def test_entries_are_found_by_name(axpy_entry):
    manifest = Manifest((axpy_entry,))
    assert manifest.entry("axpy") is axpy_entry
    with pytest.raises(RuntimeFault, match="entries: axpy"):
        manifest.entry("main")


def test_signature_of_several_outputs():
    spec = TensorSpec("a", "i8", (2, "n"))
    entry = Entry("f", (), (spec, TensorSpec("b", "bool", ())))
    assert entry.signature == "f() -> (Tensor[(2, n), i8], Tensor[(), bool])"
