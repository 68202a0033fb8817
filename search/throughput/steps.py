"""One step of a network, ready to be timed, and what is known of it before the rounds begin."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from lightning_modules.precision import FORMATS, MemoryFormat, autocast
from search.throughput.protocol import Mode, Protocol
from space import Architecture
from space import build as build_architecture

Step = Callable[[], None]
PILOT_BLOCKS = 5


@dataclass(frozen=True)
class TimmModel:
    """A model of timm's, by name, with random weights."""

    name: str
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def fingerprint(self) -> str:
        """The name says all."""
        return f"timm:{self.name}"

    def build(self) -> nn.Module:
        """Build it: (B, in_channels, H, W) -> (B, num_classes)."""
        network: nn.Module = timm.create_model(self.name, in_chans=self.in_channels, num_classes=self.num_classes)
        return network


@dataclass(frozen=True)
class Candidate:
    """A network to be measured, and the pixels a side of its images."""

    architecture: Architecture | TimmModel
    resolution: int

    def build(self) -> nn.Module:
        """Build the network without drop path and dropout, as timm's benchmark, which the paper used, has it.

        Raises InputError for a resolution that the network's strides do not divide.
        """
        if isinstance(self.architecture, TimmModel):
            return self.architecture.build()
        self.architecture.check_resolution(self.resolution)
        return build_architecture(self.architecture.replace({"drop_path": 0.0, "head_dropout": 0.0}))


@dataclass
class Runner:
    """A network's step with all that its blocks need."""

    step: Step
    images: int
    device: str
    steps: int = 1
    facts: dict[str, object] = field(default_factory=dict)

    def block(self) -> float:
        """Time one block; return images a second."""
        return self.steps * self.images / timed(self.step, self.steps, self.device)


def prepare(candidate: Candidate, mode: Mode, protocol: Protocol, device: str) -> Runner:
    """Build the network, warm it up, choose its memory format and the length of its blocks.

    Facts of the runner: memory_format, first_step_seconds (with compilation and autotuning, if any),
    warmup_seconds, steady (whether the block times had stopped falling), memory_bytes (see peak_memory; on a CPU
    None here, because watching its allocator takes seconds).
    """
    runners = [_prepare(candidate, mode, protocol, device, format_) for format_ in formats(protocol)]
    if len(runners) > 1:
        # Chosen on blocks of their own: the fastest of the rounds' readings would flatter itself.
        pilots = [[runner.block() for runner in runners] for _ in range(PILOT_BLOCKS)]
        speeds = [median(pilot[index] for pilot in pilots) for index in range(len(runners))]
        return runners[speeds.index(max(speeds))]
    return runners[0]


def _prepare(candidate: Candidate, mode: Mode, protocol: Protocol, device: str, format_: MemoryFormat) -> Runner:
    before = _allocated(device)
    with bounded(device):
        runner = Runner(make_step(candidate, mode, protocol, device, format_), protocol.images(mode), device)
        runner.facts = {"memory_format": format_, "first_step_seconds": timed(runner.step, 1, device)}
    runner.facts["memory_bytes"] = _cuda_peak(runner.step, before, device) if _is_cuda(device) else None
    if protocol.cuda_graphs:
        runner.step = _captured(runner.step, device)
    runner.facts |= warm_up(runner, protocol)
    return runner


def warm_up(runner: Runner, protocol: Protocol) -> dict[str, object]:
    """Run until block times stop falling, or `warmup_seconds` are over, and set the steps of a block.

    Steady: the median of the last five blocks is no more than 2 % below that of the five before.
    """
    started = time.perf_counter()
    each = timed(runner.step, 1, runner.device)
    short = max(1, round(protocol.block_seconds / 4 / max(each, 1e-9)))
    times: list[float] = []
    steady = False
    while not steady and time.perf_counter() - started < protocol.warmup_seconds:
        times.append(timed(runner.step, short, runner.device) / short)
        steady = len(times) >= 10 and median(times[-5:]) >= 0.98 * median(times[-10:-5])
    each = median(times[-5:]) if times else each
    runner.steps = max(1, round(protocol.block_seconds / max(each, 1e-9)))
    return {"warmup_seconds": time.perf_counter() - started, "steady": steady}


def make_step(
    candidate: Candidate,
    mode: Mode,
    protocol: Protocol,
    device: str,
    format_: MemoryFormat,
    *,
    watched: bool = False,
) -> Step:
    """Build the network and return one step of it on synthetic images.

    A training step is forward, backward and an SGD step on random labels; inference runs in eval mode. If
    operators are to be `watched`, it runs under no_grad, because inference_mode hides them inside larger ones.
    """
    layout = FORMATS[format_]
    network = candidate.build().to(device, memory_format=layout)  # type: ignore[call-overload]
    model, batch = candidate.architecture, protocol.images(mode)
    shape = (batch, model.in_channels, candidate.resolution, candidate.resolution)
    images = torch.randn(shape, device=device).contiguous(memory_format=layout)
    call = torch.compile(network) if protocol.compile else network
    if mode != "train":
        network.eval()

        def infer() -> None:
            with torch.no_grad() if watched else torch.inference_mode(), autocast(protocol.precision, device):
                call(images)

        return infer

    labels = torch.randint(model.num_classes, (batch,), device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=protocol.precision == "fp16")

    def train() -> None:
        optimizer.zero_grad()
        with autocast(protocol.precision, device):
            loss = cross_entropy(call(images), labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()

    return train


def timed(step: Step, count: int, device: str) -> float:
    """Return the seconds of `count` steps; on a GPU by events, with no wait between the steps."""
    if _is_cuda(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        begin.record()
        for _ in range(count):
            step()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000
    started = time.perf_counter()
    for _ in range(count):
        step()
    return time.perf_counter() - started


def largest_batch(candidate: Candidate, mode: Mode, protocol: Protocol, device: str) -> int | None:
    """Return about the largest batch below the protocol's that runs; None where not even one image does.

    On a GPU it is found by bisection. On a CPU that would fill the memory for minutes, at everybody's cost: there
    it follows from the peaks of two small batches, which grow in proportion.
    """
    if _is_cuda(device):
        return _bisected(candidate, mode, protocol, device)
    try:
        with bounded(device):
            one, three = (
                peak_memory(candidate, mode, protocol.model_copy(update={"batch_size": size})) for size in (1, 3)
            )
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None
    each = (three - one) / 2
    fits = min(int((_free_bytes() - one) / each) + 1, protocol.images(mode) - 1)
    return fits if fits > 0 else None


def _bisected(candidate: Candidate, mode: Mode, protocol: Protocol, device: str) -> int | None:
    low, high = 0, protocol.images(mode)
    while high - low > max(1, high // 32):
        # Doubled from one image on until one is too many.
        middle = min((low + high) // 2, max(1, 2 * low))
        try:
            smaller = protocol.model_copy(update={"batch_size": middle})
            timed(make_step(candidate, mode, smaller, device, formats(protocol)[0]), 2, device)
            low = middle
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            high = middle
        torch.cuda.empty_cache()
    return low or None


@contextmanager
def bounded(device: str) -> Iterator[None]:
    """Let a CPU's allocations beyond the memory that is free fail.

    Linux grants them, and later kills the process that uses them.
    """
    if _is_cuda(device):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + _free_bytes(), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _free_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory that this process may still use: what the machine has, a container or a limit leaves."""
    free = [int(psutil.virtual_memory().available)]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        free.append(limit - psutil.Process().memory_info().vms)
    with suppress(OSError, ValueError):  # no container, or one without a limit
        free.append(int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text()))
    return max(0, min(free))


def out_of_memory(error: Exception) -> bool:
    """Tell whether an error means that memory ran out, on either kind of device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def peak_memory(candidate: Candidate, mode: Mode, protocol: Protocol) -> int:
    """Return the most bytes that a CPU holds for one step: weights, images, gradients and what lies between."""
    format_ = formats(protocol)[0]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        timed(make_step(candidate, mode, protocol, "cpu", format_), 1, "cpu")
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def formats(protocol: Protocol) -> tuple[MemoryFormat, ...]:
    """Return the memory formats that a protocol asks for."""
    return tuple(FORMATS) if protocol.memory_format == "best" else (protocol.memory_format,)


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"


def _captured(step: Step, device: str) -> Step:
    """Record the step as a CUDA graph, whose replay needs no host between its kernels."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _allocated(device: str) -> int:
    return torch.cuda.memory_allocated(device) if _is_cuda(device) else 0


def _cuda_peak(step: Step, before: int, device: str) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
