"""What we change in Flower does what it is for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import flower_names
import flwr
import pytest
from flwr.app import Message
from flwr.supercore.constant import TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import nodestate_factory

import fedkd
from fedkd.federation import compat, wire
from fedkd.federation.compat import supernode


@pytest.fixture
def node(monkeypatch):
    """A SuperNode's state with one message in it, as `serve_supernode` has it."""
    # So that it is put back.
    monkeypatch.setattr(nodestate_factory, "InMemoryNodeState", nodestate_factory.InMemoryNodeState)
    supernode._always_answers()
    compat.identify_server(1)
    state = nodestate_factory.NodeStateFactory(ObjectStoreFactory()).state()
    state.set_node_id(5)
    call = wire.pack(wire.Call(1, 0, b"x"))
    message = Message(call, dst_node_id=5, message_type="train.learn", group_id="1")
    message.metadata.__dict__["_message_id"] = message.object_id
    state.taken = message
    return state


@pytest.mark.parametrize(
    ("kept", "node"),
    [
        (b"123\n", 123),
        (None, None),
        (b"", None),
        (b"12 3", None),
        (b"\xff\xfe", None),
        (b"-5", None),
        (b"1" * 40, None),
        (b"1" * 9999, None),
    ],
)
def test_a_nodes_memory_that_is_damaged_is_none(tmp_path, kept, node):
    if kept is not None:
        (tmp_path / "node").write_bytes(kept)
    assert supernode._remembered(tmp_path / "node") == node


@pytest.mark.parametrize("kind", [TaskType.CLIENT_APP, TaskType.AGENT_APP])
@pytest.mark.parametrize("read", [True, False])
def test_a_task_that_fails_in_whatever_way_is_answered(node, kind, read):
    task = node.create_task(task_type=kind, run_id=1, fab_hash="x")
    assert node.get_tasks(task_ids=[task])[0].type == TaskType.CLIENT_APP
    node.store_message(node.taken)
    if read:
        node.get_messages_legacy(run_ids=[1], is_reply=False)
    node.claim_task(task)
    node.activate_task(task)
    assert node.get_messages_legacy(is_reply=True) == []
    assert node.finish_task(task, "failed", "boom")
    [reply] = node.get_messages_legacy(is_reply=True)
    assert reply.error.code == compat.CRASHED
    assert reply.metadata.reply_to_message_id == node.taken.metadata.message_id


@pytest.mark.parametrize("release", sorted({"1.41.0", "1.42.0"} - {flwr.__version__}))
def test_another_supported_flower_has_what_is_used_of_it(release, tmp_path):
    """All that `pyproject.toml` allows; the one that is installed deploys in other tests."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"flwr=={release}"]
    fetched = subprocess.run([*pip, "--dest", tmp_path], capture_output=True, check=False)
    if fetched.returncode != 0:
        pytest.skip(f"flwr {release} cannot be had: {fetched.stderr.decode()[-200:]}")
    [wheel] = tmp_path.glob("*.whl")
    package = Path(fedkd.__file__).parent
    command = [sys.executable, flower_names.__file__, package]
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    told = json.loads(done.stdout)
    assert told["folder"].startswith(str(wheel))
    assert told["names"] == flower_names.described(package)
