"""Every command in README.md and docs/ is one that its tool accepts."""

import argparse
import re
import runpy
import shlex
from collections.abc import Iterator

import pytest
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser

from serving.__main__ import PARSER
from tests.imports import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A line of a block that is indented or fenced as sh; and what stands between backticks, over two lines, too.
BLOCK = re.compile(r"(?:^ {4,}(?=\S)|(?<=\n))(?:\. \S+ && )?((?:python -m|dvc|make) [^\n]+)$", re.MULTILINE)
INLINE = re.compile(r"`((?:python3? -m|make) [^`]+)`")
# What stands for one of several stages or variants.
PLACEHOLDER = re.compile(r"stages\.STAGE|explain VARIANT|\.\.\.")
TARGETS = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


class ParsedError(Exception):
    """The tool's own parser has taken the command line."""


def commands() -> Iterator[tuple[str, str]]:
    """Page and command, without comments; `a && b` is two, and what is optional is given."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in [*BLOCK.findall(text), *INLINE.findall(text)]:
            for part in re.split(r"&&|\|(?!\w)", re.sub(r"\s+#.*", "", found)):
                command = " ".join(part.replace("[", "").replace("]", "").split())
                if command.startswith(("python", "dvc ", "make ")) and not re.search(PLACEHOLDER, command):
                    yield page.name, command


COMMANDS = sorted(set(commands()))


def take(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the parser of the tool read the command. Raises SystemExit or DvcParserError if it does not take it."""
    program, *arguments = shlex.split(command)
    if program == "dvc":
        get_main_parser().parse_args(arguments)
        return
    if program == "make":
        assert [word for word in arguments if "=" not in word and word not in TARGETS] == []
        return
    _, module, *arguments = arguments
    if module == "serving":
        PARSER.parse_args(arguments)
        return
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    if "ArgumentParser" not in source and "run_stage" not in source:
        assert not arguments, f"{module} takes no arguments"
        return
    if not arguments and "run_stage" not in source:  # the tool is named, or run with its defaults
        return
    original = argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser, *_: object) -> None:
        original(parser, arguments)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(ParsedError):
        runpy.run_module(module, run_name="__main__")


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_of_a_page_is_taken(page, command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    try:
        take(command, monkeypatch)
    except SystemExit:
        pytest.fail(f"{page}: `{command}` is not taken: {capsys.readouterr().err}")


def test_the_pages_have_the_commands_that_this_test_is_for():
    assert ("README.md", "dvc exp run -S export.opset=20 package@minilm report@minilm") in COMMANDS
    assert ("team.md", "python -m tools.gate --all --base main") in COMMANDS
    assert ("reference.md", "python -m tools.explain fp16 --top 5 --bound 40") in COMMANDS
    assert ("bring-your-own-model.md", "make repro MODEL=digits") in COMMANDS
    assert len(COMMANDS) > 60


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("python -m tools.explain fp16 --topp 5", SystemExit),
        ("python -m serving --prot 1", SystemExit),
        ("dvc exp run --sweep", DvcParserError),
        ("make repo", AssertionError),
        ("python -m tools.repair", FileNotFoundError),
        ("python -m stages.export", SystemExit),
        ("python -m stages.validate minilm fp8", SystemExit),
        ("python -m benchmarks.repeat minilm", SystemExit),
        ("python -m benchmarks.nncf_recipes fp32", AssertionError),
    ],
)
def test_what_no_tool_takes_is_found(command, error, monkeypatch):
    with pytest.raises(error):
        take(command, monkeypatch)
