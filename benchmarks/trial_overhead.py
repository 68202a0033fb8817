"""What the workbench adds to training: a trial, and a study, against bare PyTorch loops doing the same.

    python -m benchmarks.trial_overhead [--rounds 5]

Each round times a bare loop and a trial, in alternating order, and then reports the ratio within the round, so that
drift of the machine hits both alike. The study is timed as a user runs it, without its start-up: planning, claiming,
training, records, the MLflow copy and the report; its throughput measurement is left out on both sides.
"""

import argparse
import copy
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import optuna
import pytorch_lightning as pl
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.nn.functional import cross_entropy

from lightning_modules.data import Data
from lightning_modules.loaders import eval_loader, train_loader
from lightning_modules.recipe import Recipe
from search.analysis import load, write_report
from search.evaluate import evaluate
from search.plan import Job, jobs, open_study
from search.progress import LineProgress
from search.storage import open_storage
from search.study import Study, load_study
from search.tracking import Tracker
from search.worker import Worker
from space import build


def bare_loop(job: Job, data: Data, recipe: Recipe) -> float:
    """Train as a trial does, with nothing around it; return the test accuracy in percent."""
    pl.seed_everything(job.seed, verbose=False)
    network = build(job.architecture).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(network, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay)
    batches = train_loader(data, recipe, job.seed, "cpu")
    schedule, _ = create_scheduler_v2(
        optimizer,
        num_epochs=recipe.epochs,
        warmup_epochs=recipe.warmup_epochs,
        warmup_lr=recipe.warmup_lr,
        min_lr=recipe.min_lr,
        step_on_epochs=False,
        updates_per_epoch=len(batches),  # type: ignore[arg-type]
    )
    schedule.step_update(0)
    step, best, kept = 0, -1.0, {}
    for _ in range(recipe.epochs):
        network.train()
        for images, labels in batches:
            loss = cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            schedule.step_update(step)
        accuracy = _accuracy(network, eval_loader(data, data.val, recipe, "cpu"))
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return _accuracy(network, eval_loader(data, data.test, recipe, "cpu"))


def _accuracy(network: torch.nn.Module, batches: Any) -> float:
    network.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in batches:
            right += int((network(images).argmax(1) == labels).sum())
            total += len(labels)
    return 100 * right / total


def trial_ratios(study: Study, rounds: int) -> list[float]:
    """Return a trial's wall time over the bare loop's, a number a round."""
    data, job = study.data.load(), jobs(study)[0]
    ratios = []
    for number in range(rounds):
        seconds: dict[str, float] = {}
        for name in ("bare", "trial") if number % 2 else ("trial", "bare"):
            started = time.perf_counter()
            if name == "bare":
                accuracy = bare_loop(job, data, study.recipe)
            else:
                record = evaluate(
                    job,
                    data=data,
                    recipe=study.recipe,
                    throughput={},
                    device="cpu",
                    workdir=Path(tempfile.gettempdir()),
                )
            seconds[name] = time.perf_counter() - started
        assert abs(accuracy - record["test_accuracy"]) < 1e-3, "the two do not train alike"
        ratios.append(seconds["trial"] / seconds["bare"])
        print(f"  round {number + 1}: bare {seconds['bare']:.2f} s, trial {seconds['trial']:.2f} s", flush=True)
    return ratios


def study_ratio(study: Study) -> float:
    """Return a whole study's wall time, the measurement of throughput left out, over the sum of its bare loops."""
    from rich.console import Console

    data = study.data.load()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        storage = open_storage(f"sqlite:///{out / 'studies.db'}")
        tracker_uri = f"sqlite:///{out / 'mlflow.db'}"
        Tracker(tracker_uri, study=optuna.create_study(study_name="warm-up"), definition={}, out=out)
        watcher = LineProgress(Console(quiet=True), len(jobs(study)), 0)
        opened = open_study(study, storage)
        worker = Worker(study, opened, storage, data=data, device="cpu", workdir=out / "work", watcher=watcher)
        worker.measure()
        started = time.perf_counter()
        tracker = Tracker(tracker_uri, study=opened, definition=opened.user_attrs["definition"], out=out)
        worker.run()
        tracker.sync()
        tracker.log_report(write_report(load(study.full_name, storage=storage), out / "report", command=""))
        whole = time.perf_counter() - started
    started = time.perf_counter()
    for job in jobs(study):
        bare_loop(job, data, study.recipe)
    return whole / (time.perf_counter() - started)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = load_study("kernel_ablation")
    print("a trial over a bare loop:")
    ratios = trial_ratios(study, args.rounds)
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    print(f"  ratio {median(ratios):.3f} [{low:.3f} … {high:.3f}], median and quartiles of {len(ratios)} rounds")
    small = load_study("norm_ablation", "laptop", ["seeds=2"])
    print(f"a study of {len(jobs(small))} trials over the sum of bare loops: ratio {study_ratio(small):.3f}")


if __name__ == "__main__":
    main()
