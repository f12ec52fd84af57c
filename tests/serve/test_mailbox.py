import asyncio
import threading

from treadle.serve.mailbox import Mailbox


def test_items_from_other_threads_arrive_all_and_in_order():
    async def receive():
        mailbox = Mailbox(asyncio.get_running_loop())
        queues = [asyncio.Queue() for _ in range(3)]

        def send(queue):
            for number in range(2000):
                mailbox.put(queue, number)

        threads = [threading.Thread(target=send, args=(queue,)) for queue in queues]
        for thread in threads:
            thread.start()
        async with asyncio.timeout(10):
            return [[await queue.get() for _ in range(2000)] for queue in queues]

    assert asyncio.run(receive()) == [list(range(2000))] * 3


def test_nobody_minds_items_for_a_loop_that_is_closed():
    loop = asyncio.new_event_loop()
    mailbox, queue = Mailbox(loop), asyncio.Queue()
    loop.close()
    mailbox.put(queue, 1)
    mailbox.put(queue, 2)
    assert queue.empty()
