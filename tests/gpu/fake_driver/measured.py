"""Runs in a child process on the fake driver: the NVDEC measurements of ``make gpu-check``, on a small clip.

Their numbers mean nothing here; that they come to an end and free what they took does."""

import json
import sys
from types import ModuleType, SimpleNamespace, TracebackType

from pipeline.backends import cuda_device
from tests.gpu.check.measure import nvdec
from tests.gpu.fake_driver.harness import FakeStream, free_memory, live, prepare


class Device:
    """What the measurements use of ``cupy.cuda.Device``."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def synchronize(self) -> None: ...


def main() -> None:
    cupy = ModuleType("cupy")
    memory = SimpleNamespace(memGetInfo=lambda: (3 << 30, 4 << 30))
    vars(cupy)["cuda"] = SimpleNamespace(
        Device=Device, Stream=lambda non_blocking: FakeStream(), runtime=memory
    )
    sys.modules["cupy"] = cupy
    vars(cuda_device).update(open_stream=FakeStream, memory=free_memory)
    found = prepare(sys.argv[1])
    vars(nvdec).update(packets=lambda: found, WARM_S=0.1, WINDOW_S=0.3, DECODERS=(1, 2))
    rows = {"nvdec": nvdec.nvdec(), "live": live(), "memory": nvdec.memory()}
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
