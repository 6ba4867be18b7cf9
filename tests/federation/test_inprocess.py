"""The in-process grid, with Flower's own unmodified parts around it."""

import threading
import time
from contextvars import ContextVar

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from processes import PATIENCE, wait_until

from fedkd.federation import inprocess
from fedkd.federation.compat import new_context
from fedkd.federation.inprocess import InProcessGrid

SECRET = "patient-4711"


def echo_app(mods=None):
    app = ClientApp(mods=mods)

    @app.train("echo")
    def echo(message, context):
        metrics = MetricRecord({"partition": context.node_config["partition-id"]})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def questions(grid, ttl=60.0):
    return [
        Message(RecordDict(), dst_node_id=node, message_type="train.echo", group_id="1", ttl=ttl)
        for node in grid.get_node_ids()
    ]


def partitions(replies):
    return sorted(reply.content["metrics"]["partition"] for reply in replies)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_thousand_nodes_answer_once_each(threads):
    with InProcessGrid(echo_app(), nodes=1000, threads=threads) as grid:
        asked = questions(grid)
        replies = grid.send_and_receive(asked, timeout=PATIENCE)
        assert partitions(replies) == list(range(1000))
        identities = [message.metadata.message_id for message in asked]
        assert len(set(identities)) == 1000
        assert {r.metadata.reply_to_message_id for r in replies} == set(identities)
        assert grid.pull_messages(identities) == []
    assert len(set(grid.get_node_ids())) == 1000


def test_mods_wrap_every_message():
    seen = []

    def count(message, context, call):
        seen.append(message.metadata.dst_node_id)
        return call(message, context)

    with InProcessGrid(echo_app([count]), nodes=5, threads=2) as grid:
        grid.send_and_receive(questions(grid), timeout=PATIENCE)
        assert sorted(seen) == sorted(grid.get_node_ids())


def test_flowers_own_server_app_and_strategy_run_on_it():
    """FedAvg of clients that each add their number: the mean of 0, 1 and 2 is 1 a round."""
    client, server, results = ClientApp(), ServerApp(), []

    @client.train()
    def train(message, context):
        start = message.content["arrays"].to_numpy_ndarrays()[0]
        added = start + context.node_config["partition-id"]
        content = RecordDict(
            {
                "arrays": ArrayRecord([added]),
                "metrics": MetricRecord({"num-examples": 10}),
            }
        )
        return Message(content, reply_to=message)

    @server.main()
    def main(grid, context):
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=3, min_train_nodes=3)
        start = ArrayRecord([np.zeros(4, dtype=np.float32)])
        results.append(strategy.start(grid, start, num_rounds=3))

    with InProcessGrid(client, nodes=3, threads=2) as grid:
        server(grid, new_context(grid.run.run_id, 1, {}))
    np.testing.assert_allclose(results[0].arrays.to_numpy_ndarrays()[0], 3.0)


@pytest.mark.parametrize("error", [ValueError(SECRET), SystemExit(SECRET)])
def test_an_apps_exception_becomes_an_error_without_its_message(error):
    """And the worker lives on, whatever was raised."""

    def app(message, context):
        if context.node_config["partition-id"] == 0:
            raise error
        return Message(RecordDict({"metrics": MetricRecord({"partition": 1})}), reply_to=message)

    with InProcessGrid(app, nodes=3, threads=1) as grid:
        replies = grid.send_and_receive(questions(grid), timeout=PATIENCE)
    assert len(replies) == 3
    (failed,) = [reply for reply in replies if reply.has_error()]
    assert SECRET not in str(failed.error)


def test_context_variables_reach_the_workers():
    variable = ContextVar("variable", default="unset")
    found = []

    def app(message, context):
        found.append(variable.get())
        return Message(RecordDict(), reply_to=message)

    with InProcessGrid(app, nodes=2, threads=2) as grid:
        variable.set("set after the workers started")
        grid.send_and_receive(questions(grid), timeout=PATIENCE)
    assert found == ["set after the workers started"] * 2


class Hanging:
    """An app whose first partition waits for `release` whenever it is asked."""

    def __init__(self):
        self.release = threading.Event()
        self.asked: list[int] = []

    def __call__(self, message: Message, context: Context) -> Message:
        partition = context.node_config["partition-id"]
        self.asked.append(partition)
        if partition == 0:
            self.release.wait(PATIENCE)
        metrics = MetricRecord({"partition": partition})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)


@pytest.fixture
def hanging():
    app = Hanging()
    yield app
    app.release.set()


def test_a_timeout_returns_fewer_replies(hanging):
    with InProcessGrid(hanging, nodes=4, threads=2) as grid:
        replies = grid.send_and_receive(questions(grid), timeout=3.0)
        assert not hanging.release.is_set()
        assert partitions(replies) == [1, 2, 3]


def test_a_hanging_worker_is_replaced_and_its_node_refused_until_it_is_done(hanging):
    with InProcessGrid(hanging, nodes=3, threads=1) as grid:
        # One thread only: with it hanging nobody else can answer, until its message has expired.
        assert partitions(grid.send_and_receive(questions(grid, ttl=1.0), timeout=1.0)) == []
        second = grid.send_and_receive(questions(grid), timeout=PATIENCE)
        assert hanging.asked.count(0) == 1
        (refused,) = [reply for reply in second if reply.has_error()]
        assert "busy" in refused.error.reason
        assert partitions([r for r in second if r is not refused]) == [1, 2]

        hanging.release.set()
        end = time.monotonic() + PATIENCE
        replies: list[Message] = []
        while len(replies) < 3 and time.monotonic() < end:
            replies = [
                r
                for r in grid.send_and_receive(questions(grid), timeout=PATIENCE)
                if r.has_content()
            ]
        assert partitions(replies) == [0, 1, 2]


def fail_while_one_hangs(hanging):
    with InProcessGrid(hanging, nodes=3, threads=2) as grid:
        grid.push_messages(questions(grid, ttl=7 * 86400.0))
        wait_until(lambda: 0 in hanging.asked)
        raise ZeroDivisionError


def test_an_error_is_seen_though_a_client_without_a_deadline_hangs(hanging, monkeypatch):
    monkeypatch.setattr(inprocess, "_LAST_SECONDS", 0.2)
    with pytest.raises(ZeroDivisionError):
        fail_while_one_hangs(hanging)
    assert any(thread.name == inprocess.WORKER_NAME for thread in threading.enumerate())


def test_a_late_answer_is_dropped(hanging):
    with InProcessGrid(hanging, nodes=1, threads=1) as grid:
        (asked,) = questions(grid, ttl=0.2)
        (identity,) = grid.push_messages([asked])
        time.sleep(0.3)
        hanging.release.set()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert grid.pull_messages([identity]) == []


def test_a_message_that_expired_in_the_queue_reaches_nobody(hanging):
    with InProcessGrid(hanging, nodes=2, threads=1) as grid:
        grid.push_messages(questions(grid)[:1])
        wait_until(lambda: hanging.asked == [0])
        grid.push_messages(questions(grid, ttl=0.2)[1:])
        time.sleep(0.4)
        hanging.release.set()
        assert partitions(grid.send_and_receive(questions(grid)[1:], timeout=PATIENCE)) == [1]
    assert hanging.asked == [0, 1]


@pytest.mark.parametrize(("days", "ttl"), [(8, 7 * 86400.0), (2 / 1440, 60.0)])
def test_a_wall_clock_that_steps_forward_makes_nobody_late(hanging, monkeypatch, days, ttl):
    """Neither who is at it, nor who waits in the queue."""
    with InProcessGrid(hanging, nodes=3, threads=1) as grid:
        waiting = set(grid.push_messages(questions(grid, ttl=ttl)))
        wall = time.time
        monkeypatch.setattr(time, "time", lambda: wall() + days * 86400)
        assert list(grid.pull_messages(waiting)) == []
        hanging.release.set()
        replies: list[Message] = []
        end = time.monotonic() + PATIENCE
        while len(replies) < 3 and time.monotonic() < end:
            replies += grid.pull_messages(waiting)
        assert partitions(replies) == [0, 1, 2]
