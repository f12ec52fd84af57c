"""A real model, though a tiny one, behind the server."""

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import openai
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from treadle.language import LanguageModel
from treadle.serve.schedule import Limits
from treadle.serve.server import Server
from treadle.serve.service import Service

SETTINGS = {
    "model_type": "llama",
    "vocab_size": 257,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 256,
}
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
PROMPTS = [f"{'The same beginning of many. ' if i % 2 else ''}Prompt {i}" for i in range(32)]
LENGTH = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model's folder without weights, whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return LanguageModel.load(folder, random=True, threads=1)


@pytest.fixture(scope="module")
def alone(model):
    """What each prompt gives by itself."""
    return [list(model.generate(p, max_tokens=LENGTH)) for p in PROMPTS]


def texts_of(model, alone):
    return [model.tokenizer.decode(tokens) for tokens in alone]


@contextmanager
def connected(service):
    """A client of a running server."""
    with (
        Server(service).running() as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        yield client


def stream_all(service):
    with connected(service) as client, ThreadPoolExecutor(len(PROMPTS)) as pool:

        def stream(prompt):
            pieces = client.completions.create(
                model="tiny", prompt=prompt, max_tokens=LENGTH, temperature=0, stream=True
            )
            return "".join(piece.choices[0].text for piece in pieces)

        return list(pool.map(stream, PROMPTS))


def test_32_streams_of_a_real_model_are_as_each_alone(model, alone):
    service = Service.of(model, name="tiny")
    assert stream_all(service) == texts_of(model, alone)
    state = service.engine.snapshot()
    assert state.free_pages == state.pages


def test_streams_stay_right_with_small_steps_and_a_small_cache(model, alone):
    limits = Limits(running=8, step_tokens=8)
    room = 24 * model.new_cache(1).nbytes
    service = Service.of(model, name="tiny", limits=limits, cache_bytes=room)
    assert stream_all(service) == texts_of(model, alone)
    assert service.engine.snapshot().free_pages == 24


def test_a_chat_goes_through_the_model_s_template(model):
    service = Service.of(model, name="tiny")
    prompt = model.tokenizer.encode("user: hi\nassistant:")
    expected = list(model.generate(prompt, max_tokens=10))
    with connected(service) as client:
        options = {"model": "tiny", "temperature": 0, "max_tokens": 10}
        hi = [{"role": "user", "content": "hi"}]
        answer = client.chat.completions.create(messages=hi, **options)
        assert answer.choices[0].message.content == model.tokenizer.decode(expected)
        assert answer.usage.prompt_tokens == len(prompt)


def test_choices_share_their_prompt_and_go_their_own_ways(model):
    service = Service.of(model, name="tiny")
    with connected(service) as client:
        options = {"model": "tiny", "prompt": "a prompt of some length", "max_tokens": 12}
        several = client.completions.create(**options, n=4, seed=3)
        for choice in several.choices:
            single = client.completions.create(**options, seed=3 + choice.index)
            assert single.choices[0].text == choice.text
    state = service.engine.snapshot()
    assert state.free_pages == state.pages


def test_embeddings_are_means_of_hidden_states_of_length_one(model):
    with connected(Service.of(model, name="tiny")) as client:
        answer = client.embeddings.create(model="tiny", input=["a text", "another"])
    for text, entry in zip(["a text", "another"], answer.data, strict=True):
        expected = model.embed(model.tokenizer.encode(text))
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(entry.embedding, expected, rtol=1e-5, atol=1e-6)


def test_the_command_serves_until_it_is_told_to_stop(folder):
    command = [sys.executable, "-c", "from treadle.cli import app; app()", "serve", str(folder)]
    options = ["--random-weights", "--port", "0", "--threads", "1", "--name", "tiny"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline()
            url = re.search(r"serving tiny at (\S+)", said)[1]
            with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
                answer = client.completions.create(model="tiny", prompt="x", max_tokens=3)
            assert answer.usage.completion_tokens <= 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stdout.read() == "stopped\n"
        finally:
            process.kill()
