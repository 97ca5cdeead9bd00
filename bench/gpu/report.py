"""Makes one JSON of what gpu-check's programs printed, with the ratios that matter, and a table for the eye.

    python3 report.py OUT.json GOALS.txt ENTRIES RESULTS.jsonl...

A ratio is the peer's time over ours: above 1 we are faster. GOALS is goals.txt. ENTRIES is the folder of the build's .entries files: what ships
and no check has launched makes the exit status 1, unless there were no checks at all.
"""

import json
import os
import sys
import time


def lines_of(paths):
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith("{"):
                    yield json.loads(line)


def rows_of(lines):
    """One row a case: our time and rates, and each peer's with its ratio."""
    rows = {}
    for line in lines:
        row = rows.setdefault(line["name"], {"kind": line["kind"], "name": line["name"], "fovea": None, "peers": {}})
        entry = {key: line[key] for key in ("kernel", "ms", "least_ms", "groups", "flops", "bytes", "host_ms", "skipped") if key in line}
        if line["by"] == "fovea":
            row["fovea"] = entry
        else:
            row["peers"][line["by"]] = entry
    for row in rows.values():
        own = row["fovea"]
        for entry in ([own] if own else []) + list(row["peers"].values()):
            if "ms" not in entry:
                continue
            if own and own["flops"]:
                entry["tflops"] = own["flops"] / entry["ms"] / 1e9
            if own and own["bytes"] and row["kind"] != "matmul":
                entry["gb_per_s"] = own["bytes"] / entry["ms"] / 1e6
            if own and entry is not own:
                entry["ratio"] = entry["ms"] / own["ms"]
    return list(rows.values())


def work_rate(row):
    """Work a millisecond: FLOPs, or bytes of what has hardly any (a copy, decoding)."""
    own = row.get("fovea") or {}
    if "ms" not in own:
        return None, None
    return own["flops"] / own["ms"], own["bytes"] / own["ms"]


def goals_of(rows, path):
    """Each goal with what was measured, None where a side of it was not."""
    by_name = {row["name"]: row for row in rows}
    goals = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.strip() or line.startswith("#"):
                continue
            case, how, other, goal = line.split()
            row, measured = by_name.get(case, {}), None
            if how == "over":
                measured = row.get("peers", {}).get(other, {}).get("ratio")
            else:
                flops, moved = work_rate(row)
                other_flops, other_moved = work_rate(by_name.get(other, {}))
                if flops is not None and other_flops is not None:
                    measured = flops / other_flops if other_flops else moved / other_moved
            goals.append({"case": case, "how": how, "other": other, "measured": measured, "goal": float(goal)})
    return goals


def kernels_of(lines, folder):
    """How many entry points ship, and those that no program has launched. Files for a newer card than this one's don't count."""
    launches = [line for line in lines if line["suite"] == "launches"]
    if not launches:
        return {"shipped": 0, "missing": []}
    launched = {entry for line in launches for entry in line["entries"]}
    capability = max((line["capability"] for line in launches), default=0)
    shipped = set()
    for name in os.listdir(folder):
        if name.endswith(".entries") and not (name.endswith("_sm90.entries") and capability < 90):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                shipped.update(file.read().split())
    return {"shipped": len(shipped), "missing": sorted(shipped - launched)}


def table_of(report):
    def cell(entry, by_bytes):
        if not entry:
            return "-"
        if "ms" not in entry:
            return "skipped"
        rate = ""
        if "tflops" in entry and not by_bytes:
            rate = f" {entry['tflops']:.0f} TF/s"
        elif "gb_per_s" in entry:
            rate = f" {entry['gb_per_s']:.0f} GB/s"
        return f"{entry['ms']:.3f} ms{rate}" + (f" ({entry['ratio']:.2f}x)" if "ratio" in entry else "")

    for row in report["rows"]:
        by_bytes = row["kind"] == "copy" or row["name"].startswith("decode")
        yield f"{row['name']}: {cell(row['fovea'], by_bytes)}"
        for peer, entry in row["peers"].items():
            yield f"    {peer}: {cell(entry, by_bytes)}" + (f" - {entry['skipped']}" if "skipped" in entry else "")
    for check in report["checks"]:
        if check["failed"]:
            yield f"FAILED {check['suite']}, {check['check']}: {check['failed']} of {check['cases']}"
    for goal in report["goals"]:
        text = "not measured"
        if goal["measured"] is not None:
            text = f"{goal['measured']:.3g} of {goal['goal']:g}{'' if goal['measured'] >= goal['goal'] else ', MISSED'}"
        yield f"goal {goal['case']} {goal['how']} {goal['other']}: {text}"
    missing = report["kernels"]["missing"]
    if missing:
        yield f"FAILED no check launched {len(missing)} kernels: {', '.join(missing[:10])}{', ..' if len(missing) > 10 else ''}"
    failed = sum(check["failed"] for check in report["checks"])
    yield f"{sum(check['cases'] for check in report['checks'])} checks, {failed} failed, {report['kernels']['shipped']} kernels"


def main():
    out, goals, entries, *paths = sys.argv[1:]
    lines = list(lines_of(paths))

    def the(suite):
        return next(({k: v for k, v in line.items() if k != "suite"} for line in lines if line["suite"] == suite), None)

    rows = rows_of([line for line in lines if line["suite"] == "bench"])
    device = the("device")
    report = {
        "family": "gpu",
        "command": "gpu-check",
        "date": time.strftime("%Y-%m-%d"),
        "device": device,
        "torch": the("torch"),
        "failed_programs": [line["program"] for line in lines if line["suite"] == "program" and line["status"] != 0],
        "checks": [line for line in lines if "check" in line],
        "kernels": kernels_of(lines, entries),
        "goals": goals_of(rows, goals) if device and device["shrink"] == 1 else [],
        "rows": rows,
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=2)
        file.write("\n")
    print("\n".join(table_of(report)))
    return 1 if report["kernels"]["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
