"""The report of a fit or an evaluation as lines of text."""

from comitia.potential.source import source_name

MOST_OUTLIERS = 10  # that are printed
HEADINGS = ("", "energy RMSE", "MAE", "forces RMSE", "MAE", "virial RMSE", "MAE")
COLUMN_UNITS = ("", "meV/atom", "meV/atom", "eV/Å", "eV/Å", "meV/atom", "meV/atom")


def _row(name, table):
    cells = [name]
    for kind, digits in (("energy", 3), ("forces", 4), ("virial", 2)):
        found = table.get(kind)
        cells += [f"{found[what]:.{digits}f}" if found else "-" for what in ("rmse", "mae")]
    return cells


def error_lines(tables):
    """Aligned lines from {name: error table}, none for none; tables by `config_type` are indented below."""
    if not tables:
        return []
    rows = [HEADINGS, COLUMN_UNITS]
    for name, table in tables.items():
        rows.append(_row(name, table))
        rows += [_row(f"  {kind}", inner) for kind, inner in table.get("config_types", {}).items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def calibration_lines(calibration):
    """One line for energies and one for forces: scores, likelihood beside a constant σ, miscalibration area."""
    lines = []
    for kind, unit in (("energy", "nats per structure"), ("forces", "nats per component")):
        found = (calibration or {}).get(kind)
        if found:
            rank = "-" if found["rank_correlation"] is None else f"{found['rank_correlation']:.2f}"
            lines.append(
                f"{kind}: rms z {found['rms_z']:.3f}  miscalibration area {found['miscalibration_area']:.3f}  "
                f"NLL {found['nll']:.3f}  NLL - NLL(constant sigma) {found['nll_difference']:+.3f} +- "
                f"{found['nll_difference_error']:.3f} {unit}  rank correlation {rank}"
            )
    return lines


def outlier_lines(outliers):
    """The structures whose labels are farthest from the rest, at most `MOST_OUTLIERS`; nothing where there are none."""
    if not outliers:
        return []
    lines = [f"labels far beyond the noise of the fit: {len(outliers)}; look at these structures"]
    for one in outliers[:MOST_OUTLIERS]:
        digits = 4 if one["kind"] == "forces" else 1
        lines.append(
            f"  {one['file']}, frame {one['frame']} ({one['config_type']}, {one['set']}): {one['kind']} off by "
            f"{one['error']:.{digits}f} {one['unit']}, {one['scaled']:.0f} times what is expected there"
        )
    if len(outliers) > MOST_OUTLIERS:
        lines.append(f"  and {len(outliers) - MOST_OUTLIERS} more, in the report")
    return lines


def _baseline_lines(baseline):
    """What a baseline takes off the labels."""
    if baseline is None:
        return []
    taken = [
        f"{kind} {found['reference']:.4g} -> {found['corrections']:.4g} {unit}"
        for kind, unit in (("energy", "meV/atom"), ("forces", "eV/Å"))
        if (found := baseline["removed"].get(kind))
    ]
    return [f"corrections to {source_name(baseline)}, root mean squares: {', '.join(taken)}"]


def fit_lines(report):
    """What `comitia fit` prints."""
    structures, calibration = report["data"]["structures"], report["calibration"]
    chosen, seconds = report["regularisation"], report["seconds"]
    counts = ", ".join(f"{number} {name}" for name, number in structures.items() if number)
    previous = report["data"].get("previous")
    if previous:
        counts += f" ({previous['added']} added to the {previous['structures']} of {previous['model']})"
    lines = [
        f"structures  {counts}  atoms {report['data']['atoms']}  "
        f"features {report['features']['per_species']} per species  cost {report['cost']['value']:.1f} µs/atom",
        *_baseline_lines(report.get("baseline")),
        *error_lines(report["errors"]),
        f"regularisation  strength {chosen['strength']:.2e} ({chosen['chosen_by']})  weights energy "
        f"{chosen['kind_weights']['energy']:.3g} virial {chosen['kind_weights']['virial']:.3g} relative to forces",
    ]
    if chosen["left_out"]:
        left_out, difference = chosen["left_out"], chosen["prior"]["difference"]
        lines.append(
            f"  {len(left_out['parts'])} parts of the chemical systems left out one by one: {left_out['stronger']:g} "
            f"times the strength of the evidence, ln λ {difference:g} for each difference of species"
        )
    if report["settings"]["members"] > 1:
        lines.append(
            f"calibration  alpha {calibration['alpha_energy']:.3f}  alpha_forces {calibration['alpha_forces']:.3f}  "
            f"floor {calibration['force_floor']:.4f} eV/Å  "
            f"({report['settings']['members']} members, {calibration['source']}, "
            f"{calibration['count_energy']} structures)"
        )
        lines += [f"  {line}" for line in calibration_lines(calibration.get("quality"))]
        lines += [f"  warning: {warning}" for warning in calibration["warnings"]]
    lines += outlier_lines(report["outliers"])
    memory = report["memory"]["peak"] / 2**30
    stages = "  ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total")
    lines.append(f"time {seconds['total']:.1f} s  ({stages})  threads {report['threads']}  memory {memory:.1f} GiB")
    lines.append(f"model {report['model']}")
    return lines
