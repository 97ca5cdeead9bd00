"""Makes one JSON of what gpu-check's programs printed, with the ratios that matter, and a table for the eye.

    python3 report.py OUT.json RESULTS.jsonl...

A ratio is the peer's time over ours: above 1 we are faster. Decoding is held against the copy bandwidth of the same run.
"""

import json
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
        entry = {key: line[key] for key in ("kernel", "ms", "least_ms", "groups", "flops", "bytes", "skipped") if key in line}
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
            if own and row["kind"] != "matmul":
                entry["gb_per_s"] = own["bytes"] / entry["ms"] / 1e6
            if own and entry is not own:
                entry["ratio"] = entry["ms"] / own["ms"]
    return list(rows.values())


def figures_of(rows):
    """The few numbers that the rest is taken for."""
    by_name = {row["name"]: row for row in rows}

    def ratio(case, peer):
        return by_name.get(case, {}).get("peers", {}).get(peer, {}).get("ratio")

    def bandwidth(case):
        return (by_name.get(case, {}).get("fovea") or {}).get("gb_per_s")

    figures = {}
    for case in by_name:
        for peer in ("sdpa_flash", "sdpa_cudnn", "flex_attention", "torch.matmul"):
            if ratio(case, peer) is not None and not case.startswith("decode"):
                figures[f"{case} over {peer}"] = ratio(case, peer)
    copy = next((bandwidth(row["name"]) for row in rows if row["kind"] == "copy"), None)
    for case in by_name:
        if case.startswith("decode") and copy and bandwidth(case):
            figures[f"{case} of copy bandwidth"] = bandwidth(case) / copy
    return figures


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
    failed = sum(check["failed"] for check in report["checks"])
    yield f"{sum(check['cases'] for check in report['checks'])} checks, {failed} failed"


def main():
    out, *paths = sys.argv[1:]
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
        "figures": figures_of(rows) if device and device["shrink"] == 1 else {},
        "rows": rows,
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=2)
        file.write("\n")
    print("\n".join(table_of(report)))


if __name__ == "__main__":
    main()
