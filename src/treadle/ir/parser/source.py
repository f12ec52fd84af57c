"""A text under reading: where its nodes stand, and the errors that point there."""

import ast
import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from treadle.base.errors import ParseError, TreadleError
from treadle.base.span import Span


@dataclass(frozen=True, slots=True)
class Source:
    """The text and its name.

    Codes of the errors made here: E0001 Python syntax, E0002 a statement that has no place, E0003 a
    wrong form of something known, E0004 an unknown name, E0005 types that do not fit, E0006 a name
    defined twice, E0007 a result type that differs, E0008 a constant without data.
    """

    name: str
    lines: tuple[str, ...]

    def span(self, node: ast.AST) -> Span:
        """The place of a node."""
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        return Span(self.name, line, column + 1, None)

    def excerpt(self, node: ast.AST) -> tuple[str, ...]:
        """The line of a node and a second one that underlines it."""
        line = getattr(node, "lineno", 1)
        if not 1 <= line <= len(self.lines):
            return ()
        text = self.lines[line - 1]
        start = getattr(node, "col_offset", 0)
        same_line = getattr(node, "end_lineno", line) == line
        stop = getattr(node, "end_col_offset", start + 1) if same_line else len(text)
        return text, " " * start + "^" * max(1, stop - start)

    def error(
        self,
        code: str,
        message: str,
        node: ast.AST,
        help: str | None = None,  # noqa: A002  (the word that the message uses)
        notes: Iterable[str] = (),
    ) -> ParseError:
        """The error at a node."""
        place, excerpt = str(self.span(node)), self.excerpt(node)
        return ParseError(
            code, message, place=place, excerpt=excerpt, notes=tuple(notes), help=help
        )

    def placed(self, error: TreadleError, node: ast.AST) -> TreadleError:
        """An error of another room, shown at a node if it has no place yet."""
        if error.place is not None:
            return error
        return type(error)(
            error.code,
            error.message,
            place=str(self.span(node)),
            excerpt=self.excerpt(node),
            notes=error.notes,
            help=error.help,
        )

    def unknown(self, what: str, name: str, known: Iterable[str], node: ast.AST) -> ParseError:
        """The error of a name that means nothing here, with the nearest that does."""
        near = difflib.get_close_matches(name, list(known), 1)
        cure = f"did you mean '{near[0]}'?" if near else None
        return self.error("E0004", f"there is no {what} '{name}'", node, help=cure)

    def parse(self) -> ast.Module:
        """The text as Python's syntax tree.

        Raises:
            ParseError: E0001 if it is not Python.
        """
        try:
            return ast.parse("\n".join(self.lines))
        except SyntaxError as error:
            at = ast.Pass()
            at.lineno = error.lineno or 1
            at.col_offset = max(0, (error.offset or 1) - 1)
            raise self.error(
                "E0001",
                f"this is not Python: {error.msg}",
                at,
                help="the text of a program uses Python's syntax",
            ) from None


def call_name(node: ast.AST) -> str | None:
    """``f`` where ``node`` is a call ``f(...)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id
    return None


def keywords(source: Source, node: ast.Call, allowed: Iterable[str]) -> dict[str, ast.expr]:
    """The keyword arguments of a call, each of them among ``allowed``."""
    found: dict[str, ast.expr] = {}
    known = list(allowed)
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg not in known:
            name = keyword.arg or "**"
            raise source.unknown("keyword", name, known, keyword)
        found[keyword.arg] = keyword.value
    return found
