"""What was worked out before, kept in a folder: entries by the hash of all that they depend on."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class DiskCache:
    """Bytes by key. Without a folder nothing is found and nothing kept.

    An entry is written whole or not at all, and carries its hash: one that was damaged counts as
    missing. A folder that cannot be written to only costs the next run its time.
    """

    folder: Path | None

    def key(self, *parts: str) -> str:
        """The name of an entry that depends on ``parts`` and on the compiler itself."""
        return hashlib.sha256("\0".join((fingerprint(), *parts)).encode()).hexdigest()

    def get(self, key: str) -> bytes | None:
        """The entry, if it is there and is what was written."""
        if self.folder is None:
            return None
        try:
            data = (self.folder / key).read_bytes()
        except OSError:
            return None
        content = data[_HASH_BYTES:]
        return content if hashlib.sha256(content).digest() == data[:_HASH_BYTES] else None

    def put(self, key: str, content: bytes) -> None:
        """Keep an entry."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder)
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            Path(name).replace(self.folder / key)
        except OSError:
            return


NO_CACHE = DiskCache(None)


@cache
def fingerprint() -> str:
    """A hash of the compiler's own source: what another version kept is not used."""
    package = Path(__file__).parent.parent
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()
