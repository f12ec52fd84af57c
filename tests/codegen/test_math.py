"""The vector math functions against references of higher precision, on every instruction set of
this machine.
"""

import ctypes
import functools
import math
import re

import llvmlite.binding as llvm
import mpmath
import numpy as np
import pytest

from treadle.codegen.llvm.math import MATH_FUNCTIONS, arity, link_math, math_function
from treadle.expr.functions import FUNCTIONS

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

DTYPES = {32: np.float32, 64: np.float64}
HOST = llvm.get_host_cpu_features()
HOST_FEATURES = frozenset(name for name, present in HOST.items() if present)
NAMES = tuple(MATH_FUNCTIONS)
REQUIRED_FEATURE = {"x86-64": "sse2", "x86-64-v2": "sse4.2", "x86-64-v3": "fma"}
CPUS = ("native", *(cpu for cpu, feature in REQUIRED_FEATURE.items() if HOST.get(feature, False)))
MACHINES = [(cpu, lanes) for cpu in CPUS for lanes in (1, 4, 8, 16)]


def module_text(names, bits, lanes, features=frozenset()):
    """Return a module with one loop over arrays for each function of ``names``."""
    kind = {32: "float", 64: "double"}[bits]
    vector = kind if lanes == 1 else f"<{lanes} x {kind}>"
    lines = [link_math(*((name, bits, lanes) for name in names), features=features)]
    for name in names:
        inputs = "xy"[: arity(name)]
        symbol = math_function(name, bits, lanes).symbol
        pointers = ", ".join(f"ptr noalias %{c}" for c in "z" + inputs)
        lines += [f"define void @run.{name}({pointers}, i64 %n) {{"]
        lines += [
            "entry:",
            "  br label %loop",
            "loop:",
            "  %i = phi i64 [0, %entry], [%next, %loop]",
        ]
        for c in inputs:
            lines += [f"  %{c}.at = getelementptr {kind}, ptr %{c}, i64 %i"]
            lines += [f"  %{c}.value = load {vector}, ptr %{c}.at, align {bits // 8}"]
        arguments = ", ".join(f"{vector} %{c}.value" for c in inputs)
        lines += [
            f"  %result = call {vector} {symbol}({arguments})",
            f"  %z.at = getelementptr {kind}, ptr %z, i64 %i",
        ]
        lines += [
            f"  store {vector} %result, ptr %z.at, align {bits // 8}",
            f"  %next = add i64 %i, {lanes}",
        ]
        lines += ["  %more = icmp ult i64 %next, %n", "  br i1 %more, label %loop, label %done"]
        lines += ["done:", "  ret void", "}"]
    return "\n".join(lines)


def machine(cpu):
    if cpu == "native":
        name, features = llvm.get_host_cpu_name(), HOST.flatten()
    else:
        name, features = cpu, ""
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=name, features=features, opt=2)


def inlined(text, tm):
    """Return ``text`` parsed, with every always-inline function inlined."""
    module = llvm.parse_assembly(text)
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.run(module, llvm.create_pass_builder(tm, llvm.create_pipeline_tuning_options()))
    return module


@functools.cache
def compiled(bits, lanes, cpu, names=NAMES, features=HOST_FEATURES):
    """Return a dictionary of callables, name -> f(*arrays), compiled for ``cpu``; ``features``
    count for the native one.
    """
    tm = machine(cpu)
    used = features if cpu == "native" else frozenset()
    image = tm.emit_object(inlined(module_text(names, bits, lanes, used), tm))
    jit = llvm.create_lljit_compiler(machine(cpu))
    builder = llvm.JITLibraryBuilder().add_object_img(image)
    for name in names:
        builder.export_symbol(f"run.{name}")
    library = builder.link(jit, f"math.{bits}.{lanes}.{cpu}")

    def bind(name):
        pointers = [ctypes.c_void_p] * (1 + arity(name))
        native = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64)(library[f"run.{name}"])

        def run(*arrays):
            length = -(-arrays[0].size // lanes) * lanes
            padded = [np.resize(a, length) for a in arrays]
            result = np.empty_like(padded[0])
            native(result.ctypes.data, *(p.ctypes.data for p in padded), length)
            return result[: arrays[0].size]

        run.library = library
        return run

    return {name: bind(name) for name in names}


def sigmoid(x):
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


ERFC = np.vectorize(math.erfc, otypes=[np.float64])
WIDE = {
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "pow": np.power,
    "sigmoid": sigmoid,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "erfc": ERFC,
    "gelu_erf": FUNCTIONS["gelu_erf"].evaluate,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "erfinv": FUNCTIONS["erfinv"].evaluate,
    "lgamma": FUNCTIONS["lgamma"].evaluate,
}
MP = {
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "log2": lambda x: mpmath.log(x, 2),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "gelu_erf": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "pow": mpmath.power,
    "lgamma": lambda x: mpmath.re(mpmath.loggamma(x)),
}
# Errors in units in the last place where they are allowed to exceed four.
# CPUs without fused multiply-add round the square in the exponent.
BOUND = {
    (32, "gelu_erf", "x86-64"): 90,
    (32, "gelu_erf", "x86-64-v2"): 90,
    (32, "erf"): 6,
    (32, "erfc"): 6,
    (64, "erfc"): 6,
    (32, "gelu_erf"): 7,
    (64, "gelu_erf"): 6,
    (64, "lgamma"): 6,
}


def bound(bits, name, cpu):
    return BOUND.get((bits, name, cpu), BOUND.get((bits, name), 4))


SPECIAL = (
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    -3.0,
    1e30,
    -1e30,
)


def reference(name, *arrays):
    """Return the function of ``arrays`` in double precision."""
    with np.errstate(all="ignore"):
        return WIDE.get(name, getattr(np, name, None))(*(a.astype(np.float64) for a in arrays))


def arguments(name, bits, count, seed):
    """Return arguments of every magnitude, ``count`` of all bit patterns and ``count`` of
    moderate size.
    """
    random = np.random.default_rng(seed)
    dtype = DTYPES[bits]
    info = np.finfo(dtype)
    edges = [
        info.tiny,
        -info.tiny,
        info.smallest_subnormal,
        -info.smallest_subnormal,
        info.max,
        info.min,
    ]
    special = np.array([*SPECIAL, *edges], dtype)
    arrays = []
    for i in range(arity(name)):
        patterns = random.integers(0, 2**bits, count, np.uint64).astype(f"u{bits // 8}").view(dtype)
        moderate = random.uniform(-1, 1, count) * np.exp2(random.uniform(-8, 8, count))
        near_one = random.uniform(-1.5, 1.5, count)
        # Every special value of one argument meets every special value of the other.
        edge = np.repeat(special, special.size) if i else np.tile(special, special.size)
        arrays.append(
            np.concatenate([patterns, moderate.astype(dtype), near_one.astype(dtype), edge])
        )
    return arrays


def units_in_last_place(got, exact, dtype):
    """Return the error of finite ``got`` in units in the last place of ``exact``."""
    info = np.finfo(dtype)
    exponent = np.frexp(np.where(exact == 0, 1e-300, exact))[1] - 1
    unit = np.exp2(np.maximum(exponent, info.minexp) - info.nmant)
    return np.abs(got.astype(np.float64) - exact) / unit


def agree(a, b):
    """Return where two arrays are the same, signs of zeros and NaN included."""
    return (np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("cpu", "lanes"), MACHINES)
def test_single_is_within_its_bound_of_the_wide_function(name, cpu, lanes):
    inputs = arguments(name, 32, 3000, seed=1)
    got = compiled(32, lanes, cpu)[name](*inputs)
    exact = reference(name, *inputs)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    finite = np.isfinite(got) & np.isfinite(rounded)
    assert agree(got, rounded)[~finite].all()
    assert (
        units_in_last_place(got[finite], exact[finite], np.float32) <= bound(32, name, cpu)
    ).all()
    zero = (got == 0) & (rounded == 0)
    assert (np.signbit(got[zero]) == np.signbit(rounded[zero])).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("cpu", "lanes"), [("native", 1), ("native", 8), *((cpu, 4) for cpu in CPUS[1:])]
)
def test_double_agrees_with_numpy_at_special_values(name, cpu, lanes):
    inputs = arguments(name, 64, 500, seed=2)
    got = compiled(64, lanes, cpu)[name](*inputs)
    exact = reference(name, *inputs)
    finite = np.isfinite(got) & np.isfinite(exact)
    assert agree(got, exact)[~finite].all()
    zero = (got == 0) & (exact == 0)
    assert (np.signbit(got[zero]) == np.signbit(exact[zero])).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cpu", CPUS)
def test_double_is_within_its_bound_of_many_digits(name, cpu):
    inputs = [a[:120] for a in arguments(name, 64, 40, seed=3)]
    if name in {"erf", "erfc", "gelu_erf"}:
        inputs = [np.clip(a, -50, 50) for a in inputs]  # mpmath cannot take larger ones
    got = compiled(64, 4, cpu)[name](*inputs)
    function = MP.get(name, getattr(mpmath, name, None))
    finite = np.flatnonzero(np.isfinite(got) & np.isfinite(reference(name, *inputs)))
    with mpmath.workdps(360 if name in {"sin", "cos", "tan"} else 40):
        for k in finite:
            exact = function(*(mpmath.mpf(float(a[k])) for a in inputs))
            # Between its poles lgamma has zeros that only the absolute error respects.
            low = 0 if name == "lgamma" and inputs[0][k] < 0 else -1022
            exponent = max(mpmath.frexp(exact)[1] - 1, low)
            error = abs(mpmath.mpf(float(got[k])) - exact) / mpmath.mpf(2) ** (exponent - 52)
            assert error <= bound(64, name, cpu), [a[k] for a in inputs]


@pytest.mark.parametrize("bits", [32, 64])
def test_angles_closest_to_multiples_of_half_pi_keep_their_digits(bits):
    # The worst cases of argument reduction: 16367173 * 2^72 and 6381956970095103 * 2^797.
    worst = {32: 16367173.0 * 2.0**72, 64: 6381956970095103.0 * 2.0**797}[bits]
    x = np.full(16, worst, DTYPES[bits])
    got = compiled(bits, 4, "native")
    with mpmath.workdps(400):
        for name in ("sin", "cos"):
            exact = float(getattr(mpmath, name)(mpmath.mpf(worst)))
            assert units_in_last_place(got[name](x), np.full(16, exact), DTYPES[bits]).max() <= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [32, 64])
def test_every_number_of_lanes_gives_the_same_bits(name, bits):
    inputs = arguments(name, bits, 200, seed=4)
    scalar = compiled(bits, 1, "native")[name](*inputs)
    assert agree(compiled(bits, 8, "native")[name](*inputs), scalar).all()


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 8, 16, 64])
@pytest.mark.parametrize("bits", [32, 64])
def test_the_features_of_the_cpu_do_not_change_the_bits(bits, lanes):
    for name in ("exp", "exp2", "gelu_erf", "erfc"):
        inputs = arguments(name, bits, 500, seed=5)
        plain = compiled(bits, lanes, "native", (name,), frozenset())[name](*inputs)
        assert agree(compiled(bits, lanes, "native", (name,))[name](*inputs), plain).all()


@pytest.mark.parametrize(("lanes", "count"), [(1, 1), (4, 1), (8, 1), (16, 1), (64, 4)])
def test_a_cpu_with_avx512_scales_in_one_instruction_for_each_register(lanes, count):
    triple, cpu, features = "x86_64-linux-gnu", "x86-64-v4", frozenset({"avx512f", "avx512vl"})
    tm = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features="", opt=2)
    module = inlined(module_text(("exp",), 32, lanes, features), tm)
    module.triple = triple
    assert len(re.findall(r"\svscalef[ps]s\s", tm.emit_assembly(module))) == count


@pytest.mark.parametrize("name", ["tanh", "erf"])
@pytest.mark.parametrize("bits", [32, 64])
def test_bounded_functions_stay_in_their_bounds(name, bits):
    x = np.linspace(-40, 40, 40001).astype(DTYPES[bits])
    got = compiled(bits, 8, "native")[name](x)
    assert np.abs(got).max() == 1
    assert agree(got, -compiled(bits, 8, "native")[name](-x)).all()


TARGETS = [
    ("aarch64-linux-gnu", "generic"),
    *(("x86_64-linux-gnu", f"x86-64{v}") for v in ("", "-v2", "-v3", "-v4")),
]


@pytest.mark.parametrize(("triple", "cpu"), TARGETS)
@pytest.mark.parametrize(("bits", "lanes"), [(32, 1), (32, 8), (64, 4)])
def test_code_calls_nothing_but_the_reduction_of_large_angles(triple, cpu, bits, lanes):
    tm = llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, opt=2, codemodel="small", reloc="pic"
    )
    module = inlined(module_text(NAMES, bits, lanes), tm)
    module.triple = triple
    calls = re.findall(
        r"^\s+(?:bl|blr|call|callq|jmp|b)\s+([^.\s]\S*)", tm.emit_assembly(module), re.MULTILINE
    )
    assert {re.sub(r"v\d+f64|f64", "", c.strip('"')) for c in calls if "LBB" not in c} == {
        "treadle.reduce_angle."
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_always_inliner_leaves_no_call(name):
    text = str(inlined(module_text((name,), 32, 16), machine("native")))
    assert f'@"treadle.{name}.v16f32"' not in text
    assert f"@treadle.{name}.v16f32" not in text


def test_linking_writes_shared_definitions_once():
    text = link_math(("sin", 32, 8), ("cos", 32, 8), ("sin", 64, 8), ("exp", 32, 8))
    defined = re.findall(r"^define [^@]*(@\S+?)\(", text, re.MULTILINE)
    assert len(defined) == len(set(defined)) == 6
    assert text.count("@treadle.two_over_pi = ") == 1


@pytest.mark.parametrize(("name", "bits"), [("softmax", 32), ("exp", 16)])
def test_unknown_functions_and_widths_are_refused(name, bits):
    with pytest.raises(KeyError):
        math_function(name, bits, 4)
