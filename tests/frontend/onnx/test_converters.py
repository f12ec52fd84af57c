"""Laws of the catalogue: every converter agrees with ONNX's own definition of its operator."""

from collections import defaultdict

import onnx.defs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.defs import OpSchema

from treadle.frontend.onnx.catalogue import CATALOGUE
from treadle.frontend.onnx.converter import DOMAIN, Catalogue, Converter, converter
from treadle.frontend.onnx.importer import HINTS
from treadle.ir.graph_builder import Traced

SCHEMAS: dict[tuple[str, str], list[OpSchema]] = defaultdict(list)
for _schema in onnx.defs.get_all_schemas_with_history():
    SCHEMAS[(_schema.domain or DOMAIN, _schema.name)].append(_schema)


def schemas_of(c: Converter) -> list[OpSchema]:
    """The versions that a converter is chosen for."""
    return [
        s
        for s in SCHEMAS[(c.domain, c.operator)]
        if CATALOGUE.find(c.domain, c.operator, s.since_version) is c
    ]


def name_of(c: Converter) -> str:
    return f"{c.operator}-{c.since}"


@pytest.mark.parametrize("c", CATALOGUE.converters, ids=name_of)
class TestEveryConverter:
    def test_is_chosen_for_some_version(self, c: Converter):
        assert schemas_of(c)

    def test_takes_every_attribute_of_every_version_that_it_is_chosen_for(self, c: Converter):
        for schema in schemas_of(c):
            assert set(schema.attributes) - HINTS <= set(c.attributes)

    def test_names_no_attribute_that_onnx_does_not(self, c: Converter):
        assert set(c.attributes) <= {
            name for s in SCHEMAS[(c.domain, c.operator)] for name in s.attributes
        }

    def test_takes_every_input_of_every_version_that_it_is_chosen_for(self, c: Converter):
        for schema in schemas_of(c):
            assert c.is_variadic or schema.max_input <= len(c.inputs)

    def test_says_what_it_needs_of_each_input(self, c: Converter):
        assert all(i.name for i in c.inputs)

    def test_requires_no_attribute_that_onnx_does_not(self, c: Converter):
        required = {n for n, p in c.attributes.items() if p.default is p.empty}
        for schema in schemas_of(c):
            assert required <= {n for n, a in schema.attributes.items() if a.required}

    def test_has_the_defaults_of_onnx(self, c: Converter):
        newest = schemas_of(c)[-1]
        for name, attribute in newest.attributes.items():
            value = attribute.default_value
            if not value.name or name in HINTS:
                continue
            expected = onnx.helper.get_attribute_value(value)
            expected = expected.decode() if isinstance(expected, bytes) else expected
            found = c.attributes[name].default
            if isinstance(expected, float):
                assert found == pytest.approx(expected, rel=1e-6)
            elif isinstance(expected, list):
                assert found is None or list(found) == [
                    e.decode() if isinstance(e, bytes) else e for e in expected
                ]
            else:
                assert found == expected


def _some(since: int) -> Converter:
    def convert(x: Traced) -> Traced:
        return x

    return converter("Some", since=since)(convert)


@given(st.sets(st.integers(1, 30), min_size=1), st.integers(1, 30))
def test_the_newest_converter_that_is_not_too_new_is_chosen(versions: set[int], version: int):
    found = Catalogue(tuple(_some(v) for v in versions)).find("", "Some", version)
    fitting = [v for v in versions if v <= version]
    assert (None if found is None else found.since) == max(fitting, default=None)
