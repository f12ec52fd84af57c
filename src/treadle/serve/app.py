"""The HTTP interface: OpenAI's paths, and those of an operator."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from treadle.base.errors import RuntimeFault, TreadleError
from treadle.serve.formats import DONE, ChatFormat, CompletionFormat, Format, event
from treadle.serve.mailbox import Mailbox
from treadle.serve.metrics import prometheus
from treadle.serve.refusal import Refusal, failed
from treadle.serve.requests import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Generation,
    read,
)
from treadle.serve.run import Order, Run
from treadle.serve.sampler import make_sampler
from treadle.serve.service import Service

Body = TypeVar("Body", CompletionRequest, ChatRequest, EmbeddingRequest)

_COMPLETION_TOKENS = 16
# A newer name that the templates of models do not know.
_ROLES = {"developer": "system"}
_CLOSED = 499


def create_app(service: Service) -> Starlette:
    """The application; it starts the engine, and on the way out waits for its end."""
    paths = _Paths(service)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, Mailbox]]:
        service.engine.start()
        yield {"mailbox": Mailbox(asyncio.get_running_loop())}
        service.engine.drain(0)
        await asyncio.to_thread(service.engine.join)

    return Starlette(
        routes=[
            Route("/v1/completions", paths.completions, methods=["POST"]),
            Route("/v1/chat/completions", paths.chat, methods=["POST"]),
            Route("/v1/embeddings", paths.embeddings, methods=["POST"]),
            Route("/v1/models", paths.models),
            Route("/v1/models/{name:path}", paths.model),
            Route("/health", paths.health),
            Route("/metrics", paths.metrics),
        ],
        exception_handlers={
            Refusal: _refused,
            TreadleError: _mistaken,
            HTTPException: _http,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
        lifespan=lifespan,
    )


class _Paths:
    """What answers each path."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def completions(self, request: Request) -> Response:
        body = await self._body(request, CompletionRequest)
        prompts = await asyncio.to_thread(self._all_tokens, body.prompts, "prompt")
        wanted = _COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        order = self._order(body, prompts, [wanted] * len(prompts), body.logprobs)
        form = CompletionFormat(
            self._service.name,
            self._service.tokenizer.decode,
            logprobs=body.logprobs is not None,
            usage=body.with_usage,
        )
        return await self._answer(request, body, order, form)

    async def chat(self, request: Request) -> Response:
        body = await self._body(request, ChatRequest)
        messages = [{"role": _ROLES.get(m.role, m.role), "content": m.text} for m in body.messages]
        prompt = await asyncio.to_thread(self._service.tokenizer.chat, messages)
        longest = self._longest(len(prompt)) if body.longest is None else body.longest
        top = (body.top_logprobs or 0) if body.logprobs else None
        order = self._order(body, [prompt], [longest], top)
        form = ChatFormat(
            self._service.name,
            self._service.tokenizer.decode,
            logprobs=bool(body.logprobs),
            usage=body.with_usage,
        )
        return await self._answer(request, body, order, form)

    async def embeddings(self, request: Request) -> Response:
        body = await self._body(request, EmbeddingRequest)
        embed, engine = self._service.embed, self._service.engine
        if embed is None:
            raise Refusal(400, f"the model '{self._service.name}' gives no embeddings")
        inputs = await asyncio.to_thread(self._all_tokens, body.inputs, "input")
        for tokens in inputs:
            if not 0 < len(tokens) <= engine.context:
                message = f"an input has {len(tokens)} tokens; this server takes 1 to"
                code = "context_length_exceeded" if tokens else None
                raise Refusal(400, f"{message} {engine.context}", code=code, param="input")
        vectors: list[np.ndarray] = []
        gone = asyncio.Event()
        async with _watched(request.receive, gone.set):
            for tokens in inputs:
                if gone.is_set():
                    raise ClientDisconnect
                # One at a time, so that streams go on between them.
                done = engine.call(partial(embed, tokens))
                vectors.append((await asyncio.wrap_future(done)).astype(np.float32))
        if body.dimensions not in (None, len(vectors[0])):
            message = f"dimensions is {body.dimensions}; the model has {len(vectors[0])}"
            raise Refusal(400, message, param="dimensions")
        data = [
            {"object": "embedding", "index": index, "embedding": _coded(vector, body)}
            for index, vector in enumerate(vectors)
        ]
        count = sum(map(len, inputs))
        usage = {"prompt_tokens": count, "total_tokens": count}
        name = self._service.name
        return JSONResponse({"object": "list", "data": data, "model": name, "usage": usage})

    async def models(self, request: Request) -> Response:
        self._authorize(request)
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        self._authorize(request)
        self._check_name(request.path_params["name"])
        return JSONResponse(self._model())

    async def health(self, request: Request) -> Response:
        state = self._service.engine.snapshot()
        status = "stopping" if state.stopping else "ok" if state.alive else "failed"
        body = {"status": status, "running": state.running, "waiting": state.waiting}
        return JSONResponse(body, 200 if status == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        engine = self._service.engine
        text = prometheus(engine.counts, engine.snapshot())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    def _model(self) -> dict[str, object]:
        return {
            "id": self._service.name,
            "object": "model",
            "created": self._service.created,
            "owned_by": "treadle",
            "max_model_len": self._service.engine.context,
        }

    async def _body(self, request: Request, kind: type[Body]) -> Body:
        self._authorize(request)
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            message = "the body must be JSON, with the header Content-Type: application/json"
            raise Refusal(415, message)
        size, chunks = 0, list[bytes]()
        async for chunk in request.stream():
            size += len(chunk)
            if size > self._service.body_bytes:
                raise Refusal(413, f"the body has more than {self._service.body_bytes} bytes")
            chunks.append(chunk)
        body = read(kind, b"".join(chunks))
        self._check_name(body.model)
        return body

    def _authorize(self, request: Request) -> None:
        key = self._service.api_key
        if key is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), key.encode()):
            message = "the API key is wrong or missing; send it as Authorization: Bearer KEY"
            raise Refusal(401, message, code="invalid_api_key")

    def _check_name(self, name: str) -> None:
        if name != self._service.name:
            message = f"there is no model '{name}'; this server has '{self._service.name}'"
            raise Refusal(404, message, code="model_not_found", param="model")

    def _all_tokens(self, texts: Sequence[str | Sequence[int]], param: str) -> list[Sequence[int]]:
        encode = self._service.tokenizer.encode
        found = [encode(text) if isinstance(text, str) else text for text in texts]
        top = max((max(tokens, default=0) for tokens in found), default=0)
        if top >= self._service.vocabulary:
            message = f"there is no token {top}; the vocabulary has {self._service.vocabulary}"
            raise Refusal(400, message, param=param)
        return found

    def _longest(self, prompt: int) -> int:
        """The tokens of an answer that asks for no number."""
        limit = self._service.engine.limits.answer_tokens
        room = max(1, self._service.engine.context - prompt)
        return room if limit is None else min(room, limit)

    def _order(
        self,
        body: Generation,
        prompts: Sequence[Sequence[int]],
        longest: Sequence[int],
        top: int | None,
    ) -> Order:
        limit = self._service.engine.limits.answer_tokens
        if limit is not None and max(longest) > limit:
            message = f"max_tokens is {max(longest)}; this server writes at most {limit}"
            raise Refusal(400, message, param="max_tokens")
        top_bias = max(body.biases, default=0)
        if top_bias >= self._service.vocabulary:
            raise Refusal(400, f"logit_bias: there is no token {top_bias}", param="logit_bias")
        return Order(
            prompts,
            body.n or 1,
            partial(make_sampler, body, top),
            longest,
            frozenset() if body.ignore_eos else self._service.end_tokens,
            body.stops,
        )

    async def _answer(
        self, request: Request, body: Generation, order: Order, form: Format
    ) -> Response:
        mailbox: Mailbox = request.state.mailbox
        run = Run(self._service.engine, order, self._service.tokenizer.decode, mailbox)
        run.start()
        if body.stream:
            return _Stream(run, form, body.with_usage)
        async with _watched(request.receive, run.cancel), aclosing(run.deltas()) as deltas:
            async for _ in deltas:
                pass
        return JSONResponse(form.whole(run.answers, run.usage))


class _Stream(StreamingResponse):
    """Pieces of answers as they come; when the client goes, or all are sent, the run ends."""

    def __init__(self, run: Run, form: Format, usage: bool) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        pieces = _pieces(run, form, usage)
        super().__init__(pieces, headers=headers, media_type="text/event-stream")
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with _watched(receive, self._run.cancel):
                await super().__call__(scope, receive, send)
        finally:
            self._run.cancel()


async def _pieces(run: Run, form: Format, usage: bool) -> AsyncGenerator[str]:
    """The events of a stream."""
    for index in range(len(run.answers)):
        opening = form.opening(index)
        if opening is not None:
            yield event(opening)
    try:
        async with aclosing(run.deltas()) as deltas:
            async for index, delta in deltas:
                reason = run.answers[index].reason
                if delta.text or reason is not None or form.logprobs:
                    yield event(form.piece(index, delta, reason))
    except Refusal as refusal:
        yield event(refusal.body())
        return
    if usage:
        yield event(form.ending(run.usage))
    yield DONE


@asynccontextmanager
async def _watched(receive: Receive, leave: Callable[[], None]) -> AsyncGenerator[None]:
    """Call ``leave`` when the client goes away before the body ends."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        leave()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


def _coded(vector: np.ndarray, body: EmbeddingRequest) -> list[float] | str:
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]


def _refused(request: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, Refusal) else failed("the server made a mistake")
    return JSONResponse(refusal.body(), refusal.status, refusal.headers())


def _mistaken(request: Request, error: Exception) -> Response:
    if not isinstance(error, TreadleError) or isinstance(error, RuntimeFault):
        return _broken(request, error)
    message = f"{error.message}; {error.help}" if error.help else error.message
    return JSONResponse(Refusal(400, message, code=error.code).body(), 400)


def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    message = {404: "there is no such path", 405: "the path does not take this method"}.get(
        status, str(error)
    )
    refusal = Refusal(status, f"{message}: {request.method} {request.url.path}")
    return JSONResponse(refusal.body(), status, dict(headers or {}))


def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLOSED)


def _broken(request: Request, error: Exception) -> Response:
    return JSONResponse(failed("the server made a mistake; its log says more").body(), 500)
