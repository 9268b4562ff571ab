"""Children answer, and what kills one is reported and does not reach the next request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import child
import pytest
from child import Child, DiedError

SCRIPT = f"""
import os, sys
sys.path.insert(0, {str(Path(child.__file__).parent)!r})
from child import serve

def answer(what):
    if what == "spin":
        while True:
            pass
    if what == "memory":
        return len(bytearray(1 << 30))
    if what == "exit":
        print("bye", file=sys.stderr)
        os._exit(3)
    print("noise on stdout")
    return what.upper()

serve(answer, 512 << 20, 0.5)
"""


@pytest.fixture
def shouting(tmp_path: Path) -> Iterator[Child]:
    script = tmp_path / "shout.py"
    script.write_text(SCRIPT)
    made = Child(script, timeout=60)
    yield made
    made.close()


def test_it_answers_and_keeps_its_process(shouting: Child) -> None:
    assert shouting.ask("a") == "A"
    pid = shouting.pid
    assert [shouting.ask(word) for word in ("b", "c")] == ["B", "C"]
    assert shouting.pid == pid
    assert "noise" in shouting.said()


def test_what_its_function_raises_is_raised_here(shouting: Child) -> None:
    with pytest.raises(AttributeError, match="upper"):
        shouting.ask(7)
    assert shouting.ask("a") == "A"


def test_too_much_memory_is_an_error(shouting: Child) -> None:
    with pytest.raises(MemoryError):
        shouting.ask("memory")


@pytest.mark.parametrize(("what", "how"), [("spin", "exit -27"), ("exit", "exit 3: bye")])
def test_death_is_reported_and_another_answers(shouting: Child, what: str, how: str) -> None:
    with pytest.raises(DiedError, match=how):
        shouting.ask(what)
    assert shouting.ask("a") == "A"
