"""The benches' documents as Markdown tables. Pure: from JSON to text."""

from __future__ import annotations

from statistics import median
from typing import Any

Document = dict[str, Any]


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A whole table."""
    return "\n".join([row(*heads), "|---" * len(heads) + "|", *(row(*cells) for cells in rows)])


def with_source(document: Document, text: str) -> str:
    """The table, and under it the commands that made it and the machine they ran on."""
    machine = document["machine"]
    memory = f", {_gb(machine['memory_bytes'])}" if machine["memory_bytes"] else ""
    where = f"{machine['cpu']}, {machine['cores']} cores{memory}, bfloat16 unit: {machine['bf16']}"
    commands = "; ".join(f"`{command}`" for command in document["command"])
    return f"{text}\n\n{commands}, on {where}, {machine['threads']} threads."


def steps(document: Document) -> str:
    """Each setting of both sides: seconds, tokens, memory; then the ratios to the peer's best."""
    rows = []
    for side, name, one in _measurements(document):
        if "failed" in one:
            rows.append([side, name, f"failed: {one['failed']}", "", "", ""])
            continue
        sampling = f" ({one['sampling_median']:.1f} of it sampling)" if "sampling_median" in one else ""
        rate = f"{one['tokens_per_second']:.0f}"
        rows.append([side, name, f"{one['median']:.2f}{sampling}", rate, _gb(_peak(one)), _others(one)])
    heads = ["side", "setting", "seconds a step (median)", "tokens/s", "peak memory", "cores taken by others"]
    return with_source(document, "\n\n".join([table(heads, rows), *_ratios(document["ratio"])]))


def _ratios(ratio: Document) -> list[str]:
    said = []
    best = ratio.get("peer_best")
    for name in ("full", "lora"):
        if best and name in ratio:
            one = ratio[name]
            said.append(
                f"{name}: **{one['seconds']:.1f}×** faster a step than TRL at {best['seconds']} "
                f"({one['tokens_per_second']:.1f}× by tokens/s); peak memory {100 * one['memory']:.0f} % of TRL's "
                f"at {best['memory']}."
            )
    if "lora_over_full" in ratio:
        said.append(f"LoRA of rank 16: **{ratio['lora_over_full']:.2f}×** as fast as full fine-tuning.")
    return said


def grpo_short(document: Document) -> str:
    """Ours beside the peer's best settings, for the project's README."""
    ratio, ours, peer = document["ratio"], document["ours"]["full"], document["peer"]
    best = ratio["peer_best"]
    sides = [("sharpen", ours), (f"TRL 1.16, its best setting for time ({best['seconds']})", peer[best["seconds"]])]
    if best["memory"] != best["seconds"]:
        sides.append((f"TRL 1.16, its best setting for memory ({best['memory']})", peer[best["memory"]]))
    rows = [
        [name, f"{one['median']:.1f}", f"{sum(one['tokens']) / len(one['tokens']):.0f}", _gb(_peak(one))]
        for name, one in sides
    ]
    rows.append(["ratio", f"**{ratio['full']['seconds']:.1f}×**", "", f"{100 * ratio['full']['memory']:.0f} %"])
    return table(["", "seconds a step (median)", "completion tokens a step", "peak memory"], rows)


def sampler(document: Document) -> str:
    """A row a kind of work."""
    rows = []
    for work, one in document["ours"].items():
        theirs = [document["peer"].get(f"{work}, {dtype}", {}) for dtype in ("bfloat16", "float32")]
        times = document["ratio"].get(work, {}).get("ratio")
        rates = [f"{side['tokens_per_second']:.0f}" if "tokens_per_second" in side else "" for side in (one, *theirs)]
        memory = _gb(_peak(one)) if "failed" not in one else one["failed"]
        rows.append([work, *rates, f"**{times:.1f}×**" if times else "", memory])
    said = []
    if "queue_over_steady" in document["ratio"]:
        said.append(f"The queue runs at **{100 * document['ratio']['queue_over_steady']:.0f} %** of the steady rate.")
    if "alone_ms_per_token" in document["ratio"]:
        said.append(f"One sequence alone: **{document['ratio']['alone_ms_per_token']:.1f} ms** a token.")
    heads = ["work", "ours, tokens/s", "`generate`, bfloat16", "`generate`, float32", "ours ÷ the better", "our memory"]
    return with_source(document, "\n\n".join([table(heads, rows), *said]))


def other_sampler(document: Document) -> str:
    """A row a setting of vLLM or CTranslate2."""
    version = document["versions"][document["peer"]]
    rows = [
        [
            f"{document['peer']} {version}, {one.get('compute_type', document['settings'].get('dtype', ''))}",
            f"{one['batch']['median_tokens_per_second']:.0f}",
            f"{one['alone']['median_milliseconds_per_token']:.1f}",
            _gb(_peak(one)),
        ]
        for one in document.get("runs", [document])
        if "batch" in one
    ]
    return table(["", "64 sequences, tokens/s", "one alone, ms a token", "peak memory"], rows)


def cost_ratio(document: Document) -> str:
    """RFT's unit beside SFT's."""
    rows = []
    for name, one in document["ours"].items():
        costs = [f"{median(one[key]) / one['units_per_step']:.3f}" for key in ("seconds", "core_seconds")]
        rows.append([f"{name.upper()}, per {one['unit']}", *costs, _gb(_peak(one))])
    ratio = document["ratio"]
    rows.append(["ratio", f"**{ratio['seconds']:.1f}×**", f"**{ratio['core_seconds']:.1f}×**", ""])
    return with_source(document, table(["", "seconds", "core-seconds", "peak memory"], rows))


def profile(document: Document) -> str:
    """A row a group of operations, then the floor."""
    parts = []
    for name, one in document["ours"].items():
        profiled, floor = one["profiled"], one["floor"]
        rows = [
            [group, f"{seconds:.2f}", f"{100 * seconds / profiled['seconds']:.0f} %"]
            for group, seconds in sorted(profiled["groups"].items(), key=lambda pair: -pair[1])
        ]
        parts.append(table([f"{name}: group", "seconds of a step under the profiler", "share"], rows))
        flop = floor["flop"]
        parts.append(
            f"Without the profiler a step takes {one['median']:.1f} s. Floor: {floor['seconds']:.1f} s "
            f"({flop['sampling'] / 1e12:.2f} TFLOP of sampling and {flop['training'] / 1e12:.2f} of training at "
            f"{floor['flop_per_second'] / 1e12:.2f} TFLOP/s in {floor['product_dtype']}, the best product measured). "
            f"A step takes **{document['ratio'][name]['over_floor']:.1f}×** that."
        )
    return with_source(document, "\n\n".join(parts))


def gains(entries: list[dict[str, str]]) -> str:
    """Each optimisation with the predicted and the measured gain."""
    if not entries:
        return "None recorded yet."
    fields = ["name", "predicted", "measured", "command", "machine", "note"]
    cells = [[f"`{one[key]}`" if key == "command" else one[key] for key in fields] for one in entries]
    return table(["optimisation", *fields[1:]], cells)


def learning(document: Document) -> str:
    """The plot, the rewards of both sides, their difference, and what it comes to."""
    if not document["seeds"]:
        return "No seed is done on both sides yet."
    rows = []
    for name, title in (("last_half", "last half of the steps"), ("all_steps", "all steps")):
        ours, trl = (f"{100 * document['reward'][side][name]:.1f} %" for side in ("ours", "trl"))
        difference = document["ours_minus_trl"][name]
        low, high = difference["ci95"]
        rows.append([title, ours, trl, f"{100 * difference['delta']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"])
    heads = ["mean reward", "sharpen", "TRL", "difference in points, with its 95 % interval"]
    plot = "![Reward of each step, sharpen beside TRL](learning.svg)"
    return f"{plot}\n\n{table(heads, rows)}\n\nVerdict: {document['verdict']}."


def sandbox(document: Document) -> str:
    """What jails cost."""
    ours, peer = document["ours"], document["peer"]
    growth = ours["growth"]
    before, after = growth["before"], growth["after"]
    rows = [
        [f"a fresh run, {name}", f"{one['median']:.1f} ms (95 % of them below {one['p95']:.1f})"]
        for name, one in (("standard library", ours["fresh_stdlib_ms"]), ("numpy loaded", ours["fresh_numpy_ms"]))
    ]
    rows += [
        ["fresh runs, two at a time", f"{ours['fresh_runs_per_second']:.0f} a second"],
        *(
            [f"grades by a program that stays, {workers} of it", f"{rate:,.0f} a second"]
            for workers, rate in ours["persistent_grades_per_second"].items()
        ),
        ["a plain `python -I -S -c`, no walls", f"{peer['plain_process_ms']['median']:.1f} ms"],
        [
            f"growth over {growth['runs']:,} runs",
            f"descriptors {before['descriptors']} → {after['descriptors']}, "
            f"processes {before['processes']} → {after['processes']}, "
            f"memory {before['resident_bytes'] / 1e6:.0f} → {after['resident_bytes'] / 1e6:.0f} MB",
        ],
    ]
    return with_source(document, table([f"{document['isolation']}, as {document['user']}", ""], rows))


def server(document: Document) -> str:
    """A row a figure of `python -m bench.server`; what was not measured has none."""
    rows: list[list[str]] = []
    for name, one in document["ours"].items():
        rows += SERVED[name.partition(",")[0]](one)
    loads = [one["load_average_before"] for one in document["ours"].values()]
    told = f"\n\nLoad average before a part: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    return with_source(document, table(["", "", "lost", "duplicated"], rows) + told)


def _created(one: Document) -> list[list[str]]:
    pace = f"{one['offered_per_second']:.0f} a second" if one["offered_per_second"] else "as fast as they are answered"
    what = f"{one['jobs']:,} jobs by {one['clients']} clients, {pace}, {one['database']}"
    taken = f"{_ms(one['seconds']['p50'])}, 99 % of them below {_ms(one['seconds']['p99'])}"
    return [[what, f"{one['creates_per_second']:.0f} a second; {taken}", str(one["lost"]), str(one["duplicated"])]]


def _beside_slow(one: Document) -> list[list[str]]:
    what = f"requests beside {one['connections']:,} slow connections"
    taken = f"{_ms(one['seconds']['p50'])}, 99 % of them below {_ms(one['seconds']['p99'])}"
    alone = f"{_ms(one['without_them']['seconds']['p50'])}, {_ms(one['without_them']['seconds']['p99'])}"
    return [[what, f"{taken} (without them {alone}); {one['failed']} of {one['requests']:,} failed", "", ""]]


def _killed(one: Document) -> list[list[str]]:
    acknowledged = ", ".join(f"{count:,} {name}" for name, count in one["acknowledged"].items())
    again = one["serving_again_seconds"]
    what = f"{one['kills']} times kill -9 under {one['writers']} writers ({acknowledged} acknowledged)"
    back = f"serving again after {again['p50']:.1f} s, {again['max']:.1f} s at most"
    return [[what, back, str(one["lost"]), str(one["duplicated"])]]


def _chatted(one: Document) -> list[list[str]]:
    first, own = one["first_token_seconds"], one["sampler"]["tokens_per_second"]
    share = f"{100 * one['share_of_the_sampler']:.0f} % of the sampler's {own:.0f}"
    rate = f"{one['tokens_per_second']:.0f} tokens/s, {share}"
    taken = f"first token after {first['p50']:.2f} s, 95 % of them before {first['p95']:.2f} s"
    return [
        [
            f"{one['streams']} chat streams, {one['threads']} thread{'s' * (one['threads'] > 1)}",
            f"{rate}; {taken}",
            "",
            "",
        ]
    ]


SERVED = {"creates": _created, "slow": _beside_slow, "kills": _killed, "chat": _chatted}
"""What a part of the server's bench is in words."""


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def constrained(document: Document) -> str:
    """A row a way of answering, then what the grammar costs."""
    ours = document["ours"]
    rows = []
    for work, words in (("drawn", "temperature 1"), ("greedy", "greedy")):
        for side in ("free", "held"):
            one = ours[f"{work}, {side}"]
            low, high = one["valid"]["ci95"]
            valid = f"{100 * one['valid']['share']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            gap = f"{one['gap']['mean']:.1e}" if work == "drawn" else ""
            rows.append([f"{words}, {side}", valid, f"{one['ended']} of {one['gap']['completions']}", gap])
    held, free = ours["steady, held"], ours["steady, free"]
    support, masks = ours["drawn, held"]["support"], ours["drawn, held"]["masks"]
    look = ours["drawn, held"]["gap"]["core_seconds"]
    cores = {name: sum(one["tokens"]) / sum(one["core_seconds"]) for name, one in (("free", free), ("held", held))}
    said = [
        f"64 sequences side by side: {cores['free']:.0f} tokens a core-second free, {cores['held']:.0f} inside a JSON "
        f"string (**{document['ratio']['tokens_per_core_second']:.2f}×**; while others took {_others(free)} and "
        f"{_others(held)} cores). The grammar takes {masks['ms_per_token']:.3f} ms of it a token, and "
        f"{masks['ms_per_completion']:.3f} ms to begin a completion.",
        f"Supports: {support['bytes_per_token']:.0f} bytes a token ({support['bytes_per_token_as_ids']:,.0f} if each "
        f"carried its ids), in {support['distinct_sets']} sets of at most {support['largest_set']['bytes']} bytes. "
        f"The trainer's look takes {look['with_support']:.1f} core-seconds with them, "
        f"{look['without_support']:.1f} without.",
    ]
    heads = ["answers", "valid JSON", "ended by themselves", "mean gap of log-probabilities, nats"]
    return with_source(document, "\n\n".join([table(heads, rows), *said]))


def _measurements(document: Document) -> list[tuple[str, str, Document]]:
    sides = (("sharpen", document["ours"]), ("TRL", document["peer"]))
    return [(side, name, one) for side, measured in sides for name, one in measured.items()]


def _peak(one: Document) -> int:
    return int(one["peak_memory_bytes"]["proportional_tree"])


def _others(one: Document) -> str:
    return "not seen" if one["others_cores"] is None else f"{one['others_cores']:.2f}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
