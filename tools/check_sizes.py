"""Hold every Python file to a size that fits in the head.

A file longer than ``WARN`` lines is named; one longer than ``FAIL`` lines makes the check fail.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

WARN = 600
FAIL = 1000
FOLDERS = ("src", "tests", "benchmarks", "examples", "tools")


def python_files(root: Path, folders: Iterable[str] = FOLDERS) -> Iterator[Path]:
    """Yield the Python files below ``folders`` of ``root``, sorted; missing folders hold none."""
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def line_count(path: Path) -> int:
    """Return the number of lines of a text file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def report(root: Path) -> tuple[list[str], bool]:
    """Return a message per file above ``WARN`` lines, longest first, and if none is refused."""
    sizes = [(line_count(path), path.relative_to(root)) for path in python_files(root)]
    long = sorted((entry for entry in sizes if entry[0] > WARN), reverse=True)
    messages = [
        f"{'error' if lines > FAIL else 'warning'}: {path}: {lines} lines "
        f"(split above {WARN}, refused above {FAIL})"
        for lines, path in long
    ]
    return messages, all(lines <= FAIL for lines, _ in sizes)


def main(arguments: Sequence[str]) -> int:
    """Check the tree given as the first argument, or this repository; return the exit status."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    messages, passed = report(root)
    for message in messages:
        print(message)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
