"""The ``mmensemble`` command. Imports click and little else; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from mmensemble._version import __version__
from mmensemble.command_options import COUNT, EXISTING_FILE, FILES, FORMATS, NEW_FILE, RENAMED, Source, running
from mmensemble.command_run import run_over_rows
from mmensemble.doctor import doctor
from mmensemble.exceptions import MissingDependencyError, MmensembleError

__all__ = ["main"]


class _Commands(click.Group):
    """A group whose commands end an expected failure with one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (MmensembleError, OSError) as error:
            # click ends quietly by itself when the reader of a pipe has gone.
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            raise click.ClickException(" ".join(str(error).split())) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mmensemble")
def main() -> None:
    """Export fitted multimodal ensembles to ONNX, look into the files, score and write texts with them.

    \b
    Examples:
      mmensemble export  model.joblib model.onnx --verify holdout.parquet
      mmensemble inspect model.onnx
      mmensemble score   model.onnx items.parquet --output scores.parquet
      mmensemble generate writer.onnx prompts.parquet --output texts.parquet
      mmensemble card    model.onnx README.md
      mmensemble doctor
    """  # noqa: D301 (click keeps the lines of a paragraph that a backspace begins)
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False


main.add_command(doctor)


@main.command(epilog=FILES)
@click.argument("model", type=Source(exists=True, dir_okay=False))
@click.argument("input", type=Source(exists=True, allow_dash=True))
@click.option("-o", "--output", type=Source(), required=True, help="The file or folder to write.")
@running
@click.option(
    "--map",
    "columns",
    type=RENAMED,
    multiple=True,
    help="What a column that MODEL reads is called in INPUT: description=text. Repeatable.",
)
@click.option("--top-k", type=COUNT, default=None, help="The most probable classes in place of all probabilities.")
@click.option("--engine", default="local", show_default=True, help="Who scores: local, ray or spark.")
@click.option("--workers", type=COUNT, default=None, help="Fragments at a time.  [default: what the cluster has]")
@click.option("--format", default="parquet", show_default=True, help="Of the files in an output folder, by suffix.")
@click.option("--report", multiple=True, metavar="FILE", help="Write a report, .json or .html. Repeatable.")
@click.option(
    "--max-drift",
    type=click.FloatRange(min=0),
    default=None,
    help="Exit with 3 if an input or the predictions are further from the training profile (stability index; 0.25 is "
    "far).",
)
def score(model: str, input: str, output: str, quiet: bool, threads: int | None, **options: Any) -> None:
    """Score the rows of INPUT with MODEL (.onnx).

    INPUT is a file, a folder with all below it, or a pattern in quotes; each, as MODEL, a path or a URI; or - for
    standard input. A folder of pictures, sounds or films will do where MODEL reads nothing else: each is a row, and the
    output has its path. The output is a file, or, by a name without a suffix, a folder, which gets a file for each
    fragment of INPUT.

    The output has the kept columns, then prediction, probability_<class> for each class, and error. Each file appears
    when it is complete. Relative image paths in INPUT start at the working directory.

    Bad rows are counted on stderr, and the output says what is wrong with each. Exit code: 0 when the file is written,
    1 if all its rows are bad or there is an error, 2 if an option is wrong, 3 if the file is written and more has
    drifted than --max-drift allows, 130 after Ctrl-C or SIGTERM. After these or a crash the same command goes on where
    it stopped. Where stderr is no terminal, it gets a line of the progress every 10 seconds.

    \b
    Examples:
      mmensemble score model.onnx items.parquet --output scores.parquet
      mmensemble score model.onnx items.parquet -o scores.parquet --report night.html --max-drift 0.25 2> night.log
      mmensemble score model.onnx items.csv -o scores.csv --keep id --keep title
      mmensemble score model.onnx items.parquet -o scores.parquet --device cuda --batch-size 256 --on-error raise
      zcat items.csv.gz | mmensemble score model.onnx - -o scores.csv --map description=text
      mmensemble score model.onnx 'items/**/*.csv.gz' -o scores/ --keep id
      mmensemble score s3://bucket/model.onnx s3://bucket/items/ -o s3://bucket/scores/ --engine ray --workers 8
    """  # noqa: D301 (click keeps the lines of a paragraph that a backspace begins)
    from mmensemble.scoring import score_dataset

    options["columns"] = dict(options["columns"])
    run_over_rows(score_dataset, model, input, output, quiet, n_threads=threads, **options)


@main.command(epilog=FILES)
@click.argument("model", type=EXISTING_FILE)
@click.argument("input", type=EXISTING_FILE)
@click.option("-o", "--output", type=NEW_FILE, required=True, help="The file to write.")
@running
@click.option("--max-new-tokens", type=COUNT, default=32, show_default=True, help="Most tokens of a text.")
@click.option("--num-return-sequences", type=COUNT, default=1, show_default=True, help="Texts for each row.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="What scores are divided by before a token is drawn; 0 takes the most probable token.",
)
@click.option("--top-k", type=COUNT, default=None, help="Draw among so many most probable tokens only.")
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=None,
    help="Draw among the fewest most probable tokens whose probabilities add up to so much.",
)
@click.option("--num-beams", type=COUNT, default=1, show_default=True, help="Above 1, search with so many beams.")
@click.option("--random-state", type=click.IntRange(min=0), help="A seed: with the same one, the same texts.")
def generate(model: Path, input: Path, output: Path, quiet: bool, threads: int | None, **options: Any) -> None:
    """Write a text for each row of INPUT with MODEL (.onnx), one that generates.

    The output has the kept columns, then generated (generated_0 and so on of several texts for each row), and error.
    It appears when it is complete. Relative image paths in INPUT start at the working directory.

    Bad rows are counted on stderr, and the output says what is wrong with each. Exit code: 0 when the file is written,
    1 if all its rows are bad or there is an error, 2 if an option is wrong, 130 after Ctrl-C or SIGTERM. After these or
    a crash the same command goes on where it stopped.

    \b
    Examples:
      mmensemble generate model.onnx prompts.parquet --output texts.parquet --keep id
      mmensemble generate model.onnx prompts.csv -o texts.csv --temperature 0 --max-new-tokens 64
      mmensemble generate model.onnx prompts.csv -o texts.csv --num-return-sequences 3 --top-p 0.9 --random-state 0
    """  # noqa: D301 (click keeps the lines of a paragraph that a backspace begins)
    from mmensemble.scoring import generate_file

    run_over_rows(generate_file, model, input, output, quiet, n_threads=threads, **options)


@main.command()
@click.argument("model", type=EXISTING_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def inspect(model: Path, as_json: bool) -> None:
    """Show what MODEL (.onnx) predicts, what it reads, where it comes from and what can run it here.

    \b
    Examples:
      mmensemble inspect model.onnx
      mmensemble inspect model.onnx --json
      mmensemble inspect model.onnx --json | jq .classes
    """  # noqa: D301 (click keeps the lines of a paragraph that a backspace begins)
    from mmensemble.scoring.facts import model_facts

    facts = model_facts(model)
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    click.echo(f"{facts['file']}  {facts['bytes'] / 2**20:.1f} MiB")
    click.echo(f"task:     {_task(facts)}")
    if facts["classes"] is not None:
        click.echo(f"classes:  {', '.join(map(str, facts['classes']))}")
    click.echo("inputs:")
    for feed in facts["inputs"]:
        click.echo(f"  {feed['name']}: {feed['modality']} from {', '.join(map(str, feed['columns']))}")
        _echo_tensors(feed["tensors"])
    if facts["generation"] is not None:
        click.echo("state:")
        _echo_tensors(facts["generation"]["state"])
    _echo_members(facts["provenance"])
    for title in ("provenance", "parity"):
        click.echo(f"{title}:" if facts[title] else f"{title}: none recorded")
        for key, value in facts[title].items():
            if key in ("members", "fusion"):
                continue
            # A booster's representation names each of its parameters.
            click.echo(f"  {key}: {shorten(str(value), 400, placeholder=' ... (--json shows all)')}")
    if facts["profile"] is not None:
        profile = facts["profile"]
        click.echo(f"profile: {profile['n_rows']} rows ({profile['rows']}), of {', '.join(profile['compared'])}")
    click.echo(f"devices here: {', '.join(facts['devices'])} (ONNX Runtime {facts['onnxruntime']})")


def _task(facts: dict[str, Any]) -> str:
    generation = facts["generation"]
    if generation is None:
        return str(facts["task"])
    most = generation["max_length"]
    return f"generation{'' if most is None else f' of at most {most} tokens'}, vocabulary of {generation['vocab_size']}"


def _echo_members(provenance: dict[str, Any]) -> None:
    if not provenance.get("members"):
        return
    fusion = provenance["fusion"]
    chosen = f", which chose {fusion['chosen']}" if "chosen" in fusion else ""
    click.echo(f"members, joined by {fusion['name']}{chosen}:")
    for member in provenance["members"]:
        estimator = shorten(member["estimator"], 120, placeholder=" ...")
        click.echo(f"  {member['name']}: {estimator} on {', '.join(member['columns'])}")


def _echo_tensors(tensors: dict[str, Any]) -> None:
    for name, tensor in tensors.items():
        click.echo(f"    {name}  {tensor['dtype']}  ({', '.join(map(str, tensor['shape']))})")


@main.command(epilog=f"ROWS are a file of rows, by the ending of its name: {FORMATS}.")
@click.argument("model", type=EXISTING_FILE)
@click.argument("card", type=NEW_FILE)
@click.option("--rows", type=EXISTING_FILE, default=None, help="Rows on which the speed is measured here.")
def card(model: Path, card: Path, rows: Path | None) -> None:
    """Write a model CARD (.md or .html) from what MODEL (.onnx) says of itself.

    What it predicts, reads and is made of, how to use it, how true it is to the fitted model, its size and limits, and
    where it comes from. The Markdown has the header that the Hugging Face Hub reads. Where CARD is there already, what
    an earlier card said is replaced, and what you have written in it stays.

    \b
    Examples:
      mmensemble card model.onnx README.md
      mmensemble card model.onnx card.html --rows items.parquet
    """  # noqa: D301 (click keeps the lines of a paragraph that a backspace begins)
    from mmensemble.publishing import write_card

    write_card(model, card, rows=rows)
    click.echo(card)


@main.command()
@click.argument("estimator", type=EXISTING_FILE)
@click.argument("model", type=NEW_FILE)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Number format of the encoders' weights: fp16 is for GPUs, int8 for CPUs.",
)
@click.option(
    "--verify",
    type=EXISTING_FILE,
    default=None,
    help=f"Rows on which the model must score as the estimator does: {FORMATS}.",
)
@click.option("--target", default=None, help="Column of the --verify rows that holds the labels: compares the scores.")
@click.option(
    "--calibrate",
    type=EXISTING_FILE,
    default=None,
    help="Rows on which int8 measures the ranges of activations around convolutions.",
)
@click.option(
    "--profile",
    type=EXISTING_FILE,
    default=None,
    help="Rows, best those of the fit, that reports on later ones compare with.  [default: those of --verify]",
)
@click.option("--overwrite", is_flag=True, help="Replace MODEL if it is there.")
def export(
    estimator: Path,
    model: Path,
    precision: Any,
    verify: Path | None,
    target: str | None,
    calibrate: Path | None,
    profile: Path | None,
    overwrite: bool,
) -> None:
    """Export a fitted ESTIMATOR (.joblib) to MODEL (.onnx).

    WARNING: a joblib file is a pickle, and loading a pickle runs the code in it. Open only files that you or people
    you trust have written. The ONNX file that comes out holds no code and can be passed on.

    \b
    Examples:
      mmensemble export model.joblib model.onnx
      mmensemble export model.joblib model.onnx --verify holdout.parquet
      mmensemble export model.joblib model.onnx --precision int8 --verify holdout.csv --target label
    """  # noqa: D301 (click keeps the lines of a paragraph that a backspace begins)
    if model.exists() and not overwrite:
        raise click.ClickException(f"{model} exists; choose another name, or replace it by --overwrite")
    fitted = _load_estimator(estimator)
    rows, labels = None if verify is None else _read_frame(verify), None
    if target is not None:
        if rows is None or target not in rows:
            raise click.ClickException(f"--target {target} names no column of the --verify rows")
        rows, labels = rows.drop(columns=target), rows[target]
    with _from_extra_train():
        from mmensemble.export import export_onnx

    manifest = export_onnx(
        fitted,
        model,
        precision=precision,
        verify=rows,
        verify_y=labels,
        calibrate=None if calibrate is None else _read_frame(calibrate),
        profile=None if profile is None else _read_frame(profile),
    )
    measured = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in manifest.parity.items()
        if isinstance(value, float) or name == "judged_by"
    )
    rows_of = "given rows" if verify is not None else "rows made by the export"
    compared = f"compared on {manifest.parity['n_rows']} {rows_of}"
    click.echo(f"{model}  {model.stat().st_size / 2**20:.1f} MiB, {compared}, {measured}")


def _load_estimator(path: Path) -> Any:
    with _from_extra_train():
        import joblib
    try:
        return joblib.load(path)
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{path} needs {error.name}, which is not installed here") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise click.ClickException(
            f"{path} cannot be loaded: {error!r}; it must be what joblib.dump wrote of a fitted estimator"
        ) from error


def _read_frame(path: Path) -> Any:
    from mmensemble.files.reading import read_frame

    with _from_extra_train():
        return read_frame(path)


@contextmanager
def _from_extra_train() -> Iterator[None]:
    """Name the extra where a package is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependencyError((error.name or "").partition(".")[0], "train") from error


if __name__ == "__main__":
    main()
