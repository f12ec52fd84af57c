"""Targets: what they know and how they are named."""

import pytest

from treadle.base.errors import OptionError
from treadle.target import Target, target_names


@pytest.mark.parametrize("name", target_names())
def test_every_listed_name_is_a_target(name: str):
    target = Target.parse(name)
    assert target.name == name
    assert target.vector_bits in (128, 256, 512)
    assert target.l1_bytes < target.l2_bytes < target.l3_bytes
    assert target.cores >= 1


def test_the_levels_widen_their_vectors():
    lanes = [Target.parse(f"x86-64-v{level}").lanes(32) for level in (2, 3, 4)]
    assert lanes == [4, 8, 16]


def test_only_levels_with_the_instruction_have_fma():
    have = [
        Target.parse(name).has_fma for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64")
    ]
    assert have == [False, True, True, True]


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(OptionError, match="x86-64-v3") as caught:
        Target.parse("z80")
    assert caught.value.code == "E0810"


def test_keys_tell_targets_apart():
    keys = {Target.parse(name).key for name in target_names()}
    assert len(keys) == len(target_names())


def test_the_native_target_is_made_once():
    assert Target.native() is Target.parse("native")
