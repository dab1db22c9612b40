"""The fusion report as tables."""

from __future__ import annotations

from polyres.core.tables import MISSING, Table, number
from polyres.separation.fusion_report.report import FusionReport, Stage
from polyres.separation.fusion_report.tracks import DataReport

IMPLICIT = "Implicit: shares of kernel energy. They do not mix the resolutions, so read them as a hint only."
NO_IMPORTANCE = (
    "A weight is no importance: a resolution may count much with little weight. Knock-out is what the nSDR loses "
    "without the resolution (at bottleneck and output alike), the Shapley value its fair part of the score: both in dB."
)
NO_DATA = "A weight is no importance: add --data for knock-outs and Shapley values."


def report_tables(report: FusionReport) -> list[Table]:
    """Return the report as tables."""
    tables = []
    for stage in report.stages:
        tables += _stage_tables(report, stage)
    tables += _evolution_tables(report)
    tables += _gradient_table(report)
    if report.data is not None:
        tables += _data_tables(report, report.data)
    if report.notes:
        tables[-1] = _with_notes(tables[-1], report.notes)
    return tables


def markdown(report: FusionReport) -> str:
    """Return the report as a page of Markdown."""
    resolutions = " ".join(map(str, report.n_fft))
    head = f"# Fusion of {report.model}\n\nResolutions: {resolutions}. Weights: {report.chosen}.\n\n"
    return head + "\n".join(table.markdown() for table in report_tables(report))


def stage_title(stage: Stage) -> str:
    """Return name, kind and nature of a stage in a line."""
    nature = {"none": "no weights", "implicit": "implicit weights (share of kernel energy)"}
    what = nature.get(stage.weight_kind, "explicit weights")
    return f"{stage.name}: {stage.kind}, {what}, {'learned' if stage.learned else 'fixed'}"


def source_rows(report: FusionReport, weights: list[list[float]]) -> list[tuple[str, int]]:
    """Return names and positions of the sources that need a row: one for all where they share their weights.

    `weights`: `[S][R]`.
    """
    if len(report.sources) > 1 and all(row == weights[0] for row in weights):
        return [("all sources", 0)]
    return [(source, index) for index, source in enumerate(report.sources)]


def _percent(share: float, digits: int = 1) -> str:
    return number(100 * share, digits)


def _with_notes(table: Table, notes: list[str]) -> Table:
    return Table(table.title, table.header, table.rows, table.text_columns, (*table.notes, *notes))


def _stage_tables(report: FusionReport, stage: Stage) -> list[Table]:
    title = stage_title(stage)
    if not stage.tables:
        text = "Its effect shows in the knock-outs below." if report.data else NO_DATA
        return [Table(title, ("stage", "kind"), [(stage.name, stage.kind)], 2, (text,))]
    tables = [_weights_table(report, stage, title), _summary_table(report, stage)]
    if stage.bands is not None:
        tables.append(_bands_table(report, stage, stage.bands))
    return tables


def _weights_table(report: FusionReport, stage: Stage, title: str) -> Table:
    data, chosen = report.data, stage.tables[report.chosen].weights
    others = [name for name in stage.tables if name != report.chosen]
    notes = [IMPLICIT] if stage.weight_kind == "implicit" else []
    header = ["source", "n_fft", f"{report.chosen} %", *(f"{name} %" for name in others)]
    if data is None:
        rows = source_rows(report, chosen)
        notes.append(NO_DATA)
    else:
        rows = [(source, index) for index, source in enumerate(report.sources)]
        notes.append(NO_IMPORTANCE)
        header += ["knock-out dB", "Shapley dB"]
    table = Table(title, tuple(header), text_columns=1, notes=tuple(notes))
    for source, s in rows:
        for r, n_fft in enumerate(report.n_fft):
            cells = [source, str(n_fft), _percent(chosen[s][r], 2)]
            cells += [_percent(stage.tables[name].weights[s][r], 2) for name in others]
            if data is not None:
                shapley = None if data.shapley_db is None else data.shapley_db[r][s]
                cells += [number(data.knock_out_db[r][s], 2, signed=True), number(shapley, 2, signed=True)]
            table.rows.append(tuple(cells))
    return table


def _summary_table(report: FusionReport, stage: Stage) -> Table:
    header = ("weights", "source", "entropy % of uniform", "spread %", "divergence from uniform, bits")
    notes = [
        f"Raw against {one.average}: largest difference {_percent(one.largest, 4)} %, mean {_percent(one.mean, 4)} %."
        for one in stage.differences
    ]
    for name, summary in stage.tables.items():
        if len(source_rows(report, summary.weights)) > 1:
            bits = number(summary.disagreement_bits, 5)
            notes.append(f"{name}: the sources disagree by {bits} bits (Jensen–Shannon).")
    table = Table(f"{stage.name}: how even", header, text_columns=2, notes=tuple(notes))
    for name, summary in stage.tables.items():
        for source, s in source_rows(report, summary.weights):
            even = number(summary.entropy_percent[s], 2)
            bits = number(summary.divergence_bits[s], 5)
            table.rows.append((name, source, even, _percent(summary.spread[s], 2), bits))
    return table


def _bands_table(report: FusionReport, stage: Stage, bands: list[list[list[float]]]) -> Table:
    edges = ["0", *(f"{edge:g}" for edge in stage.bands_hz), "…"]
    header = ("source", "band, Hz", *(f"{n_fft} %" for n_fft in report.n_fft))
    table = Table(f"{stage.name}: weights per band ({report.chosen})", header, text_columns=2)
    whole = [[value for weights in bands for value in weights[s]] for s in range(len(report.sources))]
    for source, s in source_rows(report, whole):
        for band, weights in enumerate(bands):
            cells = [_percent(value, 2) for value in weights[s]]
            table.rows.append((source, f"{edges[band]}–{edges[band + 1]}", *cells))
    return table


def _evolution_tables(report: FusionReport) -> list[Table]:
    tables = []
    for stage, evolution in report.evolution.items():
        first, last = evolution.summaries[0], evolution.summaries[-1]
        header = ("source", "n_fft", f"epoch {evolution.epochs[0]} %", f"epoch {evolution.epochs[-1]} %", "change")
        rows = source_rows(report, last.weights)
        note = "; ".join(
            f"{source} {number(first.entropy_percent[s])} → {number(last.entropy_percent[s])}" for source, s in rows
        )
        title = f"{stage}: raw weights over {len(evolution.epochs)} epochs"
        table = Table(title, (*header, "smallest %", "largest %"), notes=(f"Entropy in % of uniform: {note}.",))
        for source, s in rows:
            for r, n_fft in enumerate(report.n_fft):
                values = [summary.weights[s][r] for summary in evolution.summaries]
                change = number(100 * (values[-1] - values[0]), 2, signed=True)
                cells = [_percent(values[0], 2), _percent(values[-1], 2), change]
                table.rows.append((source, str(n_fft), *cells, _percent(min(values), 2), _percent(max(values), 2)))
        tables.append(table)
    return tables


def _gradient_table(report: FusionReport) -> list[Table]:
    columns = []
    if report.gradient_epochs:
        epochs = list(report.gradient_epochs)
        columns += [
            (f"epoch {epoch} %", report.gradient_epochs[epoch]) for epoch in dict.fromkeys((epochs[0], epochs[-1]))
        ]
    if report.data is not None:
        columns.append(("on the data %", report.data.gradient_share))
    if not columns:
        return []
    header = ("n_fft", *(name for name, _ in columns))
    note = "Share of each branch in the sum of the branches' gradient norms; on the data of the mean absolute error."
    table = Table("Gradients", header, text_columns=0, notes=(note,))
    for r, n_fft in enumerate(report.n_fft):
        table.rows.append((str(n_fft), *(_percent(shares[r]) for _, shares in columns)))
    return [table]


def _data_tables(report: FusionReport, data: DataReport) -> list[Table]:
    tables = [_scores_table(report, data), _effects_table(report, data), _correlation_table(report, data)]
    if data.moving_weights is not None and data.moving_deviation is not None:
        table = Table("Weights that move with time", ("source", "n_fft", "mean %", "deviation %"))
        for s, source in enumerate(report.sources):
            for r, n_fft in enumerate(report.n_fft):
                cells = (_percent(data.moving_weights[r][s], 2), _percent(data.moving_deviation[r][s], 2))
                table.rows.append((source, str(n_fft), *cells))
        tables.append(table)
    return tables


def _scores_table(report: FusionReport, data: DataReport) -> Table:
    heard = (
        f"{len(data.tracks)} tracks, {data.seconds:.0f} s" if len(data.tracks) > 1 else f"1 track, {data.seconds:.0f} s"
    )
    title = f"nSDR in dB, weights: {report.chosen}, {heard}"
    header = ("source", "tracks with it", "all resolutions", "none", "stem dBFS")
    note = "None: the wave branch alone, or silence (0 dB). Mean over the tracks that have the source."
    table = Table(title, header, notes=(note,))
    for s, source in enumerate(report.sources):
        cells = (number(data.full_db[s]), number(data.empty_db[s]), number(data.reference_dbfs[s], 1))
        table.rows.append((source, str(data.tracks_with[s]), *cells))
    return table


def _effects_table(report: FusionReport, data: DataReport) -> Table:
    header = ("source", "n_fft", "alone dB", "knock-out dB", "Shapley dB", "own level dBFS")
    note = "Shapley values of a source sum to all resolutions less none." if data.shapley_db else ""
    table = Table("What each resolution does", header, notes=(note,) if note else ())
    for s, source in enumerate(report.sources):
        for r, n_fft in enumerate(report.n_fft):
            alone = MISSING if data.alone_db is None else number(data.alone_db[r][s])
            shapley = MISSING if data.shapley_db is None else number(data.shapley_db[r][s], 2, signed=True)
            loss, level = number(data.knock_out_db[r][s], 2, signed=True), number(data.level_dbfs[r][s], 1)
            table.rows.append((source, str(n_fft), alone, loss, shapley, level))
    return table


def _correlation_table(report: FusionReport, data: DataReport) -> Table:
    header = ("n_fft", "and", *(f"{source}" for source in report.sources), *(f"{one} error" for one in report.sources))
    note = (
        "Of the resolutions' own estimates, and of their errors: the less errors correlate, the more fusing can gain."
    )
    table = Table("Correlation between branches", header, text_columns=0, notes=(note,))
    for first in range(len(report.n_fft)):
        for second in range(first + 1, len(report.n_fft)):
            pairs = [number(matrix[first][second], 3) for matrix in (*data.correlation, *data.error_correlation)]
            table.rows.append((str(report.n_fft[first]), str(report.n_fft[second]), *pairs))
    return table
