import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import LanguageModelError, RuntimeFault
from treadle.serve.requests import ChatRequest, CompletionRequest
from treadle.serve.schedule import Limits


class Bytes:
    """Whatever else it does, a token is a byte."""

    def encode(self, text):
        return list(text.encode())

    def decode(self, tokens):
        return bytes(tokens).decode(errors="replace")


def complete(served, prompt, count=8, **options):
    return served.client.completions.create(
        model="tiny", prompt=prompt, max_tokens=count, **{"temperature": 0, **options}
    )


def streamed(served, prompt, count=8, **options):
    pieces = complete(served, prompt, count, stream=True, **options)
    return "".join(p.choices[0].text for p in pieces if p.choices)


def post(served, path, body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | headers
    return httpx2.post(f"{served.url}{path}", content=data, headers=headers)


def refused(served, body, path="/v1/completions"):
    answer = post(served, path, body)
    assert 400 <= answer.status_code < 500
    return answer.status_code, answer.json()["error"]["message"]


def test_a_completion_is_what_the_model_says(served):
    answer = complete(served, "hello")
    assert answer.choices[0].text == served.model.greedy("hello", 8)
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 8)


def test_a_stream_adds_up_to_the_completion(served):
    assert streamed(served, "hello") == complete(served, "hello").choices[0].text


def test_a_stream_ends_with_its_usage_when_asked(served):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *pieces, last = complete(served, "abc", 5, **options)
    assert all(piece.usage is None for piece in pieces)
    assert last.choices == []
    assert last.usage.total_tokens == 8


def test_a_chat_speaks_as_the_assistant(served):
    messages = [{"role": "user", "content": "hi"}]
    options = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 6}
    whole = served.client.chat.completions.create(**options)
    expected = served.model.greedy("user: hi\n", 6)
    assert whole.choices[0].message.content == expected
    assert whole.choices[0].message.role == "assistant"
    pieces = list(served.client.chat.completions.create(**options, stream=True))
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == expected
    assert pieces[-1].choices[0].finish_reason == "length"


def test_the_parts_of_a_message_are_one_text(served):
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    answer = served.client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": parts}],
        temperature=0,
        max_completion_tokens=6,
    )
    assert answer.choices[0].message.content == served.model.greedy("user: hi\n", 6)


def test_a_developer_is_the_system_to_the_template(served):
    answer = served.client.chat.completions.create(
        model="tiny",
        messages=[{"role": "developer", "content": "x"}],
        temperature=0,
        max_tokens=6,
    )
    assert answer.choices[0].message.content == served.model.greedy("system: x\n", 6)


def test_32_streams_together_are_as_each_alone(serve, stand_in):
    model = stand_in(pace=0.001)
    prompts = [f"{'x' * (i % 7)}prompt number {i}" for i in range(32)]
    with serve(model, pages=700) as served, ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda prompt: streamed(served, prompt, 40), prompts))
        assert found == [model.greedy(prompt, 40) for prompt in prompts]
        assert served.free_pages(700) == 700
    assert max(model.sizes) > 16


def test_streams_are_right_when_the_cache_is_far_too_small(serve, stand_in):
    model = stand_in()
    prompts = [f"prompt {i}" for i in range(12)]
    with serve(model, pages=30) as served, ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda prompt: streamed(served, prompt, 40), prompts))
        assert found == [model.greedy(prompt, 40) for prompt in prompts]
        assert served.engine.snapshot().preemptions > 0
        assert served.free_pages(30) == 30


def test_a_list_of_prompts_gives_choices_in_order(served):
    answer = complete(served, ["one", "two"], 4, n=2)
    one, two = (served.model.greedy(p, 4) for p in ("one", "two"))
    assert [c.text for c in answer.choices] == [one, one, two, two]
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.completion_tokens == 16


def test_tokens_are_a_prompt_too(served):
    assert complete(served, list(b"one")).choices[0].text == served.model.greedy("one", 8)


def test_choices_of_a_seed_differ_and_come_again(served):
    options = {"temperature": 1.0, "seed": 7, "n": 3}
    first = [c.text for c in complete(served, "once", 12, **options).choices]
    assert [c.text for c in complete(served, "once", 12, **options).choices] == first
    assert len(set(first)) == 3


def test_the_end_token_ends_and_is_not_shown(serve, stand_in):
    model = stand_in(ends=True)
    with serve(model) as served:
        prompts = [f"p{i}" for i in range(20)]
        ended = [p for p in prompts if len(model.greedy(p, 60)) < 60]
        assert ended
        answer = complete(served, ended[0], 60)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].text == model.greedy(ended[0], 60)


@pytest.mark.parametrize("stream", [False, True])
def test_text_ends_before_a_stop_and_pages_come_back(serve, stand_in, stream):
    model = stand_in(pace=0.002)
    with serve(model) as served:
        text = model.greedy("stop me", 60)
        stop = text[10:13]
        if stream:
            found = streamed(served, "stop me", 900, stop=[stop, "zzzzzz"])
        else:
            answer = complete(served, "stop me", 900, stop=stop).choices[0]
            found = answer.text
            assert answer.finish_reason == "stop"
        assert found == text[: text.index(stop)]
        assert served.free_pages(256) == 256
        assert sum(model.sizes) < 800


def test_a_stop_that_begins_and_does_not_come_is_shown(served):
    text = served.model.greedy("hold", 8)
    assert complete(served, "hold", 8, stop=text[-2:] + "!").choices[0].text == text


def test_penalties_and_biases_change_the_choice(served):
    plain = complete(served, "abc", 30).choices[0].text
    assert complete(served, "abc", 30, frequency_penalty=2.0).choices[0].text != plain
    only = complete(served, "abc", 5, logit_bias={"65": 100}).choices[0].text
    assert only == "AAAAA"


def test_logprobs_tell_the_likeliest_tokens(served):
    told = complete(served, "abc", 3, logprobs=2).choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == 3
    assert told.text_offset == [0, 1, 2]
    logits = served.model.logits(list(b"abc")).astype(np.float64)
    expected = logits.max() - np.log(np.exp(logits).sum())
    np.testing.assert_allclose(told.token_logprobs[0], expected, rtol=1e-6)
    chat = served.client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "x"}],
        max_tokens=2,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )
    entries = chat.choices[0].logprobs.content
    assert [len(e.top_logprobs) for e in entries] == [3, 3]
    assert entries[0].token == entries[0].top_logprobs[0].token


def test_models_health_and_metrics_answer(served):
    assert [m.id for m in served.client.models.list()] == ["tiny"]
    assert served.client.models.retrieve("tiny").id == "tiny"
    assert httpx2.get(f"{served.url}/health").json()["status"] == "ok"
    complete(served, "abc", 5)
    text = httpx2.get(f"{served.url}/metrics").text
    assert "treadle_generated_tokens_total 5" in text
    assert "treadle_peak_memory_bytes" in text


def test_embeddings_come_in_both_encodings(serve, stand_in):
    def embed(tokens):
        return np.array([len(tokens), sum(tokens)], np.float32)

    with serve(stand_in(), embed=embed) as served:
        create = served.client.embeddings.create
        coded = create(model="tiny", input=["ab", "c"])
        plain = create(model="tiny", input=["ab", "c"], encoding_format="float")
        for answer in (coded, plain):
            assert [d.embedding for d in answer.data] == [[2, 195], [1, 99]]
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            create(model="tiny", input="ab", dimensions=3)


def test_embeddings_of_a_client_that_hangs_up_are_given_up(serve, stand_in):
    seen = []

    def embed(tokens):
        time.sleep(0.02)
        seen.append(tokens)
        return np.ones(2, np.float32)

    with serve(stand_in(), embed=embed) as served:
        with pytest.raises(openai.APITimeoutError):
            served.client.embeddings.create(model="tiny", input=["a"] * 500, timeout=0.3)
        until(lambda: bool(seen))
        assert served.engine.call(lambda: 1).result(5) == 1
    assert len(seen) < 100


def test_messages_that_the_template_does_not_take_are_a_client_s_mistake(serve, stand_in):
    class Picky(Bytes):
        def chat(self, messages):
            raise LanguageModelError("E0915", "no system", help="leave it out")

    with serve(stand_in(), tokenizer=Picky()) as served:
        body = {"model": "tiny", "messages": [{"role": "system", "content": "x"}]}
        assert refused(served, body, "/v1/chat/completions") == (400, "no system; leave it out")


def test_a_model_without_embeddings_says_so(served):
    with pytest.raises(openai.BadRequestError, match="no embeddings"):
        served.client.embeddings.create(model="tiny", input="ab")


BAD = {
    b"{oops": (400, "not JSON"),
    b"": (400, "not JSON"),
    b"\xff\xfe\x00": (400, "not JSON"),
    b"[]": (400, "object"),
    b'{"model": "tiny"}': (400, "prompt"),
    b'{"model": "other", "prompt": "a"}': (404, "no model 'other'"),
    b'{"model": "tiny", "prompt": 3}': (400, "prompt: should be a string"),
    b'{"model": "tiny", "prompt": []}': (400, "prompt"),
    b'{"model": "tiny", "prompt": ""}': (400, "no tokens"),
    b'{"model": "tiny", "prompt": [257]}': (400, "no token 257"),
    b'{"model": "tiny", "prompt": [-1]}': (400, "prompt"),
    b'{"model": "tiny", "prompt": "a", "max_tokens": "3"}': (400, "max_tokens: should be"),
    b'{"model": "tiny", "prompt": "a", "max_tokens": 0}': (400, "max_tokens"),
    b'{"model": "tiny", "prompt": "a", "max_tokens": 5000}': (400, "the context has 1024"),
    b'{"model": "tiny", "prompt": "a", "temperature": NaN}': (400, "temperature"),
    b'{"model": "tiny", "prompt": "a", "temperature": 3}': (400, "temperature"),
    b'{"model": "tiny", "prompt": "a", "n": 64}': (400, "n is 64"),
    b'{"model": "tiny", "prompt": "a", "echo": true}': (400, "echo is not supported"),
    b'{"model": "tiny", "prompt": "a", "best_of": 4}': (400, "best_of"),
    b'{"model": "tiny", "prompt": "a", "stop": ""}': (400, "stop"),
    b'{"model": "tiny", "prompt": "a", "logit_bias": {"999": 1}}': (400, "no token 999"),
    b'{"model": "tiny", "prompt": "a", "logit_bias": {"x": 1}}': (400, "logit_bias"),
    b'{"model": "tiny", "prompt": "a", "logit_bias": {"\xd9\xa3": 1}}': (400, "logit_bias"),
    b'{"model": "tiny", "prompt": "\\ud800"}': (400, "not JSON"),
    b'{"model": "tiny", "prompt": "a", "metadata": ' + b"[" * 9999: (400, "not JSON"),
    b'{"model": "tiny", "prompt": "a", "seed": 1' + b"0" * 6000 + b"}": (400, ""),
    b'{"model": "tiny", "prompt": [1' + b"0" * 5000 + b"]}": (400, ""),
    b'{"model": "tiny", "prompt": "a", "stream_options": {}}': (400, "stream=true"),
    b'{"model": "tiny", "prompt": "a", "temprature": 1}': (400, "no such field"),
}


@pytest.mark.parametrize("body", BAD, ids=lambda b: b[:70].decode(errors="replace"))
def test_a_bad_request_hears_what_is_wrong(shared, body):
    status, message = refused(shared, body)
    assert status == BAD[body][0]
    assert BAD[body][1] in message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
fields = st.sampled_from([*CompletionRequest.model_fields, *ChatRequest.model_fields])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(fields, anything, max_size=4), st.booleans())
def test_no_field_however_odd_is_the_server_s_mistake(shared, body, chat):
    start = {"messages": [{"role": "user", "content": "x"}]} if chat else {"prompt": "x"}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    body = {"model": "tiny", "max_tokens": 2, **start, **body}
    answer = post(shared, path, json.dumps(body).encode())
    assert answer.status_code == 200 or "message" in answer.json()["error"]
    assert answer.status_code < 500


def test_bad_chats_hear_what_is_wrong(shared):
    user = {"role": "user", "content": "x"}
    for change, said in (
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content: should be a string"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content"),
        ({"tools": [{"type": "function"}]}, "tools are not supported"),
        ({"response_format": {"type": "json_object"}}, "plain text"),
        ({"top_logprobs": 2}, "logprobs=true"),
    ):
        body = {"model": "tiny", "messages": [user]} | change
        status, message = refused(shared, body, "/v1/chat/completions")
        assert status == 400
        assert said in message


def test_other_paths_methods_and_media_are_refused_in_the_same_shape(shared):
    assert refused(shared, {}, "/v1/nothing")[0] == 404
    answer = httpx2.get(f"{shared.url}/v1/completions")
    assert (answer.status_code, answer.json()["error"]["type"]) == (405, "invalid_request_error")
    answer = post(shared, "/v1/completions", b"a=b", **{"content-type": "text/plain"})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]


def test_a_body_that_is_too_large_is_refused(serve, stand_in):
    with serve(stand_in(), body_bytes=1000) as served:
        body = {"model": "tiny", "prompt": "a" * 1000}
        assert refused(served, body)[0] == 413


def test_a_key_is_asked_for_where_there_is_one(serve, stand_in):
    with serve(stand_in(), api_key="key") as served:
        assert complete(served, "abc", 2).choices[0].text == served.model.greedy("abc", 2)
        with pytest.raises(openai.AuthenticationError, match="wrong or missing"):
            served.client.with_options(api_key="wrong").models.list()


def test_limits_on_lengths_are_told(serve, stand_in):
    with serve(stand_in(), limits=Limits(prompt_tokens=10, answer_tokens=20)) as served:
        with pytest.raises(openai.BadRequestError, match="11 tokens; this server takes 10"):
            complete(served, "a" * 11)
        with pytest.raises(openai.BadRequestError, match="writes at most 20"):
            complete(served, "a", 21)
        chat = served.client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], temperature=0
        )
        assert chat.usage.completion_tokens == 20


def test_a_full_queue_answers_429_and_when_to_come_back(serve, stand_in):
    model = stand_in()
    model.open.clear()
    with serve(model, limits=Limits(running=1, waiting=1)) as served:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(complete, served, "first")
            until(lambda: served.engine.snapshot().running == 1)
            second = pool.submit(complete, served, "second")
            until(lambda: served.engine.snapshot().waiting == 1)
            with pytest.raises(openai.RateLimitError) as caught:
                complete(served, "third")
            assert int(caught.value.response.headers["retry-after"]) >= 1
            model.open.set()
            assert first.result().choices[0].text == model.greedy("first", 8)
            assert second.result().choices[0].text == model.greedy("second", 8)
        assert complete(served, "third").choices[0].text == model.greedy("third", 8)


def test_a_client_that_leaves_a_stream_gives_its_pages_back(serve, stand_in):
    model = stand_in(pace=0.005)
    with serve(model) as served:
        stream = complete(served, "leaving", 1000, stream=True)
        next(stream)
        assert served.engine.snapshot().free_pages < 256
        stream.close()
        assert served.free_pages(256) == 256
        assert len(model.sizes) < 500
        assert served.engine.counts.finished["cancelled"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_gives_its_pages_back(serve, stand_in, stream):
    model = stand_in(pace=0.005)
    with serve(model) as served:
        options = {"model": "tiny", "prompt": "gone", "max_tokens": 1000, "stream": stream}
        body = json.dumps(options).encode()
        with socket.create_connection(
            ("127.0.0.1", int(served.url.rpartition(":")[2]))
        ) as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )
            until(lambda: served.engine.snapshot().running == 1)
        assert served.free_pages(256) == 256
        assert len(model.sizes) < 500


def test_a_client_that_hangs_up_while_it_waits_is_forgotten(serve, stand_in):
    model = stand_in()
    model.open.clear()
    with serve(model, limits=Limits(running=1)) as served:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(complete, served, "first")
            until(lambda: served.engine.snapshot().running == 1)
            with pytest.raises(openai.APITimeoutError):
                complete(served, "second", timeout=0.2)
            model.open.set()
            first.result()
        until(lambda: served.engine.counts.finished["cancelled"] == 1)
        assert served.engine.snapshot().waiting == 0


def test_a_failing_step_is_told_and_the_server_goes_on(serve, stand_in):
    model = stand_in()
    with serve(model) as served:
        model.fault = RuntimeFault("E0799", "out of luck")
        with pytest.raises(openai.InternalServerError, match="out of luck"):
            complete(served, "abc")
        model.fault = RuntimeFault("E0799", "out of luck")
        with pytest.raises(openai.APIError, match="out of luck"):
            streamed(served, "abc")
        assert complete(served, "abc").choices[0].text == model.greedy("abc", 8)
        assert served.free_pages(256) == 256


def test_running_streams_finish_when_the_server_stops(serve, stand_in):
    model = stand_in(pace=0.01)
    with serve(model) as served, ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(streamed, served, f"p{i}", 50) for i in range(4)]
        until(lambda: served.engine.snapshot().running == 4)
        served.server.should_exit = True
        until(lambda: served.engine.snapshot().stopping)
        with pytest.raises(openai.APIError):
            complete(served, "too late")
        assert [s.result() for s in streams] == [model.greedy(f"p{i}", 50) for i in range(4)]


def test_streams_are_told_when_the_time_to_stop_is_over(serve, stand_in):
    model = stand_in(pace=0.02)
    with serve(model, grace=0.3) as served, ThreadPoolExecutor(1) as pool:
        stream = pool.submit(streamed, served, "long", 1000)
        until(lambda: served.engine.snapshot().running == 1)
        served.server.should_exit = True
        with pytest.raises(openai.APIError, match="shutting down"):
            stream.result(10)


def until(holds, seconds=5):
    """Wait for a condition that has to come true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)
