"""Two processes that train together on one CPU, over gloo, without a launcher: for tests."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable

import torch

DDP: dict[str, str] = {}
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "NO_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
FSDP2_LAYERS = FSDP2 | {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP": "Layer,BasicTransformerBlock"}


def _member(job: Callable[[int], None], rank: int, port: int, environment: dict[str, str]) -> None:
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier test of the parent may have set it
    GradientState._reset_state()
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    } | environment
    job(rank)
    assert torch.distributed.get_world_size() == 2, "it ran alone"
    torch.distributed.destroy_process_group()


def start(job: Callable[[int], None], environment: dict[str, str]) -> list:
    """Both processes of job(rank)."""
    import accelerate  # noqa: F401 before the fork

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_member, args=(job, rank, port, environment)) for rank in range(2)]
    for process in processes:
        process.start()
    return processes


def end(processes: list, seconds: float = 900) -> None:
    """Wait for both; they must have ended well. When one fails, the other would wait for it, and is killed."""
    deadline = time.time() + seconds
    while any(process.is_alive() for process in processes) and time.time() < deadline:
        time.sleep(0.05)
        if any(process.exitcode for process in processes):
            break
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    assert codes == [0, 0]
