"""`calogen convert-weights`: the authors' published weights as a file of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from calogen.cli.options import Out, OutputToo, Overwrite, Quiet, read_output
from calogen.cli.output import require_free
from calogen.cli.screen import say


def convert_weights(
    source: Annotated[
        Path, Parameter(name="in", metavar="IN", help="The authors' arrays by their names: .npz, .pt or .pth.")
    ],
    out: Out = None,
    /,
    *,
    output: OutputToo = None,
    permutations: Annotated[
        Path | None, Parameter(metavar="FILE.npz", help="A ShowerFlow's permutations, where IN does not hold them.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Turn the authors' published weights into ours; no number changes.

    Known are the point models of CaloClouds, ShowerFlow, PointCountFM, AllShowers, the denoisers of CaloHadronic and
    the tokenizer of OmniJet-alpha_C.
    """
    output = require_free(read_output(out, output), overwrite)
    from calogen.provenance import provenance
    from calogen.systems import published_files

    tensors = published_files.convert(source, permutations)
    published_files.write(output, tensors, {"provenance": provenance(source=source.name)})
    total = sum(tensor.numel() for tensor in tensors.values())
    say(f"{len(tensors)} tensors, {total:,} numbers in {output}", quiet=quiet)
