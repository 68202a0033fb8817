"""What must not leak, what people typed and is not to be run, and what is read without running it."""

import ast
import gzip
import io
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import psutil
import pytest
import yaml
from optuna.trial import TrialState, create_trial
from pytest_postgresql.janitor import DatabaseJanitor
from rich.console import Console
from sqlalchemy import MetaData, create_engine, select

from search import cli
from search.forecast import print_forecast
from search.progress import LiveProgress
from search.run import main
from search.storage import masked, open_storage
from search.study import load_study
from search.sync import main as sync
from search.tracking import Copy, check_reachable
from search.worker import main as join
from space import Architecture
from space.errors import InputError, without_passwords

ROOT = Path(__file__).parents[2]
SECRET = "planted-secret"
PATIENCE = 240.0
# Passwords as they stand in URLs, right and wrong: each holds the word that must not be told.
URLS = [
    f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/studies",
    f"postgresql+psycopg://me:a%40{SECRET}@127.0.0.1:1/studies",
    f"postgresql+psycopg://me:a@{SECRET}@127.0.0.1:1/studies",
    f"postgresql+psycopg://me:a/{SECRET}@127.0.0.1:1/studies",
    f"postgresql+psycopg://me:a[{SECRET}@127.0.0.1:1/studies",
    f"postgresql+psycopg://me:a {SECRET}@127.0.0.1:1/studies",
    f"postgresql+psycopg://me:{SECRET}@127.0.0.1:port/studies",
    f"postgresql+psycopg://127.0.0.1:1/studies?user=me&password={SECRET}",
    f"postgresql+psycopg://me:{SECRET}",
    f"postgresql:me:{SECRET}",
    f"me:{SECRET}@127.0.0.1/studies",
    f"unheard-of://me:{SECRET}@127.0.0.1:1/studies",
    f"http://me:{SECRET}@127.0.0.1:1",
]


@pytest.fixture
def urls(postgresql_port: int) -> Iterator[tuple[str, str]]:
    """A storage and an MLflow store on PostgreSQL, which takes any password; with one."""
    names = [f"test_{uuid4().hex}" for _ in range(2)]
    login = {"user": "postgres", "host": "127.0.0.1", "port": postgresql_port}
    storage, tracking = (f"postgresql+psycopg://postgres:{SECRET}@127.0.0.1:{postgresql_port}/{name}" for name in names)
    with DatabaseJanitor(**login, dbname=names[0]), DatabaseJanitor(**login, dbname=names[1]):
        yield storage, tracking


def everything(url: str) -> str:
    """Return all rows of all tables of a database as text."""
    engine = create_engine(url)
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return "\n".join(str(row) for table in metadata.sorted_tables for row in connection.execute(select(table)))


def assert_clean(folder: Path, *told: str) -> None:
    assert not [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    for text in told:
        assert SECRET not in text


def test_a_password_goes_nowhere(
    urls: tuple[str, str],
    miniature: list[str],
    write_study: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    storage, tracking = urls
    stores = ("--storage", storage, "--tracking-uri", tracking)
    arms = {"baseline": {}, "too large for any machine": {"change": {"widths.0": 65_536, "mlp_ratios.0": 64}}}
    small = [part for change in miniature for part in ("--set", change)]
    study = ("--study", write_study(arms=arms), "--scale", "laptop", *small)
    monkeypatch.chdir(tmp_path)

    args = [sys.executable, "-m", "search.run", *study, "--seeds", "1", "--workers", "2", *stores]
    lines: list[list[str]] = []
    engine = psutil.Popen(args, env={**os.environ, "PYTHONPATH": str(ROOT)})
    end = time.monotonic() + PATIENCE
    while engine.poll() is None:
        assert time.monotonic() < end
        for child in engine.children(recursive=True):
            with suppress(psutil.Error):  # it ended meanwhile
                lines.append(child.cmdline())
        time.sleep(0.05)
    assert engine.returncode == 0
    # Between fork and exec a child still shows its parent's line, which is the user's own.
    own = [line for line in lines if line != args]
    assert any("search.worker" in line for line in own)
    assert SECRET not in str(own)

    assert main([*study, "--seeds", "2", "--json", *stores]) == 0
    assert sync(["--study", "my_study", *stores]) == 0
    assert join(["--study", "my_study", "--storage", storage]) == 0
    assert main(["--study", "my_study", "--export", "moved", "--storage", storage]) == 0
    out, err = capfd.readouterr()
    assert '"trials": {"complete": 2, "fail": 2}' in out
    assert "too large for any machine, seed 1: failed" in err
    records, copies = everything(storage), everything(tracking)
    assert records.count("Traceback (most recent call last)") == 2
    assert "too large for any machine" in copies
    (tmp_path / "unpacked").write_bytes(gzip.decompress((tmp_path / "moved").read_bytes()))
    assert_clean(tmp_path, out, err, records, copies)


@pytest.mark.parametrize("url", URLS)
def test_a_store_that_cannot_be_opened_keeps_its_password(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study(study_name="mine-laptop", storage="sqlite:///studies.db")
    study.set_user_attr("definition", {})
    given = ("--study", "mine", "--out", ".")
    assert main(["--study", "kernel_ablation", "--storage", url]) == 2
    assert join(["--study", "mine", "--storage", url]) == 2
    assert sync([*given, "--storage", url]) == 2
    assert sync([*given, "--tracking-uri", url]) == 2
    out, err = capsys.readouterr()
    assert len(err.strip().splitlines()) == 4
    assert_clean(tmp_path, out, err, masked(url))
    # In a notebook the whole chain of errors is shown.
    for opened in (open_storage, check_reachable):
        with pytest.raises(InputError) as caught:
            opened(url)
        chain: BaseException | None = caught.value
        while chain is not None:
            assert SECRET not in str(chain)
            chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)


@contextmanager
def broken_server() -> Iterator[int]:
    """A server that can be reached, and hangs up when it is asked anything."""

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.close()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), HangUp) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_an_mlflow_server_that_hangs_up_does_not_tell_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    study = optuna.create_study(study_name="mine-laptop", storage=f"sqlite:///{tmp_path / 'studies.db'}")
    study.set_user_attr("definition", {})
    told: list[str] = []
    with broken_server() as port:
        uri = f"http://me:{SECRET}@127.0.0.1:{port}"
        copy = Copy(uri, study=study, definition={}, out=tmp_path, tell=told.append)
        copy.do(lambda tracker: tracker.sync())
        assert sync(["--study", "mine", "--out", str(tmp_path), "--tracking-uri", uri]) == 2
    out, err = capsys.readouterr()
    assert f"http://me:***@127.0.0.1:{port}" in told[0]
    assert len(err.strip().splitlines()) == 1
    assert_clean(tmp_path, *told, out, err)


@pytest.mark.parametrize("url", [url for url in URLS if "://" in url and " " not in url])
def test_a_command_is_repeated_without_its_passwords(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = cli.command("search.run", ["--study", "mine", "--storage", url, f"--tracking-uri={url}"])
    assert shown.startswith("python -m search.run --study mine --storage")
    assert SECRET not in shown
    with pytest.raises(SystemExit):
        main(["--sturage", url])
    err = capsys.readouterr().err
    assert "unrecognized arguments" in err
    assert SECRET not in err


@pytest.mark.parametrize(
    "text",
    ["http://127.0.0.1:5000, or http://[::1]:80/x", "sqlite:////a/b:c@d/x.db", "postgresql://me@h:5432/db", "a:b@c"],
)
def test_what_holds_no_password_stays_as_it_is(text: str) -> None:
    assert without_passwords(text) == text


def test_names_are_text_on_a_terminal(write_study: Callable[..., str]) -> None:
    study = load_study(write_study(arms={"baseline": {}, "[/] [red]": {"factor": "[/]"}}), "laptop")
    console = Console(force_terminal=True, width=200, file=(text := io.StringIO()))
    print_forecast(study, console, as_json=False)
    with LiveProgress(console, 1, 0) as progress:
        progress.started(0, "[/] [red]")
        progress.finished(create_trial(state=TrialState.FAIL, user_attrs={"arm": "[/] [red]", "failure": "[/]"}))
    assert text.getvalue().count("[/] [red]") >= 3


@pytest.mark.parametrize("how", ["study", "scale", "set", "architecture"])
def test_yaml_runs_nothing(write_study: Callable[..., str], tmp_path: Path, how: str) -> None:
    ran = tmp_path / "ran"
    tag = f"!!python/object/apply:os.mkdir [{ran}]"
    yaml.unsafe_load(tag)  # it would, if it were let
    assert ran.exists()
    ran.rmdir()
    file = tmp_path / "given.yaml"
    file.write_text(f"question: {tag}\n")
    with pytest.raises(InputError, match="YAML"):
        match how:
            case "study":
                load_study(str(file))
            case "scale":
                load_study("kernel_ablation", str(file))
            case "set":
                load_study("kernel_ablation", overrides=[f"question={tag}"])
            case "architecture":
                Architecture.load(file)
    assert not ran.exists()


RUNS_WHAT_IT_READS = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
}
CALLS = {
    *("eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("pd.read_pickle", "pandas.read_pickle"),
}


def unsafe(source: str) -> list[str]:
    """Name what in a module runs what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.partition(".")[0] in RUNS_WHAT_IT_READS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in RUNS_WHAT_IT_READS:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {one.arg: ast.unparse(one.value) for one in node.keywords}
            if (
                called in CALLS
                or (called == "torch.load" and given.get("weights_only") != "True")
                or (called.endswith("np.load") and given.get("allow_pickle", "False") != "False")
                or given.get("shell", "False") != "False"
            ):
                found.append(ast.unparse(node))
    return found


def test_the_loader_of_yaml_makes_plain_values_alone() -> None:
    tree = ast.parse((ROOT / "space/reading.py").read_text())
    bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    assert bases == ["yaml.SafeLoader"]


def test_no_module_runs_what_it_reads() -> None:
    modules = [path for room in ("search", "space", "lightning_modules") for path in (ROOT / room).rglob("*.py")]
    assert len(modules) > 50
    found = {path.relative_to(ROOT): unsafe(path.read_text()) for path in modules}
    found[Path("space/reading.py")].remove("yaml.load(text, Loader=_Loader)")  # see above
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from dill import load", "import joblib.memory", "eval(text)", "exec(text)"),
        *("torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)"),
        *("yaml.load(text)", "yaml.unsafe_load(text)", "os.system(text)", "subprocess.run(text, shell=True)"),
    ],
)
def test_what_would_run_it_is_seen(source: str) -> None:
    assert unsafe(source)
    assert not unsafe("torch.load(path, weights_only=True); network.eval(); yaml.safe_load(text)")


def test_mlflow_is_served_on_loopback_alone() -> None:
    lines = subprocess.run(["make", "-n", "ui"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    [command] = [line.split() for line in lines.splitlines() if "mlflow ui" in line]
    assert command[command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages audited, 0 vulnerabilities found"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}],
            1,
            "a 1: CVE-1, fixed in 2",
        ),
        ([{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "?"}], 0, "not audited: b"),
        ([{"name": "b", "skip_reason": "not found"}], 2, "nothing was audited: the service knows none of 1 packages"),
        (None, 2, "nothing was audited: no network"),
    ],
)
def test_an_audit_that_audits_nothing_does_not_pass(tmp_path: Path, answer: Any, code: int, told: str) -> None:
    said = json.dumps({"dependencies": answer, "fixes": []})
    program = f"print({said!r})" if answer is not None else "raise SystemExit('no network')"
    (tmp_path / "pip_audit.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/audit.py"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == code
    assert told in done.stdout + done.stderr
