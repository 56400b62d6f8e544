"""Completion for a shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fdfa.cli import main
from fdfa.cli.parsing import COMMANDS
from tests.cli.typed import Capture, words


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_that_the_shell_accepts(
    shell: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["--completion", shell]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for word in (*COMMANDS, "--epochs", "--checkpoint-steps", "verify"):
        assert word in captured.out, word
    path = shutil.which(shell)
    if path is not None:
        (tmp_path / "script").write_text(captured.out)
        command = [path, "-n", str(tmp_path / "script")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_completion_in_bash_offers_commands_and_options(tmp_path: Path, capsys: Capture) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    assert main(["--completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    ask = """
    source "$1"; shift
    function=$(complete -p fdfa | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
    $function fdfa "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$((COMP_CWORD - 1))]}"
    printf '%s\\n' "${COMPREPLY[@]}"
    """

    def offered(*typed: str) -> list[str]:
        command = [bash, "-c", ask, "ask", str(tmp_path / "script"), *typed]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return sorted(line.strip() for line in done.stdout.splitlines())

    assert offered("fdfa", "m") == ["methods", "models"]
    assert "--learning-rate" in offered("fdfa", "train", "--le")


@pytest.mark.parametrize(
    "argv", [["--completion"], ["--completion", "fish"], ["--completion", "bash", "x"]]
)
def test_no_completion_for_what_is_no_shell(argv: list[str], capsys: Capture) -> None:
    assert main(argv) == 2
    assert "bash or zsh" in words(capsys.readouterr().err)
