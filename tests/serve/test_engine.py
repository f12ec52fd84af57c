import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import OptionError, RuntimeFault
from treadle.language.sampling import Sampler
from treadle.serve.engine import Engine
from treadle.serve.job import Finished, Job, Picked
from treadle.serve.refusal import Refusal
from treadle.serve.sampler import RequestSampler, likeliest
from treadle.serve.schedule import Limits


class Heard:
    """What a job's listener hears."""

    def __init__(self, choices):
        self.tokens = [[] for _ in range(choices)]
        self.ends = [None] * choices
        self.over = threading.Event()

    def __call__(self, choice, event):
        assert self.ends[choice] is None, "nothing follows the end"
        if isinstance(event, Picked):
            self.tokens[choice].append(event.token)
            return
        self.ends[choice] = event
        if None not in self.ends:
            self.over.set()

    def wait(self):
        assert self.over.wait(10)
        return self

    @property
    def texts(self):
        return [bytes(tokens).decode() for tokens in self.tokens]


def job(prompt, count, choices=1):
    heard = Heard(choices)
    samplers = [RequestSampler(Sampler().next) for _ in range(choices)]
    return Job(prompt.encode(), samplers, max_tokens=count, listener=heard), heard


def ended(engine):
    engine.drain(10)
    assert engine.join(10)


requests = st.lists(
    st.tuples(st.text("abc", min_size=1, max_size=30), st.integers(1, 12), st.integers(1, 3)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(requests, st.integers(11, 40), st.integers(3, 8), st.integers(3, 20))
def test_any_requests_are_served_as_if_alone(stand_in, wanted, pages, running, step):
    model = stand_in()
    engine = Engine(model, pages=pages, limits=Limits(running, 50, max(step, running)))
    jobs = [job(*request) for request in wanted]
    engine.submit([one for one, _ in jobs])
    engine.start()
    for (prompt, count, choices), (_, heard) in zip(wanted, jobs, strict=True):
        assert heard.wait().texts == [model.greedy(prompt, count)] * choices
        assert heard.ends == [Finished("length")] * choices
    ended(engine)
    assert engine.snapshot().free_pages == pages
    assert max(model.tokens) <= max(step, running)


@settings(max_examples=30, deadline=None)
@given(requests, st.data())
def test_whatever_is_cancelled_the_rest_is_right_and_all_pages_come_back(stand_in, wanted, data):
    model = stand_in(pace=0.0002)
    engine = Engine(model, pages=14, limits=Limits(4, 50, 8))
    jobs = [job(*request) for request in wanted]
    gone = data.draw(st.sets(st.integers(0, len(jobs) - 1)))
    engine.submit([one for one, _ in jobs])
    engine.start()
    for place in gone:
        engine.cancel(jobs[place][0])
    for place, (prompt, count, choices) in enumerate(wanted):
        heard = jobs[place][1].wait()
        if place not in gone:
            assert heard.texts == [model.greedy(prompt, count)] * choices
    ended(engine)
    assert engine.snapshot().free_pages == 14


def test_a_prompt_is_computed_once_for_all_its_choices(stand_in):
    model = stand_in()
    engine = Engine(model, pages=64)
    one, heard = job("a prompt of some length", 4, choices=4)
    engine.submit([one])
    engine.start()
    heard.wait()
    ended(engine)
    assert sum(model.tokens) == len("a prompt of some length") + 4 * 3


def test_what_waits_together_shares_every_step(stand_in):
    model = stand_in()
    engine = Engine(model, pages=512, limits=Limits(running=32, step_tokens=64))
    jobs = [job(letter, 24) for letter in "abcdefghijklmnopqrstuvwxyz"]
    engine.submit([one for one, _ in jobs])
    engine.start()
    assert [heard.wait().texts for _, heard in jobs] == [
        [model.greedy(letter, 24)] for letter in "abcdefghijklmnopqrstuvwxyz"
    ]
    ended(engine)
    assert [size for size in model.sizes if size] == [26] * 24


def test_long_prompts_do_not_stop_those_that_write(stand_in):
    model = stand_in(pace=0.001)
    engine = Engine(model, pages=128, limits=Limits(step_tokens=32))
    writing, first = job("a", 30)
    long, second = job("b" * 300, 1)
    engine.submit([writing, long])
    engine.start()
    first.wait(), second.wait()
    ended(engine)
    assert max(model.tokens) <= 32
    assert len(model.tokens) <= 31


def test_the_youngest_gives_way_when_pages_run_out(stand_in):
    model = stand_in()
    engine = Engine(model, pages=6)
    old, first = job("aaaa", 16)
    young, second = job("bbbb", 16)
    engine.submit([old, young])
    engine.start()
    assert first.wait().texts == [model.greedy("aaaa", 16)]
    assert second.wait().texts == [model.greedy("bbbb", 16)]
    ended(engine)
    assert engine.snapshot().preemptions > 0
    assert engine.counts.finished["length"] == 2


def test_a_job_is_told_when_it_is_cancelled_waiting_or_running(stand_in):
    model = stand_in()
    engine = Engine(model, pages=64, limits=Limits(running=1))
    running, first = job("a", 100)
    waiting, second = job("b", 100)
    model.open.clear()
    engine.submit([running, waiting])
    engine.start()
    engine.cancel(waiting)
    engine.cancel(running)
    model.open.set()
    assert first.wait().ends == second.wait().ends == [Finished("cancelled")]
    ended(engine)
    assert engine.snapshot().free_pages == 64


def test_one_choice_can_be_cancelled(stand_in):
    model = stand_in(pace=0.002)
    engine = Engine(model, pages=256)
    one, heard = job("a", 60, choices=2)
    engine.submit([one])
    engine.start()
    while not heard.tokens[1]:
        pass
    engine.cancel(one, 1)
    assert heard.wait().ends == [Finished("length"), Finished("cancelled")]
    assert heard.texts[0] == model.greedy("a", 60)
    ended(engine)


def test_what_can_never_be_served_is_refused_at_once(stand_in):
    engine = Engine(stand_in(), pages=4, limits=Limits(running=2, prompt_tokens=10))
    for request, said in (
        (("", 1), "no tokens"),
        (("a" * 11, 1), "this server takes 10"),
        (("a" * 10, 7), "17 were asked for"),
        (("a", 1, 3), "n is 3"),
    ):
        with pytest.raises(Refusal, match=said) as caught:
            engine.submit([job(*request)[0]])
        assert caught.value.status == 400


def test_of_several_jobs_all_are_taken_or_none(stand_in):
    engine = Engine(stand_in(), pages=64, limits=Limits(waiting=3))
    engine.submit([job("a", 1)[0] for _ in range(2)])
    with pytest.raises(Refusal, match="try again") as caught:
        engine.submit([job("a", 1)[0] for _ in range(2)])
    assert caught.value.status == 429
    assert engine.snapshot().waiting == 2
    with pytest.raises(Refusal, match="4 prompts; this server takes 3") as caught:
        engine.submit([job("a", 1)[0] for _ in range(4)])
    assert caught.value.status == 400


def test_a_drained_engine_finishes_what_it_has_and_takes_nothing(stand_in):
    model = stand_in()
    engine = Engine(model, pages=64, limits=Limits(running=1))
    jobs = [job(letter, 5) for letter in "abc"]
    engine.submit([one for one, _ in jobs])
    engine.start()
    ended(engine)
    assert [heard.texts[0] for _, heard in jobs] == [model.greedy(x, 5) for x in "abc"]
    with pytest.raises(Refusal, match="shutting down"):
        engine.submit([job("d", 1)[0]])
    with pytest.raises(Refusal, match="shutting down"):
        engine.call(lambda: 1)


def test_what_is_left_at_the_deadline_is_told_so(stand_in):
    model = stand_in(pace=0.01)
    engine = Engine(model, pages=256, limits=Limits(running=1))
    jobs = [job(letter, 900) for letter in "ab"]
    engine.submit([one for one, _ in jobs])
    engine.start()
    engine.drain(0.05)
    for _, heard in jobs:
        assert heard.wait().ends[0].status == 503
    assert engine.join(5)
    assert engine.snapshot().free_pages == 256


def test_a_failing_step_fails_its_sequences_only(stand_in):
    model = stand_in()
    engine = Engine(model, pages=64, limits=Limits(running=1))
    model.fault = RuntimeFault("E0799", "out of luck")
    model.open.clear()
    failing, first = job("a", 5)
    waiting, second = job("b", 5)
    engine.submit([failing, waiting])
    engine.start()
    model.open.set()
    assert first.wait().ends[0].status == 500
    assert second.wait().texts == [model.greedy("b", 5)]
    ended(engine)
    assert engine.snapshot().free_pages == 64


def test_nobody_waits_for_an_engine_that_died(stand_in):
    model = stand_in()
    engine = Engine(model, pages=64)
    one, heard = job("a", 5)
    model.fault = ZeroDivisionError("a bug")
    engine.submit([one])
    died = []
    before, threading.excepthook = threading.excepthook, died.append
    try:
        engine.start()
        assert heard.wait().ends[0].status == 500
        assert engine.join(5)
    finally:
        threading.excepthook = before
    assert [error.exc_type for error in died] == [ZeroDivisionError]
    assert not engine.snapshot().alive
    with pytest.raises(Refusal):
        engine.submit([job("a", 5)[0]])


def test_errands_are_run_between_steps_on_the_engine_s_thread(stand_in):
    engine = Engine(stand_in(), pages=64)
    engine.start()
    assert engine.call(lambda: threading.current_thread().name).result(5) == "treadle-engine"

    def fail():
        raise RuntimeFault("E0799", "out of luck")

    with pytest.raises(RuntimeFault):
        engine.call(fail).result(5)
    assert engine.call(lambda: 3).result(5) == 3
    ended(engine)


def test_an_errand_that_nobody_waits_for_any_more_is_not_run(stand_in):
    model = stand_in()
    engine = Engine(model, pages=64)
    ran = []
    errand = engine.call(lambda: ran.append(1))
    assert errand.cancel()
    engine.start()
    assert engine.call(lambda: 3).result(5) == 3
    ended(engine)
    assert ran == []


def test_errands_are_bounded_and_told_when_the_engine_stops(stand_in):
    engine = Engine(stand_in(), pages=64, limits=Limits(waiting=2))
    errands = [engine.call(int) for _ in range(2)]
    with pytest.raises(Refusal, match="try again"):
        engine.call(int)
    engine.drain(0)
    engine.start()
    for errand in errands:
        with pytest.raises(Refusal, match="shutting down"):
            errand.result(5)


def test_parts_of_a_prompt_end_with_pages(stand_in):
    model = stand_in()
    engine = Engine(model, pages=64, limits=Limits(running=4, step_tokens=11))
    one, heard = job("a" * 30, 2)
    engine.submit([one])
    engine.start()
    heard.wait()
    ended(engine)
    assert model.tokens == [8, 8, 8, 6, 1]


@pytest.mark.parametrize("name", ["running", "waiting", "step_tokens", "prompt_tokens"])
def test_limits_that_let_nothing_through_are_refused(name):
    with pytest.raises(OptionError, match=f"{name} is 0"):
        Limits(**{name: 0})


def test_a_step_has_room_for_all_that_run():
    with pytest.raises(OptionError, match="step_tokens is 8"):
        Limits(running=9, step_tokens=8)


def test_penalties_fall_on_what_was_written():
    sampler = RequestSampler(lambda s: int(np.argmax(s)), presence=1.0, frequency=0.5)
    logits = np.array([3.0, 2.0, 0.0], np.float32)
    # 3, 1.5, 1 for the first; 2, 0.5 for the second.
    assert [sampler.pick(logits).token for _ in range(4)] == [0, 1, 0, 0]
    np.testing.assert_array_equal(logits, [3, 2, 0])


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30, unique=True), st.integers(0, 40))
def test_the_likeliest_come_in_order(values, count):
    array = np.array(values, np.float32)
    assert likeliest(array, count) == list(np.argsort(-array)[:count])
