import pytest

from treadle.base.cache import NO_CACHE, DiskCache


def test_what_was_kept_is_found(tmp_path):
    cache = DiskCache(tmp_path / "new")
    key = cache.key("a", "b")
    assert cache.get(key) is None
    cache.put(key, b"content")
    assert cache.get(key) == b"content"


def test_keys_tell_their_parts_apart():
    keys = {NO_CACHE.key("ab", "c"), NO_CACHE.key("a", "bc"), NO_CACHE.key("abc"), NO_CACHE.key()}
    assert len(keys) == 4


@pytest.mark.parametrize("damage", [b"", b"x", b"\x00" * 100])
def test_a_damaged_entry_counts_as_missing(tmp_path, damage: bytes):
    cache = DiskCache(tmp_path)
    cache.put("key", b"content")
    (tmp_path / "key").write_bytes(damage)
    assert cache.get("key") is None


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = DiskCache(blocked)
    cache.put("key", b"content")
    assert cache.get("key") is None


def test_no_folder_keeps_nothing():
    NO_CACHE.put("key", b"content")
    assert NO_CACHE.get("key") is None
