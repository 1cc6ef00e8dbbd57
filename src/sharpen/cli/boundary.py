"""Where errors end: a user's mistake becomes one paragraph, a bug becomes a file with its traceback."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from sharpen.errors import DivergedError, GraderError, Interrupted, SharpenError
from sharpen.runs.store import resume_command

BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE has ended
GOES_ON = (Interrupted, GraderError, DivergedError)
"""Errors after which a run can be resumed as it is, or with `--set`."""


def guarded(action: Callable[[Namespace], int], options: Namespace) -> int:
    """Run a command and return its exit code; no exception but, with `--debug`, a bug's comes out."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign shows "?"
    try:
        code = action(options)
        sys.stdout.flush()
        return code
    except SharpenError as error:
        _complain(error, _run_dir(options))
        return error.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return Interrupted.exit_code
    except Exception as error:
        if options.debug:
            raise
        return _confess(error, _run_dir(options))


def _run_dir(options: Namespace) -> Path | None:
    """The run directory that the command was at work in, once it is one."""
    folder = getattr(options, "folder", None)
    return folder if isinstance(folder, Path) and (folder / "recipe.yaml").is_file() else None


def _complain(error: SharpenError, folder: Path | None) -> None:
    text = str(error) if isinstance(error, Interrupted) else f"{_red('error:')} {error}"
    if folder is not None and isinstance(error, GOES_ON) and resume_command(folder) not in text:
        text += f"\nGo on with: {resume_command(folder)}"
    print(text, file=sys.stderr)


def _confess(error: Exception, folder: Path | None) -> int:
    """Write the traceback into the run directory, or else to a temporary file, and name it."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    story = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="traceback-", suffix=".txt", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(story)
        where = f"The traceback is in {name}"
    except OSError:
        where = "Its traceback could not be written; run again with --debug to see it"
    print(_red("error:"), f"unexpected {said}. This is a bug in sharpen. {where}", file=sys.stderr)
    return 1


def _red(text: str) -> str:
    return f"\x1b[1;31m{text}\x1b[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text
