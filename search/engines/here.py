"""One worker, in this process."""

from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from search.engines import Run
from search.measurements import Measurements
from search.progress import Watcher
from search.study import Study
from search.worker import Worker


def prepare(study: Study, workdir: Path, *, fresh: bool = False) -> Run:
    """Load the data, find the device, and return what works. Raises InputError for either that is not there.

    `fresh`: throughput that was measured before is measured again.
    """
    data, device = study.load_data(), study.find_device()

    def run(opened: optuna.Study, storage: RDBStorage, watcher: Watcher) -> None:
        outdated = Measurements(opened).counts() if fresh else {}
        Worker(
            *(study, opened, storage),
            data=data,
            device=device,
            workdir=workdir,
            watcher=watcher,
            outdated=outdated,
        ).run()

    return run
