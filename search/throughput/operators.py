"""Where a step's time goes: every operator timed and counted, by layer and by kind."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_modules.precision import resolve_device
from search.throughput import quiet
from search.throughput.protocol import Mode, Protocol
from search.throughput.roofline import Roofline, measure_roofline
from search.throughput.steps import Candidate, Step, bounded, formats, make_step, timed
from space.operators import kind_of, macs_of

FEWEST, REPEATS, LONG_ENOUGH = 3, 15, 4.0  # steps; seconds


@dataclass(frozen=True)
class Operator:
    """What one kind of operator takes in one layer and phase of one step.

    `layer` is the module's path, empty outside the network; `phase` is forward, backward or update (the
    optimiser's step). `bytes` are all that its calls read and write, as if no cache kept anything between calls.
    """

    layer: str
    kind: str
    phase: str
    seconds: float
    macs: int
    bytes: int


@dataclass(frozen=True)
class Breakdown:
    """The operators of a step of `images` images, and the step's own time, measured without watching them."""

    images: int
    step_seconds: float
    operators: tuple[Operator, ...]

    @property
    def accounted(self) -> float:
        """The operators' time as a share of the step's; what lacks is spent between them, above all in Python."""
        return sum(one.seconds for one in self.operators) / self.step_seconds

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the step."""
        return sum(one.macs for one in self.operators)

    @property
    def bytes(self) -> int:
        """Bytes that the step's operators read and write."""
        return sum(one.bytes for one in self.operators)

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Return seconds, macs and bytes of each kind of operator, the slowest first."""
        return self.grouped(lambda one: one.kind)

    def grouped(self, name: Callable[[Operator], str]) -> dict[str, dict[str, float]]:
        """Return seconds, macs and bytes of the operators that share a name, the slowest first."""
        found: dict[str, dict[str, float]] = {}
        for one in self.operators:
            total = found.setdefault(name(one), {"seconds": 0.0, "macs": 0, "bytes": 0})
            total["seconds"] += one.seconds
            total["macs"] += one.macs
            total["bytes"] += one.bytes
        return dict(sorted(found.items(), key=lambda entry: -entry[1]["seconds"]))

    def lasting(self, step_seconds: float) -> "Breakdown":
        """Return the same as it is where the step takes so long: every operator's time scaled alike."""
        factor = step_seconds / self.step_seconds
        operators = tuple(replace(one, seconds=one.seconds * factor) for one in self.operators)
        return Breakdown(self.images, step_seconds, operators)

    def condensed(self) -> "Breakdown":
        """Return the same without layers and phases."""
        kinds = self.by_kind().items()
        operators = (
            Operator("", kind, "", part["seconds"], int(part["macs"]), int(part["bytes"])) for kind, part in kinds
        )
        return Breakdown(self.images, self.step_seconds, tuple(operators))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        return cls(data["images"], data["step_seconds"], tuple(Operator(**one) for one in data["operators"]))


@dataclass(frozen=True)
class Explained:
    """The machine's roofline and, by name and mode, what the networks' steps are made of."""

    roofline: Roofline
    breakdowns: dict[str, dict[str, Breakdown]]


def explain(
    candidates: Mapping[str, Candidate],
    *,
    modes: Sequence[Mode],
    protocol: Protocol,
    device: str,
    on_progress: Callable[[float, float], None] | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Explained:
    """Measure the roofline, then break down every candidate's steps; the device is had alone meanwhile.

    Raises what building and running a candidate raises.
    """
    device = resolve_device(device)
    with quiet.measuring(device, on_wait), protocol.applied():
        roofline = measure_roofline(device, protocol.precision)
        found: dict[str, dict[str, Breakdown]] = {}
        for number, (name, candidate) in enumerate(candidates.items()):
            if on_progress is not None:
                on_progress(number, len(candidates))
            found[name] = {mode: break_down(candidate, mode, protocol, device) for mode in modes}
    return Explained(roofline, found)


def break_down(candidate: Candidate, mode: Mode, protocol: Protocol, device: str) -> Breakdown:
    """Time and count every operator of a step, in eager mode, whatever the protocol says of compilation.

    Each call is timed by itself, on a GPU by events around it; of several steps the median is taken call by call.
    Steps that are watched alternate with steps that are not, whose time the operators' must add up to.
    """
    eager = protocol.model_copy(update={"compile": False})
    with bounded(device):
        step = make_step(candidate, mode, eager, device, formats(protocol)[0], watched=True)
        timed(step, 2, device)
    whole: list[float] = []
    watched: list[list[_Call]] = []
    repeats = min(REPEATS, protocol.max_rounds)
    while len(whole) < min(FEWEST, repeats) or (len(whole) < repeats and sum(whole) < LONG_ENOUGH):
        whole.append(timed(step, 1, device))
        watched.append(_watch(step, device))
    return Breakdown(protocol.images(mode), median(whole), _medians(watched))


@dataclass
class _Call:
    layer: str
    kind: str
    phase: str
    macs: int
    bytes: int
    seconds: Callable[[], float]


def _watch(step: Step, device: str) -> list[_Call]:
    with _Layers() as layers, _Watched(layers, torch.device(device).type == "cuda") as seen:
        step()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    calls: list[_Call] = seen.calls
    return calls


class _Layers:
    """Knows which layer runs: in the forward pass by hooks on modules, in the backward pass by hooks on its nodes.

    A node of the autograd graph belongs to the innermost module during whose call it was made.
    """

    def __init__(self) -> None:
        self.names: dict[nn.Module, str] = {}
        self.stack: list[str] = []
        self.backward = ""
        self.owned: set[Any] = set()

    def __enter__(self) -> Self:
        self.hooks = [register_module_forward_pre_hook(self._enter), register_module_forward_hook(self._leave)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self.hooks:
            hook.remove()

    @property
    def in_backward(self) -> bool:
        """Whether autograd runs."""
        return bool(torch._C._current_graph_task_id() != -1)

    @property
    def now(self) -> str:
        """The innermost layer's path; empty outside the network."""
        return self.backward if self.in_backward else self.stack[-1] if self.stack else ""

    def _enter(self, module: nn.Module, args: Any) -> None:
        if not self.stack:
            self.names = {inner: name for name, inner in module.named_modules()}
        self._own(args)  # made by the caller since its last call
        self.stack.append(self.names.get(module, ""))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._own(output)
        self.stack.pop()

    def _own(self, tensors: Any) -> None:
        name = self.stack[-1] if self.stack else ""

        def run(*_: Any) -> None:
            self.backward = name

        todo = [leaf.grad_fn for leaf in tree_leaves(tensors) if isinstance(leaf, torch.Tensor)]
        while todo:
            node = todo.pop()
            if node is not None and node not in self.owned:
                self.owned.add(node)
                node.register_prehook(run)
                todo += [before for before, _ in node.next_functions]


def _medians(steps: Sequence[Sequence[_Call]]) -> tuple[Operator, ...]:
    totals: dict[tuple[str, str, str], list[float]] = {}
    for calls in zip(*steps, strict=True):
        first = calls[0]
        total = totals.setdefault((first.layer, first.kind, first.phase), [0.0, 0, 0])
        total[0] += median(call.seconds() for call in calls)
        total[1] += first.macs
        total[2] += first.bytes
    return tuple(Operator(*key, seconds, int(macs), int(moved)) for key, (seconds, macs, moved) in totals.items())


class _Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Times and counts every operator that is not a view."""

    def __init__(self, layers: _Layers, cuda: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers, self.cuda = layers, cuda
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.is_view or not func._schema.name.startswith("aten::"):
            return func(*args, **kwargs)
        if self.cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            out = func(*args, **kwargs)
            end.record()

            def seconds() -> float:
                return float(begin.elapsed_time(end)) / 1000
        else:
            started = time.perf_counter()
            out = func(*args, **kwargs)
            spent = time.perf_counter() - started

            def seconds() -> float:
                return spent

        layer = self.layers.now
        phase = "backward" if self.layers.in_backward else "forward" if layer or not _updates(func) else "update"
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.calls.append(_Call(layer, kind_of(func, args), phase, macs_of(func, args, kwargs, out), moved, seconds))
        return out


def _updates(func: Any) -> bool:
    name = func._schema.name.removeprefix("aten::")
    return bool(name.endswith("_") or name.startswith("_foreach"))
