"""`polyres studio`: a page that separates songs and plays the stems, and pages of finished stems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyres.cli.shared.terminal import examples
from polyres.core.errors import ConfigError

EPILOG = examples(
    "polyres studio — the page at http://127.0.0.1:8766/ with the models that are installed",
    "polyres studio --model runs/mine --model htdemucs — further models to compare",
    "polyres studio --codec audioldm2+frequency — reconstruction with an enhancer as well",
    "polyres studio export separated --out page.html — finished stems of all models as one file to give away",
    "polyres studio export separated --reference musdb/test --seconds 20 — beside the true stems, with SDR",
    "Songs never leave this machine. They and their stems stay over a restart, and are removed when nobody used "
    "them for --keep-hours, or with --forget when the studio ends.",
)
_MIB = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    group = typer.Typer(help="A page that separates songs and plays their stems.", epilog=EPILOG)
    group.callback(invoke_without_command=True)(studio)
    group.command()(export)
    app.add_typer(group, name="studio")


def studio(
    context: typer.Context,
    model: Annotated[list[str] | None, typer.Option(help="Model to offer; a name or path, repeatable.")] = None,
    codec: Annotated[
        list[str] | None, typer.Option(metavar="NAME[+ENHANCER]", help="Codec to offer; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8766,
    root_path: Annotated[str, typer.Option(help="Path under which a proxy shows the page, such as /studio.")] = "",
    public_url: Annotated[
        str, typer.Option(help="Address under which browsers find the page, such as https://lab.example/studio.")
    ] = "",
    folder: Annotated[
        Path | None, typer.Option(help="Where songs and stems are kept over a restart; the user's cache by default.")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Remove songs and stems when the studio ends.")] = False,
    max_upload_mb: Annotated[float, typer.Option(help="Largest file, in MiB.")] = 512,
    max_minutes: Annotated[float, typer.Option(help="Longest song.")] = 20,
    max_disk_gb: Annotated[float, typer.Option(help="Most that songs and stems take on disk, in GiB.")] = 8,
    keep_hours: Annotated[float, typer.Option(help="Unused songs are removed after this time.")] = 6,
    proxy: Annotated[str, typer.Option(help="Proxies that are believed, comma-separated.")] = "127.0.0.1",
    allow_origin: Annotated[list[str] | None, typer.Option(help="Further origins that may send songs.")] = None,
) -> None:
    """Serve the studio: drop songs, watch progress, hear stems solo or mixed, compare models, take away the results."""
    if context.invoked_subcommand is not None:
        return
    from polyres.studio.songs import StudioOptions

    options = StudioOptions(
        host=host,
        port=port,
        root_path=root_path,
        proxy_addresses=proxy,
        allowed_origins=tuple(allow_origin or ()),
        public_url=public_url,
        folder=_folder(folder, port, forget),
        max_upload_bytes=int(max_upload_mb * _MIB),
        max_total_bytes=int(max_disk_gb * 1024 * _MIB),
        max_minutes=max_minutes,
        keep_hours=keep_hours,
    )
    try:
        from polyres.studio.server import run
    except ModuleNotFoundError as error:
        raise ConfigError(f"the studio needs {error.name}; install it with pip install 'polyres[studio]'") from error
    from polyres.studio.engines import PolyresEngine

    engine = PolyresEngine(model or (), codec or (), device)
    typer.echo(f"studio: loading {engine.choices[0].label} …", err=True)
    engine.check()
    run(engine, options, lambda url: typer.echo(f"studio: {url}\nstop with Ctrl-C"))


def _folder(given: Path | None, port: int, forget: bool) -> Path | None:
    """Choose where songs are kept: one folder per port, so that two studios do not meet."""
    if forget and given is not None:
        raise ConfigError("--folder keeps songs and --forget removes them; leave one of them out")
    if forget or (given is None and port == 0):
        return None
    from polyres.weights.places import cache_folder

    return given or cache_folder() / f"studio-{port}"


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What 'polyres separate' or 'reconstruct' wrote.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("studio.html"),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Stems",
    reference: Annotated[
        Path | None,
        typer.Option(help="Folder with the true stems, TRACK/STEM.wav: they are heard as well, and SDR is told."),
    ] = None,
    start: Annotated[float, typer.Option(min=0, help="Where the excerpts begin, in seconds.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long they are.")] = 30.0,
    file_format: Annotated[str, typer.Option("--format", help="flac (exact to 16 bits) or mp3 (small).")] = "flac",
) -> None:
    """Write finished stems as one page: HTML with audio, player and pictures in it, for a browser without a server.

    Songs found in several folders (MODEL_A/SONG, MODEL_B/SONG) are put side by side.
    """
    from polyres.studio.export import ExportOptions, export_page

    options = ExportOptions(title, reference, start, seconds, file_format)
    found = export_page(folder, out, options, lambda line: typer.echo(line, err=True))
    size = f"{out.stat().st_size / _MIB:.1f} MiB"
    typer.echo(f"{out}: {found} {'song' if found == 1 else 'songs'}, {size}; open it in a browser")
