import json

import pytest
from benchmarks import works
from benchmarks.backends import MODULES
from benchmarks.harness.cli import backends_of, main, select

KERNELS = [name for name in works.FAMILIES if name not in ("models", "compile")]


def names(*only, families=("gemm", "conv")):
    return [work.name for work in select(families, only)]


def test_a_whole_name_selects_one_row():
    assert names("GEMM 16x4096x768") == ["GEMM 16x4096x768"]
    assert names("gemm 1×4096×768") == ["GEMM 1x4096x768"]


def test_a_part_of_a_name_selects_all_that_have_it():
    assert names("GEMM 512") == ["GEMM 512x512x512"]
    assert len(names("GEMM 1x", "stem")) == 5
    assert len(names("56x56 64→64")) == 2
    assert names("no such row") == []


def test_no_name_selects_families():
    assert select(("rows", "low"), ()) == [*works.family("rows"), *works.family("low")]


@pytest.mark.parametrize("family", KERNELS)
def test_the_names_of_a_family_differ(family):
    found = [work.name for work in works.family(family)]
    assert len(set(found)) == len(found)
    assert {work.family for work in works.family(family)} == {family}


def test_the_suite_has_thirteen_families_of_four():
    kinds = [work.name.split()[0] for work in works.family("suite")]
    assert len(set(kinds)) == 13
    assert all(kinds.count(kind) == 4 for kind in kinds)


def test_backends_come_as_a_list_or_all():
    assert backends_of("treadle,torch") == ("treadle", "torch")
    assert backends_of("all") == tuple(MODULES)
    with pytest.raises(SystemExit, match="no backend tvm"):
        backends_of("treadle,tvm")


def test_what_is_not_there_is_said():
    with pytest.raises(SystemExit, match="no family cnn; there are gemm, conv"):
        main(["cnn"])
    with pytest.raises(SystemExit, match="no row has nothing like it in its name"):
        main(["gemm", "--only", "nothing like it"])


@pytest.mark.slow
def test_a_row_is_measured_from_end_to_end(tmp_path):
    path = tmp_path / "found.json"
    arguments = ["--only", "NRM 256x256", "--backends", "treadle,torch,numpy"]
    assert main([*arguments, "--seconds", "0.1", "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())
    assert row["name"] == "NRM 256x256"
    assert set(row["backends"]) == {"treadle", "torch", "numpy"}
    for found in row["backends"].values():
        assert 0 < found["minimum"] <= found["median"]
        assert not found["wrong"]
    assert row["peak_gflops"] > 0
    assert row["speedup_median"] > 0
