"""`harness data` and `harness records`: what is stored, and whether it is sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Workers

data = typer.Typer(help="Fetch, import, check, list and show data sets.", no_args_is_help=True)
records = typer.Typer(help="Unite the records of several machines; check them.", no_args_is_help=True)


@data.command("import")
def data_import(
    name: Annotated[str, typer.Argument(help="The data set, such as mosi.")],
    files: Annotated[list[Path], typer.Argument(help="Its file or files; the layout is recognised by content.")],
    variant: Annotated[str, typer.Option("--as", help="Keep it as NAME@VARIANT beside other imports.")] = "",
    text_encoder: Annotated[str, typer.Option(help="Encoder for transcripts: minilm, or a Hugging Face folder.")] = "",
    features: Annotated[list[str] | None, typer.Option(help="MODALITY=FILE.npz:ARRAY, features beside a label table.")] = None,
) -> None:
    """Check a data set's files and store them in the harness's own form."""
    from harness.commands import data as commands

    commands.import_(name, files, variant or None, text_encoder or None, features or [])


@data.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="The data set, such as ravdess.")],
    only: Annotated[str, typer.Option(help="One part of it alone, such as audio.")] = "",
) -> None:
    """Download what is public of a data set, and say where the rest is to be had."""
    from harness.commands import fetching

    fetching.fetch(name, only)


@data.command("extract")
def data_extract(
    name: Annotated[str, typer.Argument(help="A data set with media files or transcripts, such as ravdess.")] = "",
    text: Annotated[str, typer.Option(help="Extractor of text features, such as glove.")] = "",
    audio: Annotated[str, typer.Option(help="Extractor of sound, such as mfcc.")] = "",
    vision: Annotated[str, typer.Option(help="Extractor of film.")] = "",
    variant: Annotated[str, typer.Option("--as", help="Keep the result as NAME@VARIANT; default: the extractors' names.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting, such as mfcc.coefficients=13.")] = None,
    workers: Workers = 0,
    on_bad_clip: Annotated[
        str, typer.Option(help="A clip that cannot be decoded or shows no face: error, skip (leave it out) or zeros (keep it).")
    ] = "error",
    list_: Annotated[bool, typer.Option("--list", help="List the extractors with their settings.")] = False,
) -> None:
    """Compute features from media and transcripts; keep them as a new variant beside the data set."""
    from harness.commands import extracting as commands

    if list_ or not name:
        return commands.listing()
    commands.extract(name, {"text": text, "audio": audio, "vision": vision}, variant, settings or [], workers, on_bad_clip)


@data.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="A data set, such as mosi or mosi@minilm.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too, not only for errors.")] = False,
) -> None:
    """Look for what makes scores wrong: leaks, copies, labels out of range, values that are not there."""
    from harness.commands import data as commands

    commands.check(name, strict)


@data.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A data set, such as mosi or mosi@minilm.")],
    picture: Annotated[Path | None, typer.Option(help="Draw it too, to this .png, .svg or .pdf file.")] = None,
) -> None:
    """Print a data set's card, with histograms of labels and lengths."""
    from harness.commands import data as commands

    commands.show(name, picture)


@data.command("list")
def data_list() -> None:
    """List data sets and what is stored of them."""
    from harness.commands import listing

    listing.list_things("datasets", False)


@records.command("merge")
def records_merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders of other machines.")],
    into: Annotated[Path | None, typer.Option(help="Results folder that takes them; default: $MER_RESULTS or ./results.")] = None,
) -> None:
    """Copy records that a results folder lacks; equal keys must have equal results, nothing is overwritten."""
    from harness.commands import records as commands

    commands.merge_records(folders, into)


@records.command("verify")
def records_verify(
    folder: Annotated[Path | None, typer.Argument(help="A results folder; default: $MER_RESULTS or ./results.")] = None,
) -> None:
    """Compute every checksum, key and test score anew; exit code 1 where a record is not what it says."""
    from harness.commands import records as commands

    commands.verify_records(folder)
