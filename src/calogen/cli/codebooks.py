"""`calogen codebooks`: how well a tokenizer resolves hits, by the size of its codebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from calogen.cli.files import points
from calogen.cli.options import (
    STATE_FILE,
    ConfigFile,
    Device,
    Overwrite,
    Quiet,
    Seed,
    Set,
    Threads,
    differences,
    read_state,
    use_threads,
)
from calogen.cli.output import blamed_on_output, require_free_folder
from calogen.cli.presets import CONFIG
from calogen.cli.screen import say, table
from calogen.cli.train import by_detector, read_parts, require_fit_for, resolve

if TYPE_CHECKING:
    from calogen.codebook_study import Given, Request, Sample
    from calogen.data.showers import Showers
    from calogen.evaluate.codebook_scores import CodebookStudy

TEST = "test"
STAGE = "tokenizer"


def codebooks(
    system: Annotated[str, Parameter(metavar="SYSTEM", help="Which system; omnijet has a codebook.")],
    *,
    truth: Annotated[
        Path,
        Parameter(metavar="FILE", help="Unseen showers to measure on (GeV, mm); of a file with parts, its test part."),
    ],
    output: Annotated[
        Path,
        Parameter(name=("--output", "-o"), metavar="DIR", help="Directory of trainings, page and numbers."),
    ],
    data: Annotated[
        list[Path] | None,
        Parameter(metavar="FILE", negative="", help="Showers to learn from (GeV, mm); may be repeated."),
    ] = None,
    sizes: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="N",
            negative="",
            consume_multiple=True,
            help="Codes of each tokenizer; default: 512 to 65536, doubling, or none where states are given.",
        ),
    ] = (),
    states: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="STATE", negative="", consume_multiple=True, help="Trained states to be measured as they are."
        ),
    ] = (),
    preset: Annotated[
        str | None, Parameter(metavar="NAME", help="Whose tokenizer and plan; default: the system's first.")
    ] = None,
    steps: Annotated[int | None, Parameter(metavar="N", help="Steps of each training; default: the plan's.")] = None,
    set_: Set = None,
    config: ConfigFile = None,
    number: Annotated[
        int, Parameter(name=("--number", "-n"), metavar="N", help="Showers of the truth, at most.")
    ] = 1000,
    target: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="NAME=VALUE",
            negative="",
            consume_multiple=True,
            help="Standard deviations aimed at, to be drawn: of x, y (cells), layer (layers) or ln_energy.",
        ),
    ] = (),
    validation: Annotated[
        float, Parameter(metavar="SHARE", help="Part held out, where the file does not mark one (0 to 1).")
    ] = 0.1,
    batch_size: Annotated[int, Parameter(metavar="N", help="Showers measured together.")] = 32,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train a tokenizer with codebooks of several sizes, and measure what hits lose on the way to codes and back.

    Each size is trained on the same showers by the same plan. A study that was killed goes on where it was with the
    same command, and further sizes and states can be added to it.

    Example: calogen codebooks omnijet --data train.h5 --truth truth.h5 --sizes 512 4096 32768 -o codebooks/
    """
    from calogen.codebook_study import FILES, SIZES, require_place, study
    from calogen.report.codebooks import FILES as PAGES
    from calogen.report.codebooks import write_codebooks

    if not 0 <= validation < 1:
        raise ValueError(f"--validation {validation}: give a share of at least 0 and below 1")
    wanted = _sizes(sizes) or (() if states else SIZES)
    request = _request(system, preset, differences(config, set_), steps, wanted, seed)
    request = replace(request, showers=number, batch_size=batch_size, targets=_targets(target))
    if wanted and not data:
        raise ValueError("--sizes without --data: give showers to learn from, or states alone")
    require_free_folder(output, overwrite or (output / FILES[0]).is_file())
    require_place(output, PAGES)
    _require_other_files(data or [], truth)
    for detector in by_detector(data or []):
        require_fit_for(system, preset, detector, any_detector=False)
    use_threads(threads)
    given = _given(states, system, device)
    sample = _sample(request, data or [], truth, validation)
    with blamed_on_output(output):
        made = study(
            *(request, sample, given),
            folder=output,
            truth_name=truth.name,
            device=device,
            overwrite=overwrite,
            quiet=quiet,
            say=lambda text: say(text, quiet=quiet),
        )
        page = write_codebooks(made, output)
    _print(made, quiet)
    say(f"page in {page}", quiet=quiet)


def _request(
    system: str,
    preset: str | None,
    changes: dict[str, object],
    steps: int | None,
    sizes: tuple[int, ...],
    seed: int,
) -> Request:
    """The tokenizer and plan of a preset, changed as asked.

    Raises:
        ValueError: a system without a tokenizer, an unknown preset, or changes of anything else.
    """
    from calogen.codebook_study import Request, code_of, require_tokenizer_keys

    plain = resolve(system, preset, {}, seed, None)
    code_of(system, plain[CONFIG])
    require_tokenizer_keys(changes)
    more: dict[str, object] = {} if steps is None else {f"{STAGE}.steps": steps, f"{STAGE}.epochs": None}
    resolved = resolve(system, preset, {**more, **changes}, seed, None)
    return Request(system, code_of(system, resolved[CONFIG]), resolved[STAGE], sizes, seed=seed)


def _sizes(texts: Sequence[str]) -> tuple[int, ...]:
    """Whole numbers; the parser of options would round others."""
    for text in texts:
        if not text.isdecimal():
            raise ValueError(f"--sizes {text}: give whole numbers of codes, at least 2, for example 512 4096")
    return tuple(map(int, texts))


def _targets(texts: Sequence[str]) -> dict[str, float]:
    """`layer=0.66` as a name and a number."""
    targets: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            targets[name] = float(value)
        except ValueError:
            raise ValueError(f"--target {text}: give NAME=VALUE, for example layer=0.5") from None
    return targets


def _require_other_files(data: Sequence[Path], truth: Path) -> None:
    """Refuse to measure on the file that was learned from, unless it marks which showers are for which."""
    from calogen.data.formats import open_source

    for file in data:
        if file.exists() and truth.exists() and file.samefile(truth):
            with open_source(truth) as source:
                marked = source.split is not None
            if not marked:
                raise ValueError(f"--truth {truth} is what is learned from: give showers that were not")


def _given(states: Sequence[str], system: str, device: str) -> list[Given]:
    """The states that are given, named by their file or the directory of their training."""
    from calogen.codebook_study import Given
    from calogen.systems import load

    paths = [read_state(state) for state in states]
    twice = [state for k, state in enumerate(states) if paths[k] in paths[:k]]
    if twice:
        raise ValueError(f"--states {twice[0]}: given twice")
    given = []
    for state, path in zip(states, paths, strict=True):
        loaded = load(path, device=device)
        if loaded.name != system:
            raise ValueError(f"--states {state}: a state of {loaded.name!r}, not of {system!r}")
        whole = Path(path)
        given.append(Given(whole.parent.name if whole.name == STATE_FILE else whole.stem, loaded))
    names = [one.name for one in given]
    return [
        one if names.count(one.name) == 1 else Given(path, one.system) for one, path in zip(given, paths, strict=True)
    ]


def _sample(request: Request, data: Sequence[Path], truth: Path, validation: float) -> Sample:
    """Showers to learn from, held out and to measure on; held out ones are cut off as in a training of the system."""
    from calogen.codebook_study import Sample
    from calogen.data.batches import split
    from calogen.data.showers import Showers

    unseen = _read_truth(truth)
    if not data:
        return Sample(None, None, unseen)
    learning, aside = read_parts(list(data), validation)
    if isinstance(aside, Showers):
        return Sample(learning, aside, unseen)
    if aside == 0:
        return Sample(learning, None, unseen)
    cut = split(len(learning), validation=aside, seed=request.seed)
    return Sample(learning[cut.train], learning[cut.validation], unseen)


def _read_truth(file: Path) -> Showers:
    from calogen.data.formats import batches, open_source
    from calogen.data.showers import Showers

    with open_source(file) as source:
        part = None if source.split is None else TEST
    showers = [points(batch) for batch in batches(file, split=part)]
    if not sum(map(len, showers)):
        raise ValueError(f"--truth {file}: has no showers{'' if part is None else f' in its part {part!r}'}")
    return Showers.concatenate(showers)


def _print(made: CodebookStudy, quiet: bool) -> None:
    from calogen.report.codebooks import columns, row

    rows = [row(score)[:5] for score in [*made.trained, *made.given]]
    table(f"{made.system}: {made.showers} showers", columns()[:5], rows, quiet=quiet)
    for note in made.notes:
        say(f"note: {note}", quiet=quiet)
