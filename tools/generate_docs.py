"""Write the pages that follow from the code: operations, passes, schedules, the index of errors.

``python tools/generate_docs.py`` writes them; ``--check`` says which are out of date.
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from treadle.driver.pipelines import graph_pipeline, loop_pipeline, lower_pipeline
from treadle.ir.level import Level
from treadle.ir.op import Op
from treadle.ops import OPS
from treadle.schedule.instruction import Instruction
from treadle.schedule.trace import INSTRUCTIONS
from treadle.target import Target

FOLDER = Path(__file__).resolve().parent.parent / "docs"
_NOTE = "<!-- Written by tools/generate_docs.py; change the docstrings instead. -->"


def pages() -> dict[str, str]:
    """The text of every generated page, by file name."""
    found = {f"reference/{_page(name)}": text for name, text in _op_pages().items()}
    found["reference/operations.md"] = _op_index()
    found["reference/passes.md"] = _pass_page()
    found["reference/schedule.md"] = _schedule_page()
    found["errors/index.md"] = _error_index()
    return found


def _lines(parts: Iterable[str]) -> str:
    text = "\n".join(parts).rstrip("\n") + "\n"
    return re.sub(r"\n{3,}", "\n\n", text)


def _summary(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


# ---- Operations


def _families() -> Mapping[str, list[type[Op]]]:
    families: dict[str, list[type[Op]]] = {}
    for cls in OPS:
        if cls.__module__.startswith("treadle.ops."):
            families.setdefault(cls.__module__.rpartition(".")[2], []).append(cls)
    return dict(sorted(families.items()))


def _page(family: str) -> str:
    """The file of a family; ``index.md`` would be the page of the folder."""
    return f"ops/{'indexing' if family == 'index' else family}.md"


def _op_pages() -> dict[str, str]:
    return {name: _lines(_family(name, classes)) for name, classes in _families().items()}


def _family(name: str, classes: Sequence[type[Op]]) -> Iterator[str]:
    module = import_module(f"treadle.ops.{name}")
    yield f"# {name.replace('_', ' ').capitalize()}"
    yield from ("", _NOTE, "", inspect.getdoc(module) or "", "")
    for cls in classes:
        yield from _operation(cls)


def _operation(cls: type[Op]) -> Iterator[str]:
    yield from (f"## `{cls.op_name()}`", "", *_docstring(cls), "")
    yield from ("```text", _usage(cls), "```", "")
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  (every op is one)
    for field in fields:
        default = "" if field.default is dataclasses.MISSING else f", {_literal(field.default)}"
        yield f"- `{field.name}`: `{_annotation(field.type)}`{default}"
    if fields:
        yield ""
    gradient = "has a gradient" if cls.differentiable else "has no gradient"
    yield from (f"Class `{cls.__name__}`; {gradient}; {_lowering(cls)}.", "")


def _annotation(hint: object) -> str:
    return hint if isinstance(hint, str) else inspect.formatannotation(hint)


def _docstring(thing: object) -> Iterator[str]:
    """The docstring as Markdown: tables of shapes and errors stay as they are set."""
    for paragraph in (inspect.getdoc(thing) or "").split("\n\n"):
        if any(line.startswith(("Shapes:", "Errors:")) for line in paragraph.splitlines()):
            yield from ("```text", paragraph, "```", "")
        else:
            yield from (paragraph.replace("``", "`"), "")


def _usage(cls: type[Op]) -> str:
    op, examples = next(iter(cls.samples()))
    given = ", ".join(
        f"{f.name}={_literal(value)}"
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if (value := getattr(op, f.name)) != f.default
    )
    operands = [f"x{k}" for k in range(len(examples))]
    types = ", ".join(f"{x}: {e.type}" for x, e in zip(operands, examples, strict=True))
    call = f"y = {cls.op_name()}({', '.join([*operands, *([given] if given else [])])})"
    return f"{call}{' ' * 4}# {types}" if types else call


def _lowering(cls: type[Op]) -> str:
    if cls.lower is not Op.lower:
        return "has loops of its own"
    return "is written with other operations"


def _op_index() -> str:
    def lines() -> Iterator[str]:
        yield from ("# Operations", "", _NOTE, "")
        yield "An operation is called by its name, operands first, attributes by keyword."
        yield from ("", "| Operation | Meaning |", "| --- | --- |")
        for name, classes in _families().items():
            for cls in classes:
                meaning = _summary(cls).replace("``", "`").replace("|", "\\|")
                yield f"| [`{cls.op_name()}`]({_page(name)}#{cls.op_name()}) | {meaning} |"

    return _lines(lines())


# ---- Passes


def _pass_page() -> str:
    pipelines = (
        (
            "On the graph",
            "What is done for every machine; its result is what an artifact keeps.",
            graph_pipeline(),
        ),
        (
            "To loops",
            'From operations to scheduled loop programs; `winograd` with `numerics="fast"` only.',
            loop_pipeline(Target.native(), 1, fast=True),
        ),
        ("To finished loops", "What code is generated from.", lower_pipeline()),
    )

    def lines() -> Iterator[str]:
        yield from ("# Passes", "", _NOTE, "")
        yield "The pipelines of `treadle.driver.pipelines`, in order."
        for title, text, pipeline in pipelines:
            yield from (
                "",
                f"## {title}",
                "",
                text,
                "",
                "| Pass | Reads | Leaves | What it does |",
                "| --- | --- | --- | --- |",
            )
            for step in pipeline.passes:
                function = getattr(step.run, "func", step.run)
                levels = f"{_level(step.reads)} | {_level(step.writes)}"
                yield f"| `{step.name}` | {levels} | {_summary(function).replace('``', '`')} |"

    return _lines(lines())


def _level(level: Level) -> str:
    return level.name.lower()


# ---- Schedules


def _schedule_page() -> str:
    def lines() -> Iterator[str]:
        yield from ("# Schedule instructions", "", _NOTE, "")
        yield "Each is a method of `treadle.schedule.trace.Schedule` and a line of a trace."
        for cls in INSTRUCTIONS:
            yield from ("", f"## `{_call(cls)}`", "", *_docstring(cls))

    return _lines(lines())


def _call(cls: type[Instruction]) -> str:
    parts = [
        f.name if f.default is dataclasses.MISSING else f"{f.name}={_literal(f.default)}"
        for f in dataclasses.fields(cls)
    ]
    return f"{cls.name()}({', '.join(parts)})"


# ---- Errors

_ROOMS = {
    "00": "Reading a text",
    "01": "Types and shapes",
    "02": "Rules of programs",
    "03": "Schedules",
    "04": "Lowering",
    "05": "Machine code",
    "06": "Importing models",
    "07": "Run time",
    "08": "Options and the command line",
    "09": "Language models",
}


def _error_index() -> str:
    titles = [
        path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").split(": ", 1)
        for path in sorted((FOLDER / "errors").glob("E*.md"))
    ]

    def lines() -> Iterator[str]:
        yield from ("# Errors", "", _NOTE, "")
        yield "`treadle explain CODE` prints these pages."
        for room, name in _ROOMS.items():
            yield from ("", f"## {name}", "", "| Code | Meaning |", "| --- | --- |")
            for code, title in titles:
                if code.startswith(f"E{room}"):
                    yield f"| [{code}]({code}.md) | {title} |"

    return _lines(lines())


def stale() -> list[str]:
    """The names of pages that are missing, out of date, or no longer made."""
    made = pages()
    present = {
        str(p.relative_to(FOLDER)): p.read_text(encoding="utf-8") for p in FOLDER.rglob("*.md")
    }
    written = {name for name, text in present.items() if _NOTE in text}
    changed = {name for name, text in made.items() if present.get(name) != text}
    return sorted(changed | (written - made.keys()))


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with ``--check`` name those out of date; return the exit status."""
    names = stale()
    if "--check" in arguments:
        print("\n".join(f"out of date: docs/{name}" for name in names))
        return 1 if names else 0
    made = pages()
    for name in names:
        path = FOLDER / name
        if name not in made:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
