"""``treadle serve``: a language model behind OpenAI's HTTP interface."""

import importlib.util
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from treadle.base.errors import OptionError
from treadle.cli.language import CacheFormat, Folder, RandomWeights, Rows, Weights, load_model
from treadle.cli.parameters import Threads
from treadle.cli.report import out

_PACKAGES = ("jinja2", "pydantic", "starlette", "tokenizers", "uvicorn")
_GIB = 1 << 30


def serve(
    folder: Folder,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The port; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option("--name", help="What clients call the model; the folder's name.")
    ] = None,
    weights: Weights = "f32",
    rows: Rows = "f32",
    cache_format: CacheFormat = None,
    random: RandomWeights = False,
    threads: Threads = None,
    cache: Annotated[
        float, typer.Option("--cache", help="GiB for the keys and values of all requests.")
    ] = 2.0,
    context: Annotated[
        int | None, typer.Option("--context", help="The most tokens of a prompt and its answer.")
    ] = None,
    running: Annotated[
        int, typer.Option("--running", help="Sequences that are computed together.")
    ] = 32,
    waiting: Annotated[
        int, typer.Option("--waiting", help="Requests that may wait; more are told to come again.")
    ] = 256,
    step_tokens: Annotated[
        int, typer.Option("--step-tokens", help="Tokens of one step, parts of prompts included.")
    ] = 512,
    max_prompt: Annotated[
        int | None, typer.Option("--max-prompt", help="The most tokens of a prompt.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="The most tokens of an answer.")
    ] = None,
    grace: Annotated[
        float, typer.Option("--grace", help="Seconds that running requests get at the end.")
    ] = 30.0,
    key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="A file with the key that clients need.")
    ] = None,
) -> None:
    """Serve the language model in FOLDER to OpenAI's clients until SIGINT or SIGTERM."""
    missing = [p for p in _PACKAGES if importlib.util.find_spec(p) is None]
    if missing:
        raise OptionError(
            "E0862",
            f"a server needs {', '.join(missing)}",
            help="pip install 'treadle[language,serve]'",
        )
    from treadle.serve.schedule import Limits
    from treadle.serve.server import Server, listen, url_of
    from treadle.serve.service import Service

    limits = Limits(running, waiting, step_tokens, max_prompt, max_tokens)
    key = None if key_file is None else _read_key(key_file)
    with listen(host, port) as listener:
        model = load_model(folder, weights, rows, cache_format, random, threads)
        service = Service.of(
            model,
            name=name or folder.resolve().name,
            cache_bytes=int(cache * _GIB),
            context=context,
            limits=limits,
            api_key=key,
        )
        server = Server(service, grace=grace)
        pages = service.engine.snapshot().pages
        out().print(
            f"serving {service.name} at {url_of(listener)} "
            f"(context {service.engine.context} tokens, cache of {pages} pages)",
            markup=False,
        )
        # Once all is finished, the server raises the signal again that told it to stop.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        signal.signal(signal.SIGTERM, before)
    out().print("stopped")


def _read_key(path: Path) -> str:
    if not path.is_file() or not (key := path.read_text(encoding="utf-8").strip()):
        raise OptionError(
            "E0863", f"there is no key in '{path}'", help="name a file that holds one line"
        )
    return key
