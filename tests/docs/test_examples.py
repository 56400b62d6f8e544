"""Every example of README.md and docs/ runs as it stands there.

Of a page, all ``python`` blocks run in order, in one namespace and an empty folder; those with
``>>>`` must print what they show. A block that begins with ``# name.py`` (or ``# name.toml``) is
also a file of that name. Commands run in between, with one epoch and one seed; those in ``console``
blocks must print what stands below them.
"""

from __future__ import annotations

import doctest
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fdfa.cli import main
from fdfa.cli.parsing import parse
from tests.docs.pages import ROOT, Block, Command, blocks, commands, pages, script_name

CHECKED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NOT_RUN = ("text", "{eval-rst}", "{include}", "{toctree}")
SHORT = {
    "train": ["--epochs", "1"],
    "compare": ["--epochs", "1", "--seeds", "1", "--timing-rounds", "10"],
}


def _scripts_of_torchrun(page: Path) -> set[str]:
    found = [command for block in blocks(page) for command in commands(block)]
    return {command.words[-1] for command in found if command.words[0] == "torchrun"}


def _has_examples(page: Path) -> bool:
    return any(block.language in ("python", "sh", "console") for block in blocks(page))


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in pages() if _has_examples(page)], ids=_id)
def test_examples(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        script = script_name(block)
        if script:
            Path(script).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            with monkeypatch.context() as patch:
                if script in _scripts_of_torchrun(page):
                    _as_the_only_process(patch)
                _run_python(page, block, names)
        for command in commands(block):
            capsys.readouterr()
            _run_command(command)
            if command.output:
                _compare(command.output, capsys.readouterr().out)


@pytest.mark.parametrize("page", pages(), ids=_id)
def test_no_block_is_passed_over(page: Path) -> None:
    """An example in a language that nobody runs, or in an indented fence, would rot unseen."""
    languages = {block.language for block in blocks(page)}
    assert languages <= {"python", "sh", "console", "toml", *NOT_RUN}
    assert not re.search(r"^[ >]+(```|~~~)", page.read_text(encoding="utf-8"), re.MULTILINE)


def _run_python(page: Path, block: Block, names: dict[str, Any]) -> None:
    if ">>> " not in block.text:
        code = compile("\n" * block.line + block.text, page, "exec")
        exec(code, names)  # noqa: S102  # the page's own example
        return
    example = doctest.DocTestParser().get_doctest(
        block.text, names, page.name, str(page), block.line
    )
    found: list[str] = []
    runner = doctest.DocTestRunner(optionflags=CHECKED, verbose=False)
    runner.run(example, out=found.append, clear_globs=False)
    names.update(example.globs)
    if found:
        pytest.fail("".join(found), pytrace=False)


def _as_the_only_process(patch: pytest.MonkeyPatch) -> None:
    """What torchrun tells a process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": port}
    for name, value in {**told, "MASTER_ADDR": "127.0.0.1"}.items():
        patch.setenv(name, value)


def _run_command(command: Command) -> None:
    program, *arguments = command.words
    if program == "fdfa":
        if _needs_files(arguments):
            parse(arguments)
        else:
            assert main([*arguments, *SHORT.get(arguments[0], [])]) == 0, command.words
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program == "torchrun":
        assert Path(arguments[-1]).is_file(), f"{arguments[-1]} is no block of this page"
    elif command.words != ["pip", "install", "."]:
        pytest.fail(f"nothing checks the command {command.words}")


def _needs_files(arguments: list[str]) -> bool:
    """Whether a command wants data, or time, that is not here: its words alone are checked."""
    if arguments[0] in ("data", "reproduce"):  # the reproductions take their time besides
        return arguments[1] != "list"
    return "--data" in arguments and arguments[arguments.index("--data") + 1] != "digits"


def _compare(shown: str, printed: str) -> None:
    checker = doctest.OutputChecker()
    if not checker.check_output(shown, printed, CHECKED):
        example = doctest.Example("", shown)
        pytest.fail(checker.output_difference(example, printed, CHECKED), pytrace=False)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("page", [page for page in pages() if _scripts_of_torchrun(page)], ids=_id)
def test_scripts_under_torchrun(page: Path, tmp_path: Path) -> None:
    """In two processes."""
    scripts = {script_name(block): block.text for block in blocks(page)}
    for script in _scripts_of_torchrun(page):
        (tmp_path / script).write_text(scripts[script], encoding="utf-8")
        done = _under_torchrun(tmp_path / script)
        if "terminate called without an active exception" in done.stderr:
            # pytorch#190489: gloo's threads may abort a process that has done its work and exits,
            # whatever it trained. Not twice in a row.
            done = _under_torchrun(tmp_path / script)
        assert done.returncode == 0, done.stderr


def _under_torchrun(script: Path) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*start, str(script)],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
