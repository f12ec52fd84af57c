"""The application: its commands, and what becomes of errors."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import treadle
from treadle.base.errors import InternalError, TreadleError
from treadle.cli.bench import bench
from treadle.cli.compile import compile_model
from treadle.cli.explain import explain
from treadle.cli.generate import generate
from treadle.cli.inspect import inspect
from treadle.cli.report import print_error
from treadle.cli.run import run
from treadle.cli.serve import serve

USER_ERROR = 1
COMPILER_ERROR = 2


class _Commands(TyperGroup):
    """A group whose commands report Treadle's errors without a traceback."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  (typer's own context; what commands return)
        try:
            return super().invoke(ctx)
        except TreadleError as error:
            print_error(error)
            raise typer.Exit(USER_ERROR) from error
        except InternalError as error:
            print_error(error)
            raise typer.Exit(COMPILER_ERROR) from error


app = typer.Typer(
    name="treadle",
    cls=_Commands,
    help="Compile machine-learning models to fast programs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"treadle {treadle.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Compile machine-learning models to fast programs.

    MODEL is an .onnx file, a .pt2 file of torch.export, a .treadle artifact, or a .py file of
    Treadle's own text.
    """


app.command("compile")(compile_model)
app.command()(run)
app.command()(bench)
app.command()(inspect)
app.command()(explain)
app.command()(generate)
app.command()(serve)
