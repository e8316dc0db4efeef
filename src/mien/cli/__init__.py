"""The command line: one function per command. Each imports heavy packages only when it runs.

Exit status: 0 done; 1 a figure that `mien verify` checked does not hold; 2 an error that the user can fix (one line on
stderr); 3 some of several inputs could not be read; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mien import __version__
from mien.atomic import STOPS
from mien.cli.analyse import analyse
from mien.cli.anonymise import anonymise
from mien.cli.camera import camera
from mien.cli.corpora import audit, prepare, split
from mien.cli.doctor import doctor
from mien.cli.evaluate import evaluate
from mien.cli.explain import explain
from mien.cli.export import calibrate, export, push
from mien.cli.figure import app as figure
from mien.cli.label import label
from mien.cli.models import info, models
from mien.cli.observe import observe
from mien.cli.page import page
from mien.cli.predict import predict
from mien.cli.report import report
from mien.cli.serve import serve
from mien.cli.study import study
from mien.cli.terminal import Command, Group
from mien.cli.training import finetune, is_first_process, recipes, train
from mien.cli.verify import verify
from mien.errors import MienError, reason
from mien.provenance import available_cores, core_quotas
from mien.text import printable

app = typer.Typer(
    cls=Group,
    help="Facial expression recognition: photos and videos in, expressions out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mien {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


for group, commands in {
    "Photos and videos": (predict, camera, observe, anonymise, explain),
    "Servers, pages and large collections": (serve, page, label),
    "Models": (models, info, calibrate, export, push),
    "Training": (recipes, train, finetune, study),
    "Measurements": (evaluate, analyse, verify, report),
    "Corpora": (audit, prepare, split),
    "This installation": (doctor,),
}.items():
    for command in commands:
        app.command(cls=Command, rich_help_panel=group)(command)
app.add_typer(figure, name="figure", rich_help_panel="Measurements")


@contextmanager
def stopping() -> Iterator[None]:
    """Let `kill` and a closed terminal end a command as Ctrl-C does, so that the file being written is finished.

    A signal that is ignored, as under `nohup`, stays ignored.
    """
    ours = [number for number in STOPS if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def set_environment() -> None:
    """Set what libraries read when they are imported. Values that the user has set are kept.

    - torch, OpenBLAS and Arrow know the affinity of the process, but not the quota of its container.
    - Matplotlib's list of fonts and torch's compiled code belong into mien's cache.
    """
    if core_quotas():
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    with suppress(RuntimeError):  # this user has no home
        cache = Path(os.environ.get("MIEN_CACHE") or Path.home() / ".cache" / "mien")
        for name, folder in (("MPLCONFIGDIR", "matplotlib"), ("TORCHINDUCTOR_CACHE_DIR", "torch")):
            os.environ.setdefault(name, str(cache.absolute() / folder))


def main() -> None:
    """Run the command line: the entry point of the `mien` script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for file names and bars that the terminal cannot show
    try:
        with stopping():
            app()
    except MienError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not name or name == "mien":
            raise
        _fail(f"this needs the package {name}, which is not installed; run: pip install 'mien[train]'")
    except OSError as error:
        if error.filename is not None:
            _fail(f"{error.filename}: cannot be read or written ({reason(error)}); check the path and who may use it")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python would report the error again at exit
        _fail(f"the output cannot be written ({reason(error)}); free some space or write elsewhere")
    finally:
        if (group := sys.modules.get("torch.distributed")) and group.is_available() and group.is_initialized():
            group.destroy_process_group()  # else its threads may abort the exit


def _fail(message: str) -> NoReturn:
    if is_first_process():
        print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2 if is_first_process() else 0)  # if a helper failed, Fabric would kill the first process before it reports
