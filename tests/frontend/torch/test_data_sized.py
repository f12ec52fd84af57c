"""Operators of PyTorch whose results are as large as values say, compiled once for any values."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from benchmarks.common import torchvision_operators
from torch.export import Dim

from treadle.base.errors import RuntimeFault
from treadle.frontend.torch import import_module
from treadle.testing import compiled_here

N = Dim("n")
SIZES = (7, 13, 1, 0, 1031)
ROWS = (({0: N},),)
PAIRS = (({0: N}, {0: N}),)


def vectors() -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    drawn = [(torch.randint(-2, 3, (n,), generator=generator).float(),) for n in SIZES]
    return [*drawn, (torch.zeros(5),), (torch.ones(5),)]


def matrices(least: int = 0) -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 3, generator=generator).round(),) for n in SIZES if n >= least]


def with_masks() -> list[tuple[torch.Tensor, ...]]:
    return [(x, x > 0) for (x,) in vectors()]


def with_repeats() -> list[tuple[torch.Tensor, ...]]:
    return [(x, x.long() + 2) for (x,) in vectors()]


def with_numbers(*numbers: int) -> list[tuple[torch.Tensor, ...]]:
    return [(torch.arange(9.0), torch.tensor(k)) for k in numbers]


class Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *xs: torch.Tensor) -> Any:
        return self.function(*xs)


def compiled(
    function: Callable[..., Any], inputs: Sequence[torch.Tensor], shapes: Any
) -> Callable[..., Any]:
    imported = import_module(Function(function), tuple(inputs), shapes)
    return compiled_here(imported.module)


def head(x: torch.Tensor, k: torch.Tensor) -> tuple[Any, ...]:
    size = k.item()
    torch._check(size >= 0)
    torch._check(size <= x.shape[0])
    return x[:size] * 2, torch.ones(size, 3), size


def chosen(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    place = k.item()
    torch._check(place >= 0)
    torch._check(place < x.shape[0])
    return x[place]


def set_where(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[x[:, 0] > 0] += x[x[:, 0] > 0] * 3
    y[x[:, 0] < 0] = torch.arange(3.0)
    return y


def differences(x: torch.Tensor) -> torch.Tensor:
    y = x[x != 0]
    torch._check(y.shape[0] >= 1)
    return y[1:] - y[:-1]


def experts(x: torch.Tensor) -> torch.Tensor:
    """Each row goes through the products that it asks for, and these are added up."""
    weights = torch.arange(27.0).reshape(3, 3, 3) / 9
    scores, wanted = x.softmax(1).topk(2, 1)
    y = torch.zeros_like(x)
    for k in range(3):
        row, place = torch.where(wanted == k)
        y = y.index_add(0, row, (x[row] @ weights[k]) * scores[row, place, None])
    return y


CASES: dict[str, tuple[Callable[..., Any], Any, list[tuple[torch.Tensor, ...]]]] = {
    "nonzero": (torch.nonzero, ROWS, vectors()),
    "where": (lambda x: torch.where(x > 0), ROWS, matrices()),
    "argwhere": (torch.argwhere, ROWS, matrices()),
    "mask": (lambda x, m: x[m] * 2, PAIRS, with_masks()),
    "mask of all axes": (lambda x: x[x > 0] + 1, ROWS, matrices()),
    "mask and index": (lambda x: x[x[:, 0] > 0, 1], ROWS, matrices()),
    "mask then product": (lambda x: torch.relu(x[x[:, 0] > 0] @ x.T), ROWS, matrices()),
    "mask then softmax": (lambda x: torch.softmax(x[x > 0], 0), ROWS, vectors()),
    "mask beside its source": (lambda x: torch.cat([x[x > 0], x]), ROWS, vectors()),
    "two masks": (lambda x: x[x != 0][:, None] * x[x > 0], ROWS, vectors()),
    "masked_select": (lambda x: torch.masked_select(x, x[:, :1] > 0), ROWS, matrices()),
    "put one": (lambda x: torch.index_put(x, (x > 1,), torch.tensor(7.0)), ROWS, vectors()),
    "put many": (set_where, ROWS, matrices()),
    "bincount": (lambda x: torch.bincount((x + 2).long(), minlength=2), ROWS, vectors()),
    "bincount of weights": (
        lambda x: torch.bincount((x + 2).long(), weights=x),
        ROWS,
        [v for v in vectors() if len(v[0])],
    ),
    "masked_scatter": (lambda x: torch.masked_scatter(x, x > 0, -x), ROWS, vectors()),
    "one mask of two": (lambda x, m: (x[m], (x * 2)[m]), PAIRS, with_masks()),
    "experts": (experts, ROWS, matrices()),
    "slices": (differences, ROWS, [v for v in vectors() if v[0].any()]),
    "unique": (
        lambda x: torch.unique(x, return_inverse=True, return_counts=True),
        ROWS,
        vectors(),
    ),
    "unique of few": (lambda x: torch.unique(x[x > 0]), ROWS, vectors()),
    "unique rows": (
        lambda x: torch.unique(x, dim=0, return_inverse=True, return_counts=True),
        ROWS,
        matrices(1),
    ),
    "unique columns": (lambda x: torch.unique(x, dim=1), ROWS, matrices(1)),
    "unique nan": (lambda x: torch.unique(x / x, return_counts=True), ROWS, vectors()),
    "unique_consecutive": (
        lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True),
        ROWS,
        vectors(),
    ),
    "repeat_interleave": (
        lambda x, r: torch.repeat_interleave(x, r, dim=0),
        PAIRS,
        with_repeats(),
    ),
    "item as a size": (head, (({0: N}, None),), with_numbers(3, 0, 9)),
    "item as a place": (chosen, (({0: N}, None),), with_numbers(3, 0, 8)),
    "item of integers": (lambda x: x * x.long().sum().item(), ROWS, vectors()),
    "item of floats": (lambda x: x * x.sum().item(), ROWS, vectors()),
    "branch": (
        lambda x: torch.cond(x.sum() > 0, torch.neg, torch.exp, (x[x != 0],)),
        ROWS,
        vectors(),
    ),
    "size as a result": (lambda x: (x[x > 0], x[x > 0].shape[0]), ROWS, vectors()),
}


@pytest.mark.parametrize("name", CASES)
def test_one_compilation_agrees_with_eager_for_any_values(name):
    function, shapes, cases = CASES[name]
    program = compiled(function, cases[0], shapes)
    for inputs in cases:
        wanted, found = function(*inputs), program(*inputs)
        wanted = wanted if isinstance(wanted, tuple | list) else (wanted,)
        found = found if isinstance(found, tuple) else (found,)
        for a, b in zip(found, map(torch.as_tensor, wanted), strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, equal_nan=True)


def test_what_the_model_asserts_of_a_size_is_tested():
    def few(x: torch.Tensor) -> torch.Tensor:
        y = x[x > 0]
        torch._check(y.shape[0] <= 3)
        return y

    program = compiled(few, (torch.ones(2),), ROWS)
    assert program(torch.ones(3)).tolist() == [1, 1, 1]
    with pytest.raises(RuntimeFault, match="E0707"):
        program(torch.ones(4))


def test_a_slice_up_to_an_item_ends_with_the_tensor():
    def begin(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        size = k.item()
        torch._check(size >= 0)
        return x[:size]

    x = torch.arange(4.0)
    program = compiled(begin, (x, torch.tensor(2)), (({0: N}, None),))
    assert [len(program(x, torch.tensor(k))) for k in (0, 3, 4, 9)] == [0, 3, 4, 4]
    with pytest.raises(RuntimeFault, match="E0707"):
        program(x, torch.tensor(-1))


def test_a_negative_number_of_repetitions_is_told():
    program = compiled(
        lambda x, r: torch.repeat_interleave(x, r, dim=0),
        (torch.ones(2), torch.tensor([1, 2])),
        PAIRS,
    )
    with pytest.raises(RuntimeFault, match="negative"):
        program(torch.ones(3), torch.tensor([2, -1, 2]))


# ---- Non-maximum suppression, by an operator torchvision's


def suppressed(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    kept: list[int] = []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        low = torch.maximum(boxes[i, :2], boxes[kept, :2])
        high = torch.minimum(boxes[i, 2:], boxes[kept, 2:])
        shared = (high - low).clamp(min=0).prod(-1)
        if not (shared / (area[i] + area[kept] - shared) > iou_threshold).any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


torchvision_operators.LIBRARY.impl("nms", suppressed, "CPU")


@pytest.mark.filterwarnings("ignore:.create_unbacked_symint:FutureWarning")  # of torchvision
def test_boxes_that_better_ones_overlap_are_left_out():
    def best(boxes: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept = torch.ops.torchvision.nms(boxes, scores, 0.4)
        return kept, boxes[kept]

    def case(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(n)
        low = torch.rand(n, 2, generator=generator)
        size = torch.rand(n, 2, generator=generator) + 0.1
        return torch.cat([low, low + size], 1), torch.rand(n, generator=generator)

    program = compiled(best, case(7), (({0: N}, {0: N}),))
    for n in (7, 2, 97):
        boxes, scores = case(n)
        kept, rows = program(boxes, scores)
        assert kept.tolist() == suppressed(boxes, scores, 0.4).tolist()
        torch.testing.assert_close(rows, boxes[kept])
    with pytest.raises(RuntimeFault, match="kept >= 2"):  # what PyTorch's own trace holds for
        program(*case(1))
