"""`polyres synth`: made songs from scores, sung syllables and loops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyres.core.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add `synth` to the command.

    Args:
        app: the command.
    """
    app.command("synth")(synth)


def synth(
    out: Annotated[Path, typer.Argument(help="Folder that gets one sub-folder of stems per track.")],
    midi: Annotated[Path | None, typer.Option(help="Folder of MIDI files to play stem by stem.")] = None,
    bank: Annotated[Path | None, typer.Option(help="SF2 or SF3 bank; by default one that is installed.")] = None,
    takes: Annotated[int, typer.Option(min=1, help="Different renderings of every piece.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same tracks.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Pieces rendered at the same time.")] = 1,
    singer: Annotated[
        Path | None, typer.Option(help="Sung syllables in folders named after pitches: vocals for the pieces.")
    ] = None,
    loops: Annotated[Path | None, typer.Option(help="Loops and one-shots: drum and bass tracks.")] = None,
    tracks: Annotated[int, typer.Option(min=1, help="Tracks made of --singer or --loops without --midi.")] = 16,
) -> None:
    """Make songs with known stems; what is finished already is skipped."""
    if midi is None and singer is None and loops is None:
        raise ConfigError("nothing to make songs from; give --midi DIR, --singer DIR or --loops DIR")

    from polyres.data.synth.loops import LoopBank
    from polyres.data.synth.singer import VoiceBank
    from polyres.data.synth.songs import SongsConfig, list_midi, make_loops, make_songs, make_vocals

    voices = None if singer is None else VoiceBank.open(singer)
    written = 0
    if midi is not None:
        config = SongsConfig(takes=takes, seed=seed, jobs=jobs)
        written += make_songs(out, list_midi(midi), config, bank, voices, typer.echo)
    elif voices is not None:
        written += make_vocals(out, voices, tracks, seed, typer.echo)
    if loops is not None:
        written += make_loops(out, LoopBank.open(loops), tracks, seed, typer.echo)
    typer.echo(f"{written} tracks written to {out}")
