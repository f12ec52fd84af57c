"""What ``import_module`` makes of names, sizes, constants, control flow and mistakes."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

from treadle.base.errors import ModelImportError, RuntimeFault
from treadle.frontend.torch import import_module
from treadle.ir.calls import CallLibrary, Cond, WhileLoop
from treadle.ir.interpret import run
from treadle.ir.parser import parse
from treadle.ops import OPS_BY_NAME

N = Dim("n", min=1, max=64)
M = Dim("m", min=2, max=64)
ROWS = ({0: N},)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.full((6,), 0.5, dtype=torch.bfloat16))

    def forward(self, tokens, offset=None):
        x = self.embedding(tokens) * self.scale
        return {"logits": self.head(x), "state": x, "nothing": None}


TOKENS = torch.tensor([[1, 2, 3], [4, 5, 0]])


def test_parameters_become_constants_that_share_memory_and_ties():
    model = Tied().eval()
    imported = import_module(model, (TOKENS,))
    constants = imported.module.constants
    assert set(constants) == {"head_weight", "scale"}
    assert np.shares_memory(constants["head_weight"].array, model.head.weight.detach().numpy())
    assert str(constants["scale"].type) == "Tensor[(6,), bf16]"
    logits, state = run(imported.module, "main", TOKENS.numpy())
    wanted = model(TOKENS)
    torch.testing.assert_close(torch.from_numpy(logits), wanted["logits"])
    torch.testing.assert_close(torch.from_numpy(state), wanted["state"])


def test_inputs_keep_their_names_and_dimensions_the_names_of_dims():
    imported = import_module(Tied(), (TOKENS,), {"tokens": {0: Dim("batch", min=1), 1: Dim("seq")}})
    (param,) = imported.module.graph("main").params
    assert param.name == "tokens"
    assert str(param.type) == "Tensor[(batch, seq), i64]"


def test_keyword_arguments_are_inputs():
    imported = import_module(Tied(), {"tokens": TOKENS})
    assert [p.name for p in imported.module.graph("main").params] == ["tokens"]


def test_results_of_a_dictionary_are_called_by_their_keys():
    class Keyed(nn.Module):
        def forward(self, x):
            return {"logits": x + 1, "states": (x * 2, [x.sum()])}

    main = import_module(Keyed(), (torch.ones(3),)).module.graph("main")
    assert main.output_names == ("logits", "states.0", "states.1.0")


def test_an_exported_program_is_taken_as_it_is():
    program = torch.export.export(Tied().eval(), (TOKENS,), dynamic_shapes=({0: N},))
    imported = import_module(program)
    assert str(imported.module.graph("main").params[0].type) == "Tensor[(s0, 3), i64]"


def test_ranges_of_dims_are_facts():
    imported = import_module(nn.ReLU(), (torch.randn(4, 3),), ROWS)
    assert {str(a) for a in imported.module.graph("main").assumes} == {"n >= 1", "n <= 64"}


def test_training_mode_is_restored_and_does_not_count():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[1].eval()
    x = torch.randn(4, 3)
    imported = import_module(model, (x,))
    assert model.training
    assert model[0].training
    assert not model[1].training
    (y,) = run(imported.module, "main", x.numpy())
    torch.testing.assert_close(torch.from_numpy(y), model.eval()(x))


def test_the_text_of_a_module_comes_back():
    imported = import_module(Tied(), (TOKENS,), {"tokens": {0: N, 1: M}})
    text = str(imported.module)
    arrays = {name: c.array for name, c in imported.module.constants.items()}
    assert str(parse(text, OPS_BY_NAME, arrays)) == text


def test_bindings_know_their_line():
    class Shifted(nn.Module):
        def forward(self, x):
            return x + 1

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.shifted = Shifted()

        def forward(self, x):
            return self.shifted(x).exp()

    imported = import_module(Model(), (torch.randn(2),))
    first, second = imported.module.graph("main").body
    assert first.span.source.endswith("test_import.py")
    assert first.span.text == "return x + 1"
    assert second.span.text == "return self.shifted(x).exp()"
    assert (first.outputs[0].name, second.outputs[0].name) == ("add", "exp")


SIZES = {
    "view": lambda x: x.view(x.shape[0] * 2, -1),
    "view_product": lambda x: x.reshape(-1),
    "slice_to_end": lambda x: x[1:],
    "slice_from_end": lambda x: x[-1:],
    "halves": lambda x: x[: x.shape[0] // 2],
    "slice_by_size": lambda x: x[x.shape[0] // 2 :],
    "slice_by_size_from_end": lambda x: x[-(x.shape[0] // 2) :],
    "slice_between_sizes": lambda x: x[-(x.shape[0] // 2) : x.shape[0] - 1],
    "write_first": lambda x: torch.slice_scatter(x, x[:1] * 2, 0, 0, 1),
    "drop_last": lambda x: x[:-1],
    "slice_step": lambda x: x[::2],
    "split_columns": lambda x: x.split(2, 1),
    "arange": lambda x: x + torch.arange(x.shape[0])[:, None],
    "arange_offset": lambda x: torch.arange(2, x.shape[0] + 2),
    "arange_down": lambda x: torch.arange(x.shape[0] - 1, -1, -1),
    "scale_by_root": lambda x: x / x.shape[0] ** 0.5,
    "mean_by_hand": lambda x: x.sum(0) / x.shape[0],
    "full": lambda x: torch.full((x.shape[0], 2), 3.0),
    "full_of_size": lambda x: torch.full((2,), x.shape[0]),
    "causal": lambda x: torch.ones(x.shape[0], x.shape[0]).tril(),
    "expand": lambda x: x[:, None].expand(-1, x.shape[0], -1),
    "pad": lambda x: F.pad(x, (0, 0, 1, 2)),
    "cat": lambda x: torch.cat((x, x[:1])),
    "repeat": lambda x: x.repeat(2, 1),
    "roll": lambda x: x.roll(1, 0),
    "matmul": lambda x: x @ x.t(),
    "pool": lambda x: F.max_pool2d(x[None, None], 3, 2, 1),
    "conv": lambda x: F.conv1d(x.t()[None], torch.ones(2, 4, 3), stride=2, padding=1),
    "upsample": lambda x: F.interpolate(x.t()[None], scale_factor=2),
    "softmax": lambda x: x.softmax(0),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    "last": lambda x: x[-1],
    "size": lambda x: (x.shape[0] * 2, x),
    "one_more": lambda x: x.new_zeros(x.shape[0] + 1),
    "eye": lambda x: torch.eye(x.shape[0]),
    "gather": lambda x: x.gather(0, x.argsort(0)),
    "larger_of_sizes": lambda x: x.new_ones(max(x.shape[0], 5)),
}


def test_sizes_stay_symbolic(agrees):
    def together(x):
        return [f(x) for f in SIZES.values()]

    imported = agrees(
        together,
        torch.randn(6, 4),
        dynamic_shapes=({0: Dim("n", min=6, max=64)},),
        others=(torch.randn(9, 4),),
        names=list(SIZES),
    )
    assert str(imported.module.graph("main").params[0].type) == "Tensor[(n, 4), f32]"


def test_what_must_hold_of_sizes_is_a_fact(agrees):
    def thirds(x):
        torch._check(x.shape[0] % 3 == 0)
        return x.view(3, -1)

    dims = ({0: Dim("n", min=3, max=99)},)
    imported = agrees(thirds, torch.randn(6, 4), dynamic_shapes=dims, others=(torch.randn(12, 4),))
    assert "n % 3 == 0" in {str(a) for a in imported.module.graph("main").assumes}
    with pytest.raises(RuntimeFault, match="n % 3 == 0"):
        run(imported.module, "main", np.zeros((7, 4), np.float32))


def test_derived_dims_relate_inputs(agrees):
    imported = agrees(
        lambda x, y: x.repeat(2, 1) + y,
        *(torch.randn(3, 2), torch.randn(6, 2)),
        dynamic_shapes=({0: N}, {0: 2 * N}),
        others=(torch.randn(5, 2), torch.randn(10, 2)),
    )
    assert [str(p.type) for p in imported.module.graph("main").params] == [
        "Tensor[(n, 2), f32]",
        "Tensor[(n * 2, 2), f32]",
    ]


def test_cond_becomes_two_functions(agrees):
    def branching(x):
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x * 2, (x,))

    imported = agrees(
        branching, torch.ones(3, 2), dynamic_shapes=({0: N},), others=(-torch.ones(5, 2),)
    )
    assert any(isinstance(b.op, Cond) for b in imported.module.graph("main").body)


def test_while_loop_becomes_two_functions(agrees):
    def doubling(x):
        return torch.while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (torch.tensor(0), x)
        )

    imported = agrees(doubling, torch.ones(3, 2))
    assert any(isinstance(b.op, WhileLoop) for b in imported.module.graph("main").body)


def test_gradient_modes_are_inlined(agrees):
    def guarded(x):
        with torch.no_grad():
            y = x * 2
        with torch.autocast("cpu", enabled=False):
            return y + 1

    agrees(guarded, torch.randn(3))


class Strange(nn.Module):
    def forward(self, x):
        y = torch.special.bessel_j0(x)
        return y + torch.special.i1(x.relu())


def test_one_error_lists_every_operator_without_translation():
    with pytest.raises(ModelImportError) as caught:
        import_module(Strange(), (torch.randn(3),))
    error = caught.value
    assert error.code == "E0601"
    assert "aten.special_bessel_j0.default, aten.special_i1.default" in error.message
    assert error.place.endswith("(y = torch.special.bessel_j0(x))")
    assert len(error.notes) == 2
    assert "node 'special_i1'" in error.notes[1]


def test_fallback_runs_operators_by_pytorch():
    x = torch.randn(4, 3)
    imported = import_module(Strange(), (x,), ROWS, fallback="torch")
    calls = [b.op for b in imported.module.graph("main").body if isinstance(b.op, CallLibrary)]
    assert [c.function for c in calls] == list(imported.libraries)
    assert calls[0].function == "torch.aten.special_bessel_j0.default.0"
    other = torch.randn(7, 3)
    for value in (x, other):
        (y,) = run(imported.module, "main", value.numpy(), libraries=imported.libraries)
        torch.testing.assert_close(torch.from_numpy(y), Strange()(value))


@torch.library.custom_op("treadle_tests::positives", mutates_args=())
def positives(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0]


@positives.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(torch.library.get_ctx().new_dynamic_size())


@pytest.mark.parametrize(
    "function", [positives, lambda x: torch.ones(int(x.sum().item()))], ids=["custom", "float"]
)
@pytest.mark.parametrize("fallback", [None, "torch"])
def test_sizes_that_operators_without_a_translation_give_are_refused(function, fallback):
    class Model(nn.Module):
        def forward(self, x):
            return function(x)

    with pytest.raises(ModelImportError, match=r"E06(01|16)"):
        import_module(Model(), (torch.ones(3),), fallback=fallback)


def test_random_numbers_without_a_seed_are_refused():
    class Model(nn.Module):
        def forward(self, x):
            return x + torch.rand(3)

    with pytest.raises(ModelImportError, match=r"aten\.rand\.default"):
        import_module(Model(), (torch.ones(3),))


def test_a_write_to_an_argument_is_refused():
    class Model(nn.Module):
        def forward(self, image):
            image.add_(1)
            return image * 2

    with pytest.raises(ModelImportError, match="E0617: forward writes to its argument 'image'"):
        import_module(Model(), (torch.ones(3),))


def test_a_write_to_a_buffer_is_dropped_with_a_warning(caplog):
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls.add_(1)
            return x + self.calls

    model = Counter()
    with caplog.at_level(logging.WARNING, logger="treadle"):
        imported = import_module(model, (torch.ones(3),))
    assert "buffer 'calls' is dropped" in caplog.text
    for _ in range(2):
        (y,) = run(imported.module, "main", np.ones(3, np.float32))
        assert y.tolist() == [2.0, 2.0, 2.0]


def test_complex_numbers_are_refused():
    class Model(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).abs()

    with pytest.raises(ModelImportError, match=r"aten\._fft_r2c"):
        import_module(Model(), (torch.ones(4),))


def test_a_module_without_inputs_to_trace_it_with_is_refused():
    with pytest.raises(ModelImportError, match="E0618: example inputs"):
        import_module(nn.ReLU())


def test_an_unknown_fallback_is_refused():
    with pytest.raises(ModelImportError, match="E0618: no fallback"):
        import_module(nn.ReLU(), (torch.ones(2),), fallback="onnx")


def test_a_model_that_cannot_be_captured_says_why():
    class Model(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(ModelImportError, match=r"E0616: torch\.export cannot capture the model"):
        import_module(Model(), (torch.ones(3),))
