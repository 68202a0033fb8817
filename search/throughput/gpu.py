"""What NVML tells of an NVIDIA GPU: who else uses it, its clocks and why they fell, its energy. Read, never set."""

import os
from typing import Any, Self

import psutil
import pynvml
import torch

# Reasons that lower the clocks below what the load asks for (nvml.h, nvmlClocksEventReasons).
THROTTLING = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal, by software",
    0x40: "thermal, by hardware",
    0x80: "power brake",
}
SLOWER = 0.9


class Gpu:
    """One GPU, read through NVML."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml, self.handle = nvml, handle
        self.clocks: list[int] = []
        self.temperatures: list[int] = []
        self.reasons = 0
        self.others = 0

    @classmethod
    def of(cls, device: str) -> Self | None:
        """Return the GPU of a torch device; None for a CPU, or where NVML does not answer."""
        if torch.device(device).type != "cuda":
            return None
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        try:
            pynvml.nvmlInit()
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}".encode()))
        except pynvml.NVMLError:
            return None

    def driver(self) -> str:
        """Return the driver's version."""
        return str(self._read("nvmlSystemGetDriverVersion", own=False) or "unknown")

    def sample(self) -> None:
        """Read clocks, temperature, throttle reasons and processes."""
        nvml = self.nvml
        if (clock := self._read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM)) is not None:
            self.clocks.append(clock)
        if (degrees := self._read("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)) is not None:
            self.temperatures.append(degrees)
        self.reasons |= self._read("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        running = self._read("nvmlDeviceGetComputeRunningProcesses") or []
        pids = {process.pid for process in running}
        # In a container NVML names processes as the host does: our own is then one of the unknown.
        self.others = max(self.others, len(pids) - max(1, len(pids & _own_pids())))

    def energy(self) -> float | None:
        """Return the joules used since the driver was loaded, None where the GPU does not count them."""
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000

    def judge(self, flags: list[str], facts: dict[str, float]) -> None:
        """Add what the readings say."""
        if self.clocks:
            facts |= {"sm_clock_low_MHz": min(self.clocks), "sm_clock_high_MHz": max(self.clocks)}
            if min(self.clocks) < SLOWER * max(self.clocks):
                flags.append(f"GPU clock: fell to {min(self.clocks)} MHz from {max(self.clocks)} MHz")
        if self.temperatures:
            facts["temperature_high_C"] = max(self.temperatures)
        flags += [f"GPU throttling: {text}" for bit, text in THROTTLING.items() if self.reasons & bit]
        if self.others:
            flags.append(f"other load: {self.others} other process(es) on the GPU")

    def _read(self, name: str, *args: Any, own: bool = True) -> Any:
        try:
            return getattr(self.nvml, name)(*([self.handle] if own else []), *args)
        except self.nvml.NVMLError:
            return None


def _own_pids() -> set[int]:
    return {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
