"""Reproduce the paper's tables: train what has no record yet, then make tables and figures from the records.

python reproduce.py --table 2 --dry-run
python reproduce.py --table 2
python reproduce.py --table ablation --seeds 3
python reproduce.py --table latency
python reproduce.py --check-leaks
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from experiment.flags import flag_name
from preprocessing.choices import PROTOCOLS
from preprocessing.command import EXIT_OK, EXIT_STOPPED, Parser, exit_code, positive, read_command_line
from reproduction import plans
from reproduction.records import RESULTS, Records
from reproduction.runs import SOURCES, Run, data_state, kind_of_device, sources_here
from training.device import DEVICES, check_device, resolve_device

TABLES = ("2", "ablation", "latency")


def parse(words: list[str]) -> argparse.Namespace:
    """The command line; leaves with code 2 on a mistake."""
    parser = Parser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", choices=TABLES, help="the table to make")
    what.add_argument(
        "--check-leaks",
        action="store_true",
        help="train on shuffled labels: exit code 1 if one but paper ranks them (all datasets by default)",
    )
    parser.add_argument("--datasets", nargs="+", choices=sorted(SOURCES), help="default: movielens")
    parser.add_argument("--models", nargs="+", choices=plans.EVERY, help="default: those of the paper's table")
    parser.add_argument(
        "--groups", nargs="+", choices=list(plans.ABLATION), help=f"default: {', '.join(plans.DEFAULT_GROUPS)}"
    )
    parser.add_argument(
        "--protocols", nargs="+", choices=PROTOCOLS, help="default: all of the data's but online; ablation: strict"
    )
    parser.add_argument(
        "--settings", choices=(plans.OWN, plans.TUNED), help="of table 2: the scripts' own (default), or tune.py's"
    )
    parser.add_argument("--seeds", type=positive, help="number of seeds, from 1023 on (default 3)")
    parser.add_argument(
        "--jobs", type=positive, help="runs at a time, one thread each (default: a core each, on CUDA one)"
    )
    parser.add_argument("--device", help=f"{DEVICES} (default cpu)")
    parser.add_argument("--results", type=Path, help="where records and tables go (default results/)")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and their expected time, and stop")
    arguments = parser.parse_args(words)
    for name in ("datasets", "models", "groups", "protocols"):
        if named := getattr(arguments, name):
            setattr(arguments, name, list(dict.fromkeys(named)))  # twice is once
    # A flag that would have no effect is refused.
    of_tables = {"datasets": ("2", "ablation", None), "protocols": ("2", "ablation", None), "models": ("2", "ablation")}
    of_tables |= {"groups": ("ablation",), "settings": ("2",), "device": TABLES, "results": TABLES}
    of_tables |= dict.fromkeys(("dry_run", "seeds", "jobs"), ("2", "ablation"))
    for name, tables in of_tables.items():
        if getattr(arguments, name) and arguments.table not in tables:
            chosen = f"--table {arguments.table}" if arguments.table else "--check-leaks"
            parser.error(f"{flag_name(name)}: has no effect with {chosen}; leave it out")
    for name, default in {"settings": plans.OWN, "seeds": 3, "device": "cpu", "results": RESULTS}.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    check_device(arguments.device)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

from dataclasses import replace

from reproduction.bootstrap import update_bootstrap
from reproduction.execute import describe, execute, expected_seconds
from reproduction.figures import draw_across_protocols, draw_groups, draw_latency, draw_protocol
from reproduction.folders import RUNS, collect, missing_runs
from reproduction.latency import update_latency
from reproduction.leaks import print_leaks
from reproduction.output import write_ablation, write_latency, write_table_2
from reproduction.processes import only_process, readable, time_left


def main(arguments: argparse.Namespace) -> int:
    """Run what is missing, then write the tables and figures; returns the exit code."""
    arguments.device = str(resolve_device(arguments.device))
    if arguments.jobs is None:
        arguments.jobs = 1 if arguments.device.startswith("cuda") else os.cpu_count() or 1
    if arguments.check_leaks:
        return print_leaks(arguments.datasets or sources_here(), arguments.protocols or list(PROTOCOLS))
    if arguments.dry_run:
        return _print_plan(arguments)
    with only_process(RUNS) as lock:
        records = Records(arguments.results)
        if arguments.table == "latency":
            update_latency(records, arguments.device)
            write_latency(records)
            draw_latency(records)
            return EXIT_OK
        return _make_table(arguments, records, lock)


def _plan(arguments: argparse.Namespace) -> dict[tuple[str, str], list[Run]]:
    """The runs of each dataset and protocol."""
    plan = {}
    for dataset in arguments.datasets or ["movielens"]:
        possible = SOURCES[dataset].protocols
        # online is asked for by name: as many runs again.
        default = ("strict",) if arguments.table == "ablation" else [p for p in possible if p != "online"]
        for protocol in arguments.protocols or default:
            if protocol in possible:
                plan[dataset, protocol] = _runs(arguments, dataset, protocol)
            else:
                print(f"{dataset}: left out under {protocol}; its data can be split by {', '.join(possible)} alone.")
    if not any(plan.values()):
        named = [f"--{name} {' '.join(value)}" for name in ("groups", "models") if (value := getattr(arguments, name))]
        print(f"nothing to make: {' and '.join(named) or 'the tables'} have no run there.")
    for dataset, protocol in plan:
        if data_state(dataset, protocol).synthetic:
            print(f"{dataset} {protocol}: a SYNTHETIC sample, for want of real files; it says nothing of real users.")
    return plan


def _make_table(arguments: argparse.Namespace, records: Records, lock: int) -> int:
    plan = _plan(arguments)
    every = [run for runs in plan.values() for run in runs]
    collect(every, records)
    missing = missing_runs(every, records)
    failed = execute(missing, records, arguments.jobs, arguments.device, lock) if missing else []
    for dataset, protocol in plan:
        data_name = data_state(dataset, protocol).name
        if arguments.table == "ablation":
            write_ablation(records, dataset, protocol, data_name)
            draw_groups(records, dataset, protocol, data_name)
            continue
        notices = update_bootstrap(dataset, protocol, records, arguments.settings)
        write_table_2(records, dataset, protocol, data_name, arguments.settings)
        draw_protocol(records, dataset, protocol, data_name, arguments.settings)
        for notice in notices:
            print(notice)
    if arguments.table == "2":
        for dataset, data_name in {dataset: data_state(dataset, p).name for dataset, p in plan}.items():
            draw_across_protocols(records, dataset, data_name, arguments.settings)
    if failed:
        print(f"{len(failed)} of {len(missing)} runs failed; the same command tries them again:", file=sys.stderr)
        for run in failed:
            print(f"  {describe(run)}", file=sys.stderr)
    return EXIT_STOPPED if failed else EXIT_OK


def _runs(arguments: argparse.Namespace, dataset: str, protocol: str) -> list[Run]:
    if arguments.table == "2":
        models = arguments.models or list(plans.TABLE_2)
        runs = plans.table_2(dataset, protocol, models, arguments.seeds, arguments.settings)
        found = {run.model for run in runs}
        if absent := [model for model in models if model not in found]:
            print(f"{dataset} {protocol}: left out, for want of a search (tune.py): {', '.join(absent)}.")
    else:
        groups = arguments.groups or list(plans.DEFAULT_GROUPS)
        runs = plans.ablation(dataset, protocol, groups, arguments.seeds)
        runs = [run for run in runs if run.model in (arguments.models or [run.model])]
        for group in arguments.groups or []:
            if not plans.variants_of(dataset, group, protocol):
                print(f"{dataset} {protocol}: --groups {group} has no run there.")
    return [replace(run, device=kind_of_device(arguments.device)) for run in runs]


def _print_plan(arguments: argparse.Namespace) -> int:
    """List what is missing and how long it may take; nothing is written, and another process may be at work."""
    records = Records(arguments.results)
    every = [run for runs in _plan(arguments).values() for run in runs]
    missing = missing_runs(every, records)
    expected = {run: expected_seconds(run, records) for run in missing}
    for run, seconds in expected.items():
        print(f"{describe(run):78} {'unknown' if seconds is None else readable(seconds):>10}")
    total = time_left([seconds or 0.0 for seconds in expected.values()], arguments.jobs)
    print(
        f"{len(every)} runs, {len(every) - len(missing)} are made, {len(missing)} to make: about {readable(total)} "
        f"with {arguments.jobs} at a time (of those whose time is known)."
    )
    return EXIT_OK


if __name__ == "__main__":
    advice = "the runs saved their checkpoints, and the same command goes on from there."
    sys.exit(exit_code(lambda: main(arguments), advice))
