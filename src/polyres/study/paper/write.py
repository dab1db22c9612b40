"""The paper: tables, figures and claims of studies, written into a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from polyres.core.errors import AnalysisError, OutputError, PolyresError
from polyres.core.whole_files import write_whole
from polyres.report.figures import check_matplotlib
from polyres.report.tables import latex_table
from polyres.separation.fusion_report.figures import lines_figure, save
from polyres.study.claims.base import Judged, judge
from polyres.study.claims.codecs import CODEC_CLAIMS
from polyres.study.claims.costs import COST_CLAIMS
from polyres.study.claims.facts import FACT_CLAIMS
from polyres.study.claims.scores import RESOLUTION_CLAIMS
from polyres.study.claims.settings import SETTING_CLAIMS
from polyres.study.claims.text import claims_json, claims_markdown
from polyres.study.claims.weights import WEIGHT_CLAIMS
from polyres.study.paper.architecture import architecture_figure
from polyres.study.paper.audio import StudyAudio, attack_excerpt, find_audio, spectrogram_figure, styles_of
from polyres.study.paper.curves import cost_quality_figure, curves_figure
from polyres.study.paper.data import Arm, PaperStudy
from polyres.study.paper.evidence import read_material
from polyres.study.paper.index import Shown, index_html, index_markdown
from polyres.study.paper.tables import (
    PaperTable,
    channels_table,
    differences_table,
    fusion_table,
    main_table,
    metrics_table,
    resolutions_table,
    styles_table,
)
from polyres.study.paper.weights import (
    Reports,
    arm_weights,
    output_stage,
    spectrum_figure,
    stem_spectra,
    weights_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLAIMS = (*RESOLUTION_CLAIMS, *COST_CLAIMS, *SETTING_CLAIMS, *WEIGHT_CLAIMS, *FACT_CLAIMS, *CODEC_CLAIMS)
Say = Callable[[str], None]


@dataclass(frozen=True)
class PaperOptions:
    """What goes into a paper.

    Attributes:
        figures: draw them; needs matplotlib.
        audio: also those that need the tracks: spectrograms and spectra of stems.
        data: where the tracks are; else where the studies say.
        track: for the spectrograms; the first with drums if None.
        arm: whose architecture is drawn, as ARM or STUDY:ARM; if None the first with several resolutions.
        device: for the models that separate the excerpt.
    """

    figures: bool = True
    audio: bool = True
    data: Path | None = None
    track: str | None = None
    arm: str | None = None
    device: str = "cpu"


@dataclass
class Paper:
    """The files written."""

    files: list[Path] = field(default_factory=list)  # all of them
    claims: list[Judged] = field(default_factory=list)  # judged
    notes: list[str] = field(default_factory=list)  # what could not be made, and why


def write_paper(paths: Sequence[Path], out: Path, options: PaperOptions, say: Say = lambda line: None) -> Paper:
    """Write tables, figures, claims and an index of studies.

    Args:
        paths: folders of studies and other evidence, see `read_material`.
        out: gets all files; made if missing.
        options: what to make.
        say: receives a line per step.

    Returns:
        What was written and what could not be made.

    Raises:
        AnalysisError: when a study cannot be used.
        ConfigError: when figures are wanted without matplotlib.
        InputError: when a path holds no evidence.
        OutputError: when a file cannot be written.
    """
    if options.figures:
        check_matplotlib(otherwise="add --no-figures")
    say("reading scores and fusion weights")
    material = read_material(paths)
    studies = material.studies
    lead = _lead(studies, options.arm)
    for place in (out / "tables", out / "figures"):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {place}: {error.strerror}; choose another --out") from error
    paper = Paper()
    tables = _write_tables(studies, out, paper)
    figures = _Figures(studies, material.reports, options, out, paper, say)
    if options.figures:
        figures.find_audio()
        figures.draw(lead)
    shown = figures.shown
    say("judging claims")
    paper.claims = judge(CLAIMS, material)
    lines = [_study_line(study) for study in studies]
    _write(paper, out / "claims.md", claims_markdown(paper.claims, lines))
    _write(paper, out / "claims.json", claims_json(paper.claims))
    about = (lines, tables, shown, paper.claims, paper.notes)
    _write(paper, out / "index.md", index_markdown(*about))
    _write(paper, out / "index.html", index_html(*about))
    return paper


def _lead(studies: Sequence[PaperStudy], wanted: str | None) -> Arm | None:
    """Return the arm whose architecture is drawn."""
    arms = [(study, arm) for study in studies for arm in study.arms if arm.model is not None]
    if wanted is not None:
        named = [arm for study, arm in arms if wanted in (arm.name, f"{study.name}:{arm.name}")]
        if not named:
            known = ", ".join(f"{study.name}:{arm.name}" for study, arm in arms) or "none with runs yet"
            raise AnalysisError(f"there is no arm {wanted!r}; there are: {known}")
        return named[0]
    several = [arm for _, arm in arms if arm.model is not None and len(arm.model.n_fft) > 1]
    return next(iter([*several, *(arm for _, arm in arms)]), None)


def _study_line(study: PaperStudy) -> str:
    about = study.about
    counts = f"{len(study.arms)} arms × {len(about.seeds)} seeds, {len(study.tracks)} tracks"
    budget = "" if about.budget is None else f", equal {about.budget.get('equal')}"
    return f"{study.name}: {about.title}. {about.question} ({counts}{budget}, commit {about.commit or 'unknown'})"


def _write(paper: Paper, path: Path, text: str) -> None:
    write_whole(path, text)
    paper.files.append(path)


def _write_tables(studies: Sequence[PaperStudy], out: Path, paper: Paper) -> list[PaperTable]:
    makers = (main_table, resolutions_table, channels_table, fusion_table, differences_table, metrics_table)
    tables = [make(studies) for make in makers]
    styles = styles_table(studies, {study.name: styles_of(study) for study in studies})
    if styles is None:
        paper.notes.append("No scores by style: the tracks' names do not begin with a style, as in electronic/song_3.")
    else:
        tables.append(styles)
    for one in tables:
        _write(paper, out / "tables" / f"{one.name}.md", one.markdown())
        _write(paper, out / "tables" / f"{one.name}.tex", latex_table(one.table, f"tab:{one.name}", one.bold))
    return tables


@dataclass
class _Figures:
    """Draws the figures of a paper, and notes those that cannot be drawn."""

    studies: Sequence[PaperStudy]
    reports: Reports
    options: PaperOptions
    out: Path
    paper: Paper
    say: Say
    shown: list[Shown] = field(default_factory=list)
    audio: dict[str, StudyAudio] = field(default_factory=dict)

    def find_audio(self) -> None:
        """Find the tracks of all studies before drawing."""
        for study in self.studies if self.options.audio else ():
            try:
                self.audio[study.name] = find_audio(study, self.options.data)
            except PolyresError as error:
                if self.options.data is not None:
                    raise
                self.paper.notes.append(f"No spectrograms and spectra of {study.name}: {error}")
        names = [name for audio in self.audio.values() for name, _ in audio.tracks]
        if self.options.track is not None and self.options.track not in names:
            known = ", ".join(names[:12]) or "none where the studies say; name their folder with --data"
            raise AnalysisError(f"there is no track {self.options.track!r}; there are: {known}")

    def draw(self, lead: Arm | None) -> None:
        """Draw all."""
        if lead is not None and lead.model is not None:
            self._save("figure1_architecture", "Figure 1. Architecture.", architecture_figure(lead.model, lead.name))
        else:
            self.paper.notes.append("No figure 1: no run says how its model is built.")
        weights = arm_weights(self.studies, self.reports)
        if weights:
            self._save("figure2_weights", "Figure 2. Fusion weights.", weights_figure(weights))
        else:
            self.paper.notes.append("No figure 2: no run has fusion weights.")
        for study in self.studies:
            self._evolution(study)
            self._with_audio(study)
            self._of_study(study)

    def _suffix(self, study: PaperStudy) -> str:
        return "" if len(self.studies) == 1 else f"_{study.name}"

    def _of_study(self, study: PaperStudy) -> None:
        curves, costs = curves_figure(study), cost_quality_figure(study)
        of = "" if len(self.studies) == 1 else f" of {study.name}"
        if curves is not None:
            self._save(f"figure4_curves{self._suffix(study)}", f"Figure 4. Training curves{of}.", curves)
        else:
            self.paper.notes.append(f"No figure 4 of {study.name}: its runs have no metrics.")
        if costs is not None:
            self._save(f"cost_quality{self._suffix(study)}", f"Cost and quality{of}.", costs)
        else:
            self.paper.notes.append(f"No figure of cost and quality of {study.name}: no costs with scores.")

    def _evolution(self, study: PaperStudy) -> None:
        """Draw the weights over the epochs of every arm's first run."""
        for arm in study.arms:
            reports = [self.reports.get((study.name, run.name)) for run in arm.runs]
            report = next((one for one in reports if one is not None), None)
            stage = None if report is None else output_stage(report)
            if report is None or stage is None or not stage.learned or "output" not in report.evolution:
                continue
            if len(report.evolution["output"].epochs) > 1:
                name = f"figure2_weights_over_epochs{self._suffix(study)}_{arm.name}"
                caption = f"Figure 2, over epochs: {study.name}, {arm.runs[0].name}."
                self._save(name, caption, lines_figure(report, stage, report.evolution["output"]))

    def _with_audio(self, study: PaperStudy) -> None:
        """Draw what needs the tracks."""
        audio = self.audio.get(study.name)
        if audio is None:
            return
        track = self.options.track if self.options.track in dict(audio.tracks) else None
        try:
            self.say(f"{study.name}: separating an attack")
            excerpt = attack_excerpt(study, audio, track, self.options.device)
            caption = f"Figure 3. Drums at an attack: {excerpt.track}."
            self._save(f"figure3_spectrograms{self._suffix(study)}", caption, spectrogram_figure(excerpt))
            self.say(f"{study.name}: spectra of {len(audio.tracks)} tracks")
            spectra = stem_spectra(audio.all_stems(), audio.model.sources, audio.model.sample_rate_hz)
        except PolyresError as error:
            self.paper.notes.append(f"No spectrograms and spectra of {study.name}: {error}")
            return
        banded = [
            (arm.name, self.reports[study.name, arm.runs[0].name])
            for arm in study.arms
            if arm.runs and (study.name, arm.runs[0].name) in self.reports
        ]
        caption = "Energy of the stems, and weights per band."
        self._save(f"source_spectrum{self._suffix(study)}", caption, spectrum_figure(spectra, banded))

    def _save(self, name: str, caption: str, figure: Figure) -> None:
        self.paper.files += save(figure, self.out / "figures" / name)
        self.shown.append(Shown(name, caption))
