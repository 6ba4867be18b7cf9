"""Worker processes under the grid, with apps that die, hang, speak and draw noise."""

import faulthandler
import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from processes import PATIENCE, wait_until

from fedkd.federation import wire
from fedkd.federation.client import WATCHER
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.workers.app import WorkerProcesses
from fedkd.federation.workers.channel import Channel
from fedkd.privacy.source import NoiseSource

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked, on Linux")


def questions(grid, nodes=None, ttl=600.0):
    return [
        Message(RecordDict(), dst_node_id=node, message_type="train.echo", group_id="1", ttl=ttl)
        for node in nodes or grid.get_node_ids()
    ]


@contextmanager
def working(app, *, nodes, threads=1):
    with (
        WorkerProcesses(app) as workers,
        InProcessGrid(workers, nodes=nodes, threads=threads) as grid,
    ):
        yield grid


def ask(grid, nodes=None):
    """What each node answers."""
    replies = grid.send_and_receive(questions(grid, nodes), timeout=PATIENCE)
    return {reply.metadata.src_node_id: reply for reply in replies}


def pids(replies):
    return {reply.content["metrics"]["pid"] for reply in replies.values() if is_answer(reply)}


def is_answer(reply):
    return reply.has_content() and "metrics" in reply.content


def answer(message, **numbers):
    metrics = MetricRecord({"pid": os.getpid(), **numbers})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state != "Z"


def test_apps_run_in_as_many_processes_as_there_are_threads_and_these_end():
    with working(lambda message, _: answer(message), nodes=300, threads=2) as grid:
        seen = pids(ask(grid))
        assert 1 <= len(seen) <= 2
        assert os.getpid() not in seen
    assert not any(map(is_running, seen))


def test_a_nodes_context_is_as_its_worker_left_it():
    def count(message, context):
        before = context.state.get("count", MetricRecord({"n": 0}))["n"]
        context.state["count"] = MetricRecord({"n": before + 1})
        return answer(message, n=before, partition=context.node_config["partition-id"])

    with working(count, nodes=3) as grid:
        for round in range(3):
            replies = ask(grid)
            found = [reply.content["metrics"] for reply in replies.values()]
            assert [each["n"] for each in found] == [round] * 3
            assert sorted(each["partition"] for each in found) == [0, 1, 2]


@pytest.mark.parametrize("size", [0, 10, 70_000, 3_000_000])
def test_bytes_come_back_whole_whatever_their_size(size):
    def double(message, _):
        given = message.content["arrays"]["payload"].data
        return Message(content(given + given[::-1]), reply_to=message)

    def content(data):
        return RecordDict({"arrays": ArrayRecord({"payload": Array("uint8", (1,), "x", data)})})

    with working(double, nodes=2, threads=2) as grid:
        for sent in (os.urandom(size), os.urandom(size // 2), os.urandom(size * 2)):
            asked = questions(grid)
            for message in asked:
                message.content = content(sent)
            for reply in grid.send_and_receive(asked, timeout=PATIENCE):
                assert reply.content["arrays"]["payload"].data == sent + sent[::-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_and_bytes_go_by_memory_as_they_are(dtype):
    ours, line, memory = Channel.pair()
    theirs = Channel(line, memory)
    draws = torch.Generator().manual_seed(0)
    large = torch.randint(0, 2, (300, 500), generator=draws).to(dtype)
    sent = [large, large.t()[:, 3:70], large[0, 0], large[:0], torch.arange(9.0).reshape(3, 3)]
    for channel, other in ((ours, theirs), (theirs, ours), (ours, theirs)):
        thread = threading.Thread(target=channel.send, args=(sent, b"x" * 100_000, "beside"))
        thread.start()
        tensors, data, beside = other.receive()
        thread.join()
        assert (data, beside) == (b"x" * 100_000, "beside")
        for tensor, expected in zip(tensors, sent, strict=True):
            assert tensor.dtype == expected.dtype
            assert torch.equal(tensor, expected)
        sent = tensors
    first = tensors[0]
    ours.send(torch.zeros(300, 500))
    theirs.receive()
    assert torch.equal(first, large)  # what was received is nobody else's memory
    ours.close()
    with pytest.raises(EOFError):
        theirs.receive()
    theirs.close()


def die(message, context):
    """Partitions 0 to 3 each end their process, or try to."""
    faulthandler.disable()
    partition = context.node_config["partition-id"]
    if WATCHER.get(None) is not None:
        WATCHER.get()(partition, "train", 0, 5)
    if partition < 2:
        os.kill(os.getpid(), (signal.SIGKILL, signal.SIGSEGV)[partition])
    if partition == 2:
        os._exit(3)
    if partition == 3:
        sys.exit("4711")
    return answer(message)


def test_a_worker_that_dies_is_its_clients_failure_and_is_replaced():
    with working(die, nodes=6) as grid:
        for _ in range(2):
            replies = ask(grid)
            failures = [wire.unpack(replies[node].content).quoted for node in (2, 3, 4)]
            assert failures == [
                "ChildProcessError while training: its worker process was ended by SIGKILL, as the "
                "kernel does when memory runs out",
                "ChildProcessError while training: its worker process was ended by SIGSEGV",
                "ChildProcessError while training: its worker process ended with status 3",
            ]
            assert replies[5].has_error()
            assert "4711" not in str(replies[5].error)
            assert len(pids(replies)) == 1  # sys.exit ends no worker


def test_a_late_worker_is_killed_and_its_node_answers_the_next_call(tmp_path):
    hung = tmp_path / "pid"

    def hang(message, context):
        if context.node_config["partition-id"] == 0 and not hung.exists():
            hung.write_text(str(os.getpid()))
            signal.pause()
        return answer(message)

    with working(hang, nodes=2) as grid:
        grid.push_messages(questions(grid, [2], ttl=0.5))
        pid = int(wait_until(lambda: hung.exists() and hung.read_text()))
        wait_until(lambda: not is_running(pid))
        assert len(pids(ask(grid))) == 1


def test_what_is_said_in_a_worker_is_heard_here(caplog, recwarn):
    def speak(message, context):
        WATCHER.get()(7, "train", 1, 2)
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("fedkd.spoken").warning("client %d", 7, exc_info=True)
        warnings.warn("beware", UserWarning, stacklevel=1)
        return answer(message)

    steps = []
    token = WATCHER.set(lambda *step: steps.append(step))
    try:
        with warnings.catch_warnings(record=True) as heard, working(speak, nodes=2) as grid:
            warnings.simplefilter("always")
            ask(grid)
    finally:
        WATCHER.reset(token)
    assert steps == [(7, "train", 1, 2)] * 2
    assert caplog.messages == ["client 7"] * 2
    assert "ValueError: why" in caplog.text
    assert {str(each.message) for each in heard} == {"beware"}


def test_whoever_watches_and_fails_is_no_workers_fault():
    def step(message, context):
        WATCHER.get()(0, "train", 0, 1)
        return answer(message)

    def fail(*_):
        raise RuntimeError

    token = WATCHER.set(fail)
    try:
        with working(step, nodes=2) as grid:
            assert all(reply.has_error() for reply in ask(grid).values())
    finally:
        WATCHER.reset(token)


SOURCE = NoiseSource()
"""As a careless method would hold one: from before any fork."""


def test_no_two_workers_draw_the_same_noise_or_keys():
    SOURCE.words(3)

    def draw(message, context):
        if context.node_config["partition-id"] == 0:
            os._exit(0)
        key = X25519PrivateKey.generate().private_bytes_raw()
        data = SOURCE.words(4).tobytes() + key
        arrays = ArrayRecord({"drawn": Array("uint8", (64,), "x", data)})
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    drawn = [SOURCE.words(4).tobytes()]
    with working(draw, nodes=2) as grid:
        for _ in range(3):
            data = ask(grid, [3])[3].content["arrays"]["drawn"].data
            drawn += [data[:32], data[32:]]
            ask(grid, [2])  # the next has another worker, forked from where this one was
    drawn.append(SOURCE.words(4).tobytes())
    assert len(set(drawn)) == len(drawn) == 8


def hold_workers(folder):
    """Two workers that wait for ever; the end of this process in a test."""

    def wait(message, context):
        for pid in (os.getpid(), os.getppid()):
            (folder / str(pid)).touch()
        while True:
            signal.pause()

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with working(wait, nodes=2, threads=2) as grid:
            ask(grid)
    except KeyboardInterrupt:
        os._exit(42)
    os._exit(1)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_no_process_outlives_the_one_that_made_it(tmp_path, end):
    pid = os.fork()
    if pid == 0:
        hold_workers(tmp_path)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 3)  # two workers and what forked them
    started = [int(file.name) for file in tmp_path.iterdir()]
    assert all(map(is_running, started))
    if end == signal.SIGINT:
        os.killpg(pid, end)  # as a terminal does, workers too
    else:
        os.kill(pid, end)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == (42 if end == signal.SIGINT else -end)
    wait_until(lambda: not any(map(is_running, started)))


def test_a_fork_server_that_somebody_killed_is_every_clients_reason():
    with WorkerProcesses(lambda message, _: answer(message)) as workers:
        os.kill(workers._server._pid, signal.SIGKILL)
        with InProcessGrid(workers, nodes=2, threads=1) as grid:
            for reply in ask(grid).values():
                said = wire.unpack(reply.content).quoted
                assert "the process that forks workers was ended" in said
