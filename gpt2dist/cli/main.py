"""The `gpt2dist` command and its arguments. Starts without torch or Ray."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from gpt2dist import __version__
from gpt2dist.cli import commands, compare_command, launch_command, plan_command
from gpt2dist.errors import BadInput, RunFailure

EPILOG = """\
examples:
  gpt2dist plan gpt2-124m on=A100-80GB:8                 memory, hours, dollars, loss
  gpt2dist plan all on=all --usd 20                      the lowest loss for twenty dollars
  gpt2dist launch gpt2-124m on=RTX4090 --usd 12          rent it, train, give it back
  gpt2dist train debug                                   minutes on two CPU cores, no network
  gpt2dist train gpt2-124m cluster.usd_per_hour=1.29 budget.usd=10
  gpt2dist train gpt2-124m data.source='my_texts/*.txt' train.tokens=1e9
  gpt2dist sample runs/debug-... --prompt "def main("
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line, without importing what the commands need."""
    top = argparse.ArgumentParser(
        prog="gpt2dist",
        description="Train GPT-2 (124M to 1.5B) on your own or rented GPUs; every dollar recorded.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"gpt2dist {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    config = verbs.add_parser("config", help="print the resolved config of a recipe")
    _recipe_arguments(config)
    config.set_defaults(run=commands.show_config)

    plan = verbs.add_parser(
        "plan",
        help="memory, hours, dollars and loss of a run, before it is paid for",
        description="Plan a recipe, or `all` four sizes, on given hardware: on=A100-80GB:8, "
        "on=RTX3090:4, on=A100:8x2 (two nodes), or on=all for every machine for rent. Without "
        "on= every single GPU is listed.",
    )
    _recipe_arguments(plan, "debug, gpt2-124m, ..., a .yaml file, or all")
    goal = plan.add_mutually_exclusive_group()
    goal.add_argument("--tokens", type=float, metavar="N", help="train this many tokens")
    goal.add_argument("--usd", type=float, metavar="X", help="the longest run for these dollars")
    goal.add_argument("--hours", type=float, metavar="H", help="the longest run in these hours")
    goal.add_argument("--loss", type=float, metavar="L", help="the run that reaches this loss")
    plan.add_argument("--spot", action="store_true", help="spot machines only")
    plan.add_argument("--provider", metavar="P", help="lambda, runpod, vast, gcp or aws")
    plan.add_argument("--rows", type=int, default=15, metavar="N", help="of a table (15)")
    plan.add_argument("--json", action="store_true", help="plans as JSON")
    plan.add_argument(
        "--probe", action="store_true", help="measure 20 real steps on this machine instead"
    )
    plan.set_defaults(run=plan_command.plan)

    launch = verbs.add_parser(
        "launch",
        help="rent what a plan needs and train there; never beyond a budget",
        description="Launch a recipe (with on=GPU:COUNT) or a task file such as "
        "sky/a100_124m.yaml through SkyPilot: the priced plan is shown and asked about first. "
        "`launch status`, `launch logs NAME` and `launch stop NAME` look after what was launched.",
    )
    launch.add_argument("target", metavar="RECIPE|FILE|status|logs|stop")
    launch.add_argument("overrides", nargs="*", metavar="on=... a.b=value", help="or the NAME")
    launch.add_argument("--usd", type=float, metavar="X", help="hard limit in dollars")
    launch.add_argument("--spot", action="store_true", help="spot machines; needs --bucket")
    launch.add_argument("--provider", metavar="P", help="lambda, runpod, vast, gcp or aws")
    launch.add_argument("--bucket", metavar="URL", help="where runs are kept: s3://... or gs://...")
    launch.add_argument("--data", metavar="URL", help="prepared shards: s3://... or gs://...")
    launch.add_argument("--name", help="name of the launch (default: from recipe and GPU)")
    launch.add_argument("--runs", default="runs", metavar="DIR", help="where records lie (runs)")
    launch.add_argument("--dry-run", action="store_true", help="show plan and task, rent nothing")
    launch.add_argument("--yes", action="store_true", help="do not ask")
    launch.set_defaults(run=launch_command.launch)

    data = verbs.add_parser("data", help="turn text into token shards, or look at shards")
    data_verbs = data.add_subparsers(dest="data_verb", metavar="COMMAND", required=True)
    prepare = data_verbs.add_parser(
        "prepare",
        help="tokenise a source into shards; continues where it was interrupted",
        description="Sources: stdlib; paths or globs of .txt .md .jsonl .parquet .csv (also .gz "
        ".zst, s3:// and gs://); hf:OWNER/NAME[:CONFIG].",
    )
    prepare.add_argument("source", metavar="SOURCE")
    prepare.add_argument("--out", required=True, metavar="DIR", help="folder for the shards")
    prepare.add_argument("--tokenizer", choices=("gpt2", "bytes"), default="gpt2")
    prepare.add_argument("--val-fraction", type=float, default=0.005, metavar="SHARE")
    prepare.add_argument("--text-field", default="text", metavar="COLUMN")
    prepare.add_argument("--max-documents", type=int, metavar="N")
    prepare.add_argument("--local", action="store_true", help="in this process, without Ray")
    prepare.set_defaults(run=commands.prepare_data)
    show = data_verbs.add_parser("show", help="describe a folder of shards")
    show.add_argument("folder", metavar="DIR")
    show.add_argument("--verify", action="store_true", help="also recompute every sha256")
    show.set_defaults(run=commands.show_data)

    train = verbs.add_parser(
        "train",
        help="train a recipe; the same command continues an interrupted run",
        description="Train a recipe or a YAML file. Interrupt with Ctrl-C: it saves and leaves.",
    )
    _recipe_arguments(train)
    train.add_argument("--name", help="name of the run's folder (default: recipe and identity)")
    train.add_argument("--fresh", action="store_true", help="set an existing run aside, start anew")
    train.add_argument(
        "--local", action="store_true", help="one device in this process, without Ray and MLflow"
    )
    train.set_defaults(run=commands.train)

    tune = verbs.add_parser(
        "tune",
        help="a sweep over configs that is priced before it starts and keeps to its budget",
        description="Run a sweep file such as tune/debug.yaml with Ray Tune. It says what all "
        "trials will cost, refuses what the budget cannot hold, and goes on with --resume.",
    )
    tune.add_argument("file", metavar="FILE", help="tune/....yaml")
    tune.add_argument("overrides", nargs="*", metavar="a.b=value", help="config keys of all trials")
    tune.add_argument("--usd", type=float, metavar="X", help="hard limit of the whole sweep")
    tune.add_argument("--dry-run", action="store_true", help="trials and price; start nothing")
    again = tune.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue an interrupted sweep")
    again.add_argument("--fresh", action="store_true", help="set an earlier one aside")
    tune.set_defaults(run=compare_command.tune)

    compare = verbs.add_parser(
        "compare",
        help="validation loss against dollars, hours, tokens or FLOPs of many runs",
        description="Compare runs: a table, the frontier, and a page that works offline.",
    )
    _many_runs(compare)
    compare.add_argument("--experiment", metavar="NAME", help="read an MLflow experiment instead")
    compare.add_argument("--sweep", metavar="NAME", help="all trials of a sweep")
    compare.add_argument("--x", choices=("usd", "hours", "tokens", "flops"), default="usd")
    compare.add_argument("--loss", type=float, metavar="L", help="say what reaching L took")
    compare.add_argument("--html", metavar="FILE", help="write the page")
    compare.add_argument("--png", metavar="FILE", help="write the picture")
    compare.add_argument("--csv", metavar="FILE", help="write the table")
    compare.add_argument("--json", action="store_true", help="print everything as JSON")
    compare.set_defaults(run=compare_command.compare)

    fit = verbs.add_parser("fit", help="a scaling law from your own runs, for the planner")
    _many_runs(fit)
    fit.set_defaults(run=compare_command.fit)

    evaluate = verbs.add_parser("eval", help="validation loss of a run's checkpoint")
    _run_arguments(evaluate)
    _device_argument(evaluate)
    evaluate.add_argument("--tokens", type=int, metavar="N", help="default: the run's eval.tokens")
    evaluate.add_argument("--data", metavar="DIR", help="folder of shards (default: the run's)")
    evaluate.set_defaults(run=commands.evaluate)

    sample = verbs.add_parser("sample", help="write text with a run's model")
    _run_arguments(sample)
    _device_argument(sample)
    sample.add_argument("--prompt", default="", metavar="TEXT")
    sample.add_argument("--tokens", type=int, default=128, metavar="N", help="default 128")
    sample.add_argument("--temperature", type=float, default=0.8, help="0 is greedy; default 0.8")
    sample.add_argument("--top-k", type=int, metavar="K", help="keep the K likeliest tokens")
    sample.add_argument("--top-p", type=float, metavar="P", help="keep this share of probability")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--count", type=int, default=1, metavar="N", help="samples at once")
    sample.set_defaults(run=commands.sample)

    export = verbs.add_parser("export", help="write a run's model as a Hugging Face GPT-2 folder")
    _run_arguments(export)
    export.add_argument("--out", required=True, metavar="DIR")
    export.set_defaults(run=commands.export)

    track = verbs.add_parser("track", help="MLflow records of a run")
    track_verbs = track.add_subparsers(dest="track_verb", metavar="COMMAND", required=True)
    sync = track_verbs.add_parser("sync", help="bring MLflow up to date from the run's rows")
    sync.add_argument("run_folder", metavar="RUN")
    sync.add_argument("--runs", default="runs", metavar="DIR")
    sync.set_defaults(run=commands.sync)

    ui = verbs.add_parser("ui", help="open MLflow on the local runs")
    ui.add_argument("--runs", default="runs", metavar="DIR")
    ui.add_argument("--port", type=int, default=5000)
    ui.set_defaults(run=commands.ui)
    return top


def _recipe_arguments(
    verb: argparse.ArgumentParser, recipes: str = "debug, gpt2-124m, ... or a .yaml file"
) -> None:
    verb.add_argument("recipe", metavar="RECIPE", help=recipes)
    verb.add_argument("overrides", nargs="*", metavar="a.b=value", help="config keys to change")


def _many_runs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("runs_named", nargs="*", metavar="RUN", help="folders or names; none: all")
    verb.add_argument("--runs", default="runs", metavar="DIR", help="where runs lie (runs)")
    verb.add_argument("--force", action="store_true", help="even where the runs do not compare")


def _run_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run_folder", metavar="RUN", help="folder of a run, or its name")
    verb.add_argument("--runs", default="runs", metavar="DIR", help="where runs lie (runs)")
    verb.add_argument("--step", type=int, metavar="N", help="checkpoint of step N")
    verb.add_argument("--best", action="store_true", help="checkpoint of the lowest loss")


def _device_argument(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 1 failure, 2 bad input, 130/143 interrupted."""
    started_at = time.time()
    arguments = _parse(argv)
    arguments.started_at = started_at
    try:
        return arguments.run(arguments)
    except (BadInput, RunFailure) as error:
        print(f"gpt2dist: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gpt2dist: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse loses `a.b=value` words that follow an option; they are overrides all the same."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if rest and hasattr(arguments, "overrides") and not any(word.startswith("-") for word in rest):
        arguments.overrides = [*arguments.overrides, *rest]
    elif rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def entry() -> None:
    """The installed `gpt2dist` command."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
