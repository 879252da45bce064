"""A small real model on real data: the figures of ``docs/real_figures.md``, its tables and pictures, by one command.

    python benchmarks/real_figures.py --model FOLDER --squad dev-v1.1.json --cities cities.csv \
        --ntml 3T3L_500samples.jsonl --out docs/real_figures

FOLDER holds SmolLM2-135M-Instruct, from its hub or its publisher; the files are those of SQuAD, Geometry of Truth and
NTML. Grids: SQuAD with and without its paragraphs in three quantizations; the judges that greedy
answers, samples and p(true) allow; probes on all
layers over statements. ``--work`` keeps store and results, so that the same command goes on where it was; ``--only``
makes some of the grids.
"""

from __future__ import annotations

import argparse
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

import probegrid
from probegrid.errors import UserError

console = Console(width=130, highlight=False)

FEW_JUDGES, EVERY_JUDGE = ("probe=semantic_entropy,p_true",), ("experiment=judges",)
PROBES = ("figures/auroc_by_layer.svg",)
SHOWN = {
    "cities": PROBES,
    "ntml": PROBES,
    "squad": ("table.md", "figures/roc.svg"),
    "judges": ("ranking.md", "figures/ranking.svg"),
}
"""Of each grid's report what the page shows."""


def main() -> None:
    """Run the grids, and write what stands on the page."""
    arguments = parse()
    torch_threads = torch.get_num_threads()
    model = ("model=smollm2_135m", f"model.path={arguments.model.absolute()}", "model.dtype=float32")
    squad = ("dataset=squad", f"dataset.path={arguments.squad.absolute()}")
    asked = (*squad, f"dataset.num_samples={arguments.questions}")
    judged = (*squad, f"dataset.num_samples={arguments.judged}", "prompt.use_context=true")
    probes = ("probe=logistic,mass_mean", "probe.layers=all")
    every = "dataset.num_samples=100000"
    grids: dict[str, tuple[Sequence[str], Sequence[str]]] = {
        "cities": (("dataset=statements", f"dataset.path={arguments.cities.absolute()}", every, *probes), ()),
        "ntml": (("dataset=ntml", f"dataset.path={arguments.ntml.absolute()}", every, *probes), ()),
        "squad": (
            (*asked, "probe=gnll", "prompt.use_context=false,true", "quantization=none,nf4,int8"),
            ("quantization", "prompt.use_context"),
        ),
        "judges": ((*judged, *(EVERY_JUDGE if arguments.every_judge else FEW_JUDGES)), ()),
    }
    for name, (overrides, compared) in grids.items():
        if name in arguments.only:
            run(name, (*model, *overrides), compared, arguments.work, arguments.out)
    console.print(f"{arguments.out}: {platform.processor() or platform.machine()}, {torch_threads} threads")


def parse() -> argparse.Namespace:
    """What was typed."""
    names = ("cities", "ntml", "squad", "judges")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, what in (
        ("model", "folder of SmolLM2-135M-Instruct"),
        ("squad", "a file of SQuAD v1.1"),
        ("cities", "cities.csv of Geometry of Truth"),
        ("ntml", "a file of NTML conversations"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)
    parser.add_argument("--questions", type=int, default=200, help="of SQuAD, in each of six cells")
    parser.add_argument("--judged", type=int, default=100, help="questions of SQuAD for the judges")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="GRID", help=", ".join(names)
    )
    parser.add_argument(
        "--every-judge",
        action="store_true",
        help="experiment=judges: token distributions and hidden states of every sample too, and trained probes",
    )
    parser.add_argument("--work", type=Path, default=Path("real_figures"), help="folder of store and results")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables and pictures")
    return parser.parse_args()


def run(name: str, overrides: Sequence[str], compared: Sequence[str], work: Path, out: Path) -> None:
    """Run one grid, and keep of its report what the page shows, in a folder of its name."""
    places = (f"store_dir={work / 'store'}", f"results_dir={work / 'results' / name}")
    try:
        probegrid.sweep([*overrides, *places, "tracking=none"])
    except UserError as error:  # a probe that has nothing to learn from so few: the others are ranked
        console.print(f"{name}: {error}")
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for key in compared or (None,):
        words = [] if key is None else [f"report.compare={key}"]
        report = probegrid.report([places[1], f"report.folder={work / 'reports' / name}", *words])
        files = report.files
        for shown in SHOWN[name]:
            if (content := files.get(shown)) is not None:
                (folder / Path(shown).name).write_bytes(content)
        if SHOWN[name] == PROBES:
            (folder / "probes.md").write_text(probes_table(report.frames["table"]))
        if key is not None:
            (folder / f"by_{key.rpartition('.')[2]}.md").write_bytes(files["comparisons.md"])
    console.print(f"{name}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def probes_table(cells: pd.DataFrame) -> str:
    """Trained probes as Markdown: the layer, and beside the AUROC those of the words alone and of the control."""
    lines = [
        "| probe | n of the test split | layer | probe accuracy | AUROC | AUROC of text | AUROC of control |"
    ]
    lines.append("|---" * 3 + "|---:" * 4 + "|")
    for _, cell in cells.iterrows():
        numbers = [
            f"{cell[name]:.3f} [{cell[f'{name}_ci_low']:.3f}, {cell[f'{name}_ci_high']:.3f}]"
            for name in ("accuracy", "auroc", "text_auroc", "control_auroc")
        ]
        what = [cell["probe"], f"{cell['n']:.0f}", f"{cell['layer']:.0f}"]
        lines.append(f"| {' | '.join([*what, *numbers])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
