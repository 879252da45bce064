"""The look at the examples: on the terminal, in what is recorded, on the page; and what the model never sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import probegrid
from probegrid.cell.prepare import prepare
from probegrid.compose import compose_cell
from probegrid.errors import CheckpointError

HIDING = (
    "{% for message in messages if message['role'] != 'system' %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% endfor %}"
)
SHOWING = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"


@pytest.mark.parametrize(("template", "is_seen"), [(HIDING, False), (SHOWING, True)])
def test_a_system_text_that_the_model_never_sees_is_said_and_is_no_leak(
    tmp_path: Path, template: str, is_seen: bool
) -> None:
    (tmp_path / "chat.jinja").write_text(template)
    words = [
        "dataset=facts_statements",
        "dataset.system_prompt=keep",
        "dataset.num_samples=30",
        "probe=logistic",
    ]
    cell = prepare(
        compose_cell([*words, f"model.chat_template={tmp_path / 'chat.jinja'}", "probe.layers=[1]"])
    )
    assert bool(getattr(cell.examples, "leaks")) is is_seen  # noqa: B009  # of statements alone
    said = [note for note in cell.examples.notes if "never sees it" in note]
    assert len(said) == (not is_seen)


@pytest.mark.slow
def test_the_look_goes_where_the_result_goes(
    random_model: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.csv"
    rows = "".join(f"What is {n}?,\"['thing {n}', 'number {n}']\"\n" for n in range(12))
    path.write_text(f"question,answers\n{rows}What is it?,\n")
    words = [
        *random_model,
        f"dataset={path}",
        "prompt.num_few_shot=1",
        "decoding.max_new_tokens=3",
        "tracking=none",
    ]
    places = [f"store_dir={tmp_path / 'store'}", f"results_dir={tmp_path / 'results'}"]
    result = probegrid.run([*words, *places])
    expected = (
        "a list written as a text",
        "1 of 13 rows of",
        "judged by the rule 'squad', threshold 0.5",
        "' | 'number ",
    )
    kept = json.loads((result.folder / "result.json").read_text())["notes"]["examples"]
    shown = capsys.readouterr().err
    report = probegrid.report([f"results_dir={tmp_path / 'results'}", f"report.folder={tmp_path / 'report'}"])
    page = (tmp_path / "report/index.html").read_text().replace("&#39;", "'")
    assert report.examples is not None
    for text in expected:
        assert text in kept, text
        assert text in " ".join(shown.split()), text
        assert text in page, text


def test_what_is_of_turns_is_said_to_change_nothing_in_plain_text() -> None:
    words = ["dataset.num_samples=3", "prompt.num_few_shot=0", "prompt.system=Hush.", "prompt.prefill=It is"]
    notes = prepare(compose_cell(words)).examples.notes
    for name in ("system", "prefill"):
        assert f"no chat template is used, so that prompt.{name} changes nothing" in notes


@pytest.mark.parametrize(
    "of", [(), ("dataset=facts_statements", "probe=logistic", "probe.layers=[1]", "dataset.num_samples=30")]
)
def test_tokens_without_an_embedding_are_refused(
    random_model: tuple[str, ...], tmp_path: Path, of: tuple[str, ...]
) -> None:
    folder = tmp_path / "model"
    (path,) = (word.removeprefix("model.path=") for word in random_model if word.startswith("model.path="))
    shutil.copytree(path, folder)
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 40}
    (folder / "config.json").write_text(json.dumps(config))
    spec = compose_cell(["model=custom", f"model.path={folder}", *of])
    with pytest.raises(
        CheckpointError, match=r"has embeddings of 40 tokens alone.*the weights were saved with"
    ):
        prepare(spec)
