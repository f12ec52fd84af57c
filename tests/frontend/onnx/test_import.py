"""What an imported module says, and what it computes, beside ONNX's reference evaluator."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from treadle.base.errors import ModelImportError, RuntimeFault
from treadle.expr.scalar import Var
from treadle.frontend.onnx import NeedsValue, import_module
from treadle.ir.calls import Cond, WhileLoop
from treadle.ir.graph import GraphFunction
from treadle.ir.interpret import run
from treadle.ir.types import TensorType


def model(text: str) -> onnx.ModelProto:
    """A model in ONNX's text."""
    return onnx.parser.parse_model(text)


def graph(text: str, opset: int = 21) -> onnx.ModelProto:
    """A model of one graph."""
    return model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')


def main_of(proto: onnx.ModelProto, **constants: np.ndarray) -> GraphFunction:
    return import_module(proto, constants=constants).module.graph("main")


def check(proto: onnx.ModelProto, *arrays: np.ndarray, **constants: np.ndarray) -> None:
    """The imported module computes what ONNX's evaluator does."""
    names = [i.name for i in proto.graph.input]
    expected = ReferenceEvaluator(proto).run(None, dict(zip(names, arrays, strict=True)))
    rest = [a for name, a in zip(names, arrays, strict=True) if name not in constants]
    found = run(import_module(proto, constants=constants).module, "main", *rest)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def ops_of(function: GraphFunction) -> list[str]:
    return [b.op.op_name() for b in function.body]


class TestSignature:
    def test_named_dimensions_are_symbols_of_that_name_and_others_are_distinct(self):
        proto = graph(
            "m (float[batch, 4, ?] x, float[batch, ?] y) => (float[batch, 4, ?] z) { z = Relu(x) }"
        )
        x, y = (p.type for p in main_of(proto).params)
        assert isinstance(x, TensorType)
        assert isinstance(y, TensorType)
        assert x.dims[0] is y.dims[0] is Var("batch")
        assert len({x.dims[0], x.dims[2], y.dims[1]}) == 3

    def test_initializers_are_constants_and_no_parameters(self):
        proto = graph("m (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }")
        module = import_module(proto).module
        assert [p.name for p in module.graph("main").params] == ["x"]
        (constant,) = module.constants.values()
        assert constant.array.tolist() == [1, 2]

    def test_initializers_that_are_inputs_too_are_constants(self):
        proto = graph("m (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }")
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
        assert [p.name for p in main_of(proto).params] == ["x"]

    def test_a_binding_knows_the_node_that_it_comes_from(self):
        proto = graph("m (float[2] x) => (float[2] y) { y = Relu(x) }")
        proto.graph.node[0].name = "act1"
        (binding,) = main_of(proto).body
        assert binding.span is not None
        assert binding.span.text == "Relu node 'act1'"

    @pytest.mark.parametrize(
        "kind",
        [
            "FLOAT",
            "DOUBLE",
            "FLOAT16",
            "BFLOAT16",
            "INT8",
            "INT16",
            "INT32",
            "INT64",
            "UINT8",
            "UINT16",
            "UINT32",
            "UINT64",
            "BOOL",
        ],
    )
    @pytest.mark.parametrize("raw", [False, True])
    def test_initializers_of_every_element_type_are_read_from_every_field(
        self, kind: str, raw: bool
    ):
        code = getattr(TensorProto, kind)
        dtype = helper.tensor_dtype_to_np_dtype(code)
        values = np.array([[0, 1, 3], [1, 0, 1]]).astype(dtype)
        tensor = helper.make_tensor(
            "w", code, (2, 3), values.tobytes() if raw else values.ravel(), raw=raw
        )
        output = helper.make_tensor_value_info("y", code, (2, 3))
        node = helper.make_node("Identity", ["w"], ["y"])
        proto = helper.make_model(helper.make_graph([node], "m", [], [output], [tensor]))
        (found,) = run(import_module(proto).module, "main")
        assert found.dtype == dtype
        assert found.tolist() == values.tolist()


class TestShapes:
    def test_a_shape_computed_from_dimensions_stays_symbolic(self):
        proto = graph("""
            m (float[n, 3, 4] x) => (float[n, 12] y)
            <int64[1] rest = {-1}, int64 zero = {0}, int64[1] axis = {0}> {
                s = Shape(x)
                n = Gather(s, zero)
                first = Unsqueeze(n, axis)
                shape = Concat<axis = 0>(first, rest)
                y = Reshape(x, shape)
            }""")
        assert ops_of(main_of(proto)) == ["reshape"]
        for n in (1, 5):
            check(proto, floats(n, 3, 4))

    def test_arithmetic_on_dimensions_is_done_at_import(self):
        proto = graph("""
            m (float[n, 6] x) => (float[a, b] y)
            <int64[2] two = {1, 2}, int64[2] ends = {999999, 3}, int64[2] zero = {0, 0}> {
                s = Shape(x)
                half = Div(s, two)
                doubled = Mul(half, two)
                z = Expand(x, doubled)
                y = Slice(z, zero, ends)
            }""")
        check(proto, floats(4, 6))

    def test_a_dimension_may_be_used_as_a_number(self):
        proto = graph("""
            m (float[n] x) => (float[n] y) {
                s = Size(x)
                count = Cast<to = 1>(s)
                y = Div(x, count)
            }""")
        check(proto, floats(7))

    def test_zero_and_minus_one_of_a_reshape_copy_and_fill(self):
        proto = graph("""
            m (float[n, m, 6] x) => (float[n, m, 2, 3] y) <int64[4] shape = {0, 0, -1, 3}> {
                y = Reshape(x, shape)
            }""")
        check(proto, floats(2, 5, 6))

    def test_slices_of_symbolic_axes_count_as_python_does(self):
        proto = graph("""
            m (float[n] x) => (float[a] y, float[b] z, float[c] r)
            <int64[1] one = {1}, int64[1] last = {-1}, int64[1] far = {9}, int64[1] before = {-9}> {
                y = Slice(x, one, far)
                z = Slice(x, before, last)
                r = Slice(x, last, before, , last)
            }""")
        check(proto, floats(5))


class TestNeedsValue:
    RESHAPE = "m (float[2, 6] x, int64[2] shape) => (float[?, ?] y) { y = Reshape(x, shape) }"

    def test_names_the_inputs_that_a_shape_depends_on(self):
        with pytest.raises(NeedsValue) as caught:
            import_module(graph(self.RESHAPE))
        assert caught.value.inputs == ("shape",)
        assert caught.value.code == "E0603"
        assert caught.value.place is not None

    def test_with_a_value_the_import_specializes_and_drops_the_parameter(self):
        proto = graph(self.RESHAPE)
        shape = np.array([3, 4])
        assert [p.name for p in main_of(proto, shape=shape).params] == ["x"]
        check(proto, floats(2, 6), shape, shape=shape)

    def test_names_them_through_arithmetic(self):
        proto = graph("""
            m (float[2, 6] x, int64[1] a, int64[1] b) => (float[?, ?] y) {
                c = Mul(a, b)
                shape = Concat<axis = 0>(a, c)
                y = Reshape(x, shape)
            }""")
        with pytest.raises(NeedsValue) as caught:
            import_module(proto)
        assert caught.value.inputs == ("a", "b")

    def test_a_constant_for_no_input_is_refused(self):
        with pytest.raises(ModelImportError, match="E0608"):
            import_module(graph(self.RESHAPE), constants={"form": np.array([3, 4])})

    @pytest.mark.parametrize("array", [np.array([3, 4, 1]), np.array([3.0, 4.0]), np.array(3)])
    def test_a_constant_of_another_type_is_refused(self, array: np.ndarray):
        with pytest.raises(ModelImportError, match="E0608"):
            import_module(graph(self.RESHAPE), constants={"shape": array})

    def test_dimensions_of_a_constant_are_those_of_the_model(self):
        proto = graph("m (float[n] x, float[n] y) => (float[n] z) { z = Add(x, y) }")
        (x,) = main_of(proto, y=np.ones(5, np.float32)).params
        assert str(x.type) == "Tensor[(5,), f32]"


class TestFunctions:
    FUNCTION = """
        <ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        m (float[3] x) => (float[3] y) { y = local.scaled<factor = 2.5>(x) }
        <opset_import: ["" : 21], domain: "local">
        scaled <factor> (a) => (b) {
            f = Constant<value_float: float = @factor>()
            b = Mul(a, f)
        }"""

    def test_functions_of_the_model_are_expanded_with_their_attributes(self):
        check(model(self.FUNCTION), floats(3))

    def test_operators_that_onnx_defines_by_others_are_expanded(self):
        proto = graph(
            "m (float[3] a, float[3] b) => (float[3] y) { y = SwiGLU<alpha = 0.5>(a, b) }", opset=28
        )
        assert "sigmoid" in ops_of(main_of(proto))

    def test_attention_is_one_operation_where_it_says_the_same(self):
        text = """
            m (float[b, 4, s, 8] q, float[b, 2, t, 8] k, float[b, 2, t, 6] v, bool[s, t] mask)
            => (float[b, 4, s, 6] y) { y = Attention<is_causal = 1%s>(q, k, v, mask) }"""
        arrays = (floats(2, 4, 3, 8), floats(2, 2, 5, 8), floats(2, 2, 5, 6), np.ones((3, 5), bool))
        one, many = graph(text % "", 23), graph(text % ", softcap = 2.0", 23)
        assert ops_of(main_of(one)) == ["attention"]
        assert "attention" not in ops_of(main_of(many))
        check(one, *arrays)


class TestControlFlow:
    BRANCHES = """
        m (bool c, float[3] x) => (float[3] y) {
            w = Abs(x)
            y = If (c) <
                then_branch = g1 () => (float[3] t) { t = Add(x, w) },
                else_branch = g2 () => (float[3] e) { e = Neg(w) }
            >
        }"""

    def test_both_branches_are_functions_that_take_what_they_use(self):
        proto = graph(self.BRANCHES)
        (cond,) = [b for b in main_of(proto).body if isinstance(b.op, Cond)]
        assert len(cond.args) == 3
        for c in (True, False):
            check(proto, np.array(c), floats(3))

    def test_a_known_condition_chooses_the_branch_at_import(self):
        proto = graph(self.BRANCHES)
        function = main_of(proto, c=np.array(False))
        assert ops_of(function)[-1] == "neg"
        assert not any(isinstance(b.op, Cond) for b in function.body)

    LOOP = """
        m (int64 count, float[2] x) => (float[2] y) <bool go = {1}> {
            y = Loop (count, go, x) <
                body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) {
                    d = Identity(c)
                    half = Constant<value_float = 0.5>()
                    u = Mul(s, half)
                    t = Add(u, x)
                }
            >
        }"""

    def test_a_loop_of_a_count_that_is_computed_is_a_loop_of_the_program(self):
        proto = graph(self.LOOP)
        assert any(isinstance(b.op, WhileLoop) for b in main_of(proto).body)
        for count in (0, 1, 4):
            check(proto, np.array(count), floats(2))

    def test_a_loop_of_a_known_count_is_written_out(self):
        function = main_of(graph(self.LOOP), count=np.array(3))
        assert ops_of(function) == ["mul", "add"] * 3

    def test_a_loop_ends_when_its_body_says_so(self):
        proto = graph("""
            m (float[1] x) => (float[1] y) <bool go = {1}, float limit = {10}> {
                y = Loop (, go, x) <
                    body = b (int64 i, bool c, float[1] s) => (bool d, float[1] t) {
                        t = Add(s, s)
                        below = Less(t, limit)
                        d = Squeeze(below)
                    }
                >
            }""")
        check(proto, np.array([1.5], np.float32))

    @pytest.mark.parametrize("length", [3, 40, "n"])
    def test_a_scan_is_written_out_when_short_and_a_loop_when_long_or_symbolic(
        self, length: int | str
    ):
        proto = graph(f"""
            m (float[2] s, float[{length}, 2] xs) => (float[2] last, float[{length}, 2] sums) {{
                last, sums = Scan<
                    num_scan_inputs = 1,
                    body = b (float[2] a, float[2] x) => (float[2] c, float[2] d) {{
                    c = Add(a, x)
                    d = Identity(c)
                }}>(s, xs)
            }}""")
        loops = any(isinstance(b.op, WhileLoop) for b in main_of(proto).body)
        assert loops == (length != 3)
        check(proto, floats(2), floats(length if isinstance(length, int) else 6, 2))


class TestVersions:
    def test_softmax_before_opset_13_flattens_its_operand(self):
        text = "m (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax<axis = 1>(x) }"
        x = floats(2, 3, 4)
        for opset, axes in ((11, (1, 2)), (13, (1,))):
            exponentials = np.exp(x)
            expected = exponentials / exponentials.sum(axes, keepdims=True)
            (found,) = run(import_module(graph(text, opset)).module, "main", x)
            np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_axes_are_attributes_before_and_inputs_after(self):
        check(
            graph("m (float[2, 3] x) => (float[1, 2, 3] y) { y = Unsqueeze<axes = [0]>(x) }", 11),
            floats(2, 3),
        )
        text = "m (float[2, 3] x) => (float[1, 2, 3] y) <int64[1] a = {0}> { y = Unsqueeze(x, a) }"
        check(graph(text, 13), floats(2, 3))


class TestAssumptions:
    def test_dimensions_that_may_be_equal_are_checked_when_the_program_is_called(self):
        proto = graph("m (float[a, 2] x, float[b, 2] z) => (float[?, 2] y) { y = Add(x, z) }")
        assert len(main_of(proto).assumes) == 1
        check(proto, floats(3, 2), floats(3, 2))
        with pytest.raises(RuntimeFault, match="E0765"):
            run(import_module(proto).module, "main", floats(3, 2), floats(4, 2))

    def test_so_are_those_of_a_concatenation_but_at_its_axis(self):
        proto = graph("""
            m (float[2, n, k] x) => (float[2, ?, ?] y)
            <int64[1] two = {2}, int64[1] end = {99}, int64[1] axis = {1}, int64[1] zero = {0}> {
                half = Slice(x, zero, end, axis, two)
                twice = Concat<axis = 1>(half, half)
                y = Concat<axis = 2>(x, twice)
            }""")
        check(proto, floats(2, 4, 3))
        with pytest.raises(RuntimeFault, match="E0765"):
            run(import_module(proto).module, "main", floats(2, 5, 3))

    def test_a_dimension_of_one_stretches_without_an_assumption(self):
        proto = graph("m (float[a, 1] x, float[b] z) => (float[a, b] y) { y = Mul(x, z) }")
        assert ops_of(main_of(proto)) == ["mul"]
        check(proto, floats(3, 1), floats(4))


class TestNarrowWeights:
    """Weights of types that there are no tensors of, which only ``DequantizeLinear`` reads."""

    @staticmethod
    def _model(code: int, values: list[float], operator: str) -> onnx.ModelProto:
        helper = onnx.helper
        weight = helper.make_tensor("w", code, (len(values),), values)
        scale = helper.make_tensor("s", onnx.TensorProto.FLOAT, (), [0.5])
        nodes = [
            helper.make_node(
                operator, ["w", "s"] if operator == "DequantizeLinear" else ["w"], ["d"]
            ),
            helper.make_node("Add", ["x", "d"], ["y"]),
        ]
        x, y = (helper.make_tensor_value_info(n, 1, [len(values)]) for n in "xy")
        inner = helper.make_graph(nodes, "g", [x], [y], [weight, scale])
        return helper.make_model(inner, opset_imports=[helper.make_opsetid("", 23)])

    @pytest.mark.parametrize("name", ["INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT4E2M1"])
    def test_they_are_read(self, name: str):
        proto = self._model(getattr(onnx.TensorProto, name), [0, 1, 2, 4], "DequantizeLinear")
        (y,) = run(import_module(proto).module, "main", np.ones(4, np.float32))
        assert y.tolist() == [1, 1.5, 2, 3]

    def test_other_operators_see_how_many_bits_there_are(self):
        with pytest.raises(ModelImportError, match="E0604"):
            import_module(self._model(onnx.TensorProto.INT4, [0, 1], "Identity"))


class TestSequences:
    def test_a_sequence_that_is_given_is_taken_apart_and_put_together(self):
        proto = graph(
            "m (seq(float[2]) xs, float[2] x) => (seq(float[2]) ys) { ys = SequenceInsert(xs, x) }"
        )
        with pytest.raises(NeedsValue):
            import_module(proto)
        module = import_module(proto, constants={"xs": [np.zeros(2, np.float32)]}).module
        assert module.graph("main").output_names == ("ys.0", "ys.1")
        _, last = run(module, "main", np.ones(2, np.float32))
        assert last.tolist() == [1, 1]

    @pytest.mark.parametrize("value", [None, np.ones(2, np.float32)])
    def test_an_optional_value_is_there_or_not(self, value: np.ndarray | None):
        proto = graph("m (optional(float[2]) x) => (bool y) { y = OptionalHasElement(x) }")
        (y,) = run(import_module(proto, constants={"x": value}).module, "main")
        assert y == (value is not None)
