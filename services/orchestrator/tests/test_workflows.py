"""What a declared workflow may be, and the one line that says why it may not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import catalogue, windows
from orchestrator.workflows import WorkflowError

from .declared import HEAD, WORKFLOWS

SHIPPED = Path(__file__).parents[3]
GOOD = "steps:\n  - {id: input, kind: screen}\n"
RELEASE = "  - {id: out, kind: release, needs: [x], from: [x]}\n"


def write(repository: Path, steps: str) -> None:
    """Declare the workflow `bad`."""
    budget = "budget: {model_calls: 1, tool_calls: 1, output_tokens: 10}\n"
    (repository / "domains" / "shop" / "workflows" / "bad.yaml").write_text(f"name: bad{HEAD}{budget}{steps}")


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (GOOD + "  - {id: x, kind: dance, needs: [input]}\n", "step 'x' has the unknown kind 'dance'; known: ['escalate', 'generate',"),
        (GOOD + "  - {id: x, kind: template, needs: [nowhere], text: hi}\n", "step 'x' needs 'nowhere', which is not a step"),
        (
            GOOD + "  - {id: x, kind: template, needs: [y], text: a}\n  - {id: y, kind: template, needs: [x], text: b}\n",
            "steps need each other in a circle: ['x', 'y']",
        ),
        (GOOD + "  - {id: x, kind: tool, needs: [input], tool: rocket, arguments: {}}\n", "calls the tool 'rocket', which is not declared"),
        (GOOD + "  - {id: x, kind: template, needs: [input], when: '1 +', text: a}\n", "step 'x': 'when' does not compile"),
        (GOOD + "  - {id: x, kind: template, needs: [input], text: '{{ later.text }}'}\n", "'text' reads 'later', which it does not need"),
        (GOOD + "  - {id: x, kind: generate, needs: [input], task: nothing@v1}\n" + RELEASE, "names the prompt 'nothing@v1'"),
        (
            GOOD + "  - {id: x, kind: retrieve, needs: [input], collections: [rules, secrets]}\n" + RELEASE,
            "searches ['secrets'], which no domain declares; known: ['policies', 'rules']",
        ),
        (GOOD + "  - {id: x, kind: template, needs: [input], text: a}\n", "no step releases the answer"),
        (
            GOOD + "  - {id: x, kind: template, needs: [], text: a}\n  - {id: x, kind: screen}\n",
            "each step needs an id of its own, got 'x'",
        ),
        ("steps: [oops", "not YAML"),
        ("", "it has no list of steps"),
    ],
)
def test_a_wrong_workflow_is_refused_with_one_line(repository: Path, steps: str, says: str) -> None:
    """The line names the file, the step, what is wrong, and what would be right."""
    write(repository, steps)

    with pytest.raises(WorkflowError) as refused:
        catalogue.load(repository)

    assert says in str(refused.value)
    assert str(refused.value).startswith("domains/shop/workflows/bad.yaml: ")
    assert "\n" not in str(refused.value)


def test_the_process_does_not_start_with_an_unknown_step(repository: Path) -> None:
    """Whoever starts the service reads one line and no traceback."""
    write(repository, GOOD + "  - {id: x, kind: dance, needs: [input]}\n")

    started = subprocess.run([sys.executable, "-m", "orchestrator"], capture_output=True, text=True, check=False, env={**os.environ})

    assert started.returncode == 1
    assert started.stderr.startswith("orchestrator: domains/shop/workflows/bad.yaml: step 'x' has the unknown kind 'dance'")
    assert len(started.stderr.strip().splitlines()) == 1


def test_the_workflows_that_ship_can_be_run() -> None:
    """Every declared workflow of the repository loads, pinned to its files."""
    declared = catalogue.load(SHIPPED)

    assert {"healthcare-triage", "retail-help", "chat", "extract"} <= set(declared.workflows)
    assert all({"workflow", "policy"} <= set(workflow.pins) for workflow in declared.workflows.values())
    assert WORKFLOWS


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("One. Two", "One. "),
        ("Take it [1]. Then", "Take it [1]. "),
        ("Take it. [1] Then", "Take it. [1] "),
        ("Take it. [1]", ""),
        ("Take it. [1, 2] Then", "Take it. [1, 2] "),
        ("Ask Dr. Osei e.g. today", ""),
        ("It is 3.5 mg", ""),
        ("1. First", ""),
        ("A line\nB", "A line\n"),
        ("Open? Yes! No", "Open? Yes! "),
    ],
)
def test_a_text_is_cut_behind_whole_sentences(text: str, complete: str) -> None:
    """Abbreviations, numbers and citations that follow do not end a window."""
    assert windows.split(text) == (complete, text[len(complete) :])
