"""`riskva-run`: load the recipe, run its job, turn errors into a message and an exit status."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from riskva import launch
from riskva.console import note, warn
from riskva.devices import num_accelerators, num_processes
from riskva.errors import RecipeError, RiskvaError
from riskva.recipe import LoadedRecipe, Recipe, SftRecipe, load_recipe, recipe_to_yaml
from riskva.recipe.key_groups import ProcessKeys
from riskva.version import __version__

EPILOG = """\
examples:
  riskva-run recipes/prepare_parquet.yaml csv_path=table.csv image_base_path=photos
  riskva-run recipes/sft_lora.yaml learning_rate=1e-5 --dry-run
  riskva-run recipes/sft_lora.yaml deepspeed=recipes/deepspeed/zero3.json
  riskva-run recipes/predict.yaml image=photo.jpg
  riskva-run recipes/eval.yaml predictions=outputs/predict/generated_predictions.jsonl

exit status: 0 done, 1 the job failed, 2 the recipe or the call is wrong, 3 done but some rows failed,
75 stopped by SIGTERM after saving (the same command goes on).
"""


KILLED_TEXTS = ("DataLoader worker (pid", "Connection closed by peer", "Connection reset by peer")
"""What torch and gloo say where another process has gone."""

STORAGE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_intermixed_args(arguments)
    if options.json_schema:
        from riskva.recipe.schema import json_schema

        print(json.dumps(json_schema(), ensure_ascii=False, indent=2))
        return 0
    if options.recipe is None:
        _parser().print_usage(sys.stderr)
        note("riskva-run: name a recipe, for example recipes/sft_lora.yaml")
        return 2
    return _guarded(lambda: _run(options, arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="riskva-run",
        description="Fine-tune Qwen2.5-VL on photos of building defects and report on photos, by recipe.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="?", type=Path, metavar="RECIPE.yaml", help="the job, as a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that win over the recipe's")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and the plan; start nothing")
    parser.add_argument("--json-schema", action="store_true", help="print the recipes' JSON schema, for editors")
    parser.add_argument("--version", action="version", version=f"riskva {__version__}")
    return parser


def _run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    loaded = load_recipe(options.recipe, options.overrides)
    for warning in loaded.warnings:
        warn(warning)
    if options.dry_run:
        _print_plan(loaded)
        return 0
    recipe = loaded.recipe
    shares_work = isinstance(recipe, ProcessKeys) and recipe.shares_work
    if not shares_work and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(f"stage {recipe.stage} runs in one process here; start it without a launcher")
    if isinstance(recipe, ProcessKeys) and shares_work and not launch.is_launched():
        count = num_processes(recipe.nproc_per_node)
        if count > 1 or (isinstance(recipe, SftRecipe) and _needs_launcher(recipe, count)):
            return launch.launch(arguments, count)
    launch.end_with_the_launcher()
    _quiet_libraries()
    _job(recipe).run(recipe)
    return 0


def _needs_launcher(recipe: SftRecipe, count: int) -> bool:
    """Whether one process alone needs a launcher's environment too.

    It does under DeepSpeed, and where transformers would otherwise spread it over all visible GPUs by itself
    (DataParallel, which splits neither loss nor images rightly).
    """
    return bool(recipe.training.get("deepspeed")) or num_accelerators() > count


def _print_plan(loaded: LoadedRecipe) -> None:
    print(recipe_to_yaml(loaded.recipe, loaded.origins))
    sys.stdout.flush()
    _quiet_libraries()
    for line in _job(loaded.recipe).plan(loaded.recipe):
        print(line)


def _job(recipe: Recipe) -> ModuleType:
    """The module of the recipe's stage; imported only now, because it brings the heavy libraries."""
    return import_module(f"riskva.jobs.{recipe.stage}")


def _quiet_libraries() -> None:
    """Keep libraries' hints from RisKVA's users, and their progress bars out of log files."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # DeepSpeed, once installed, remarks on every machine without a GPU, whether it is used or not.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.funcName != "get_accelerator")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _guarded(work: Callable[[], int]) -> int:
    try:
        return work()
    except RiskvaError as error:
        if not error.is_told_elsewhere:
            print(f"riskva-run: {_own_words(error)}", file=sys.stderr, flush=True)
        return error.exit_code
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        note("riskva-run: interrupted")
        return 130
    except Exception as error:  # noqa: BLE001 - the last resort: one line for the user, the trace in a file
        return _unexpected(error)


def _own_words(error: RiskvaError) -> str:
    """The error's message; of one that a DataLoader worker raised, torch makes a whole trace, which ends with it."""
    text = str(error)
    if text.startswith("Caught ") and "\nriskva.errors." in text:
        return text.rsplit("\nriskva.errors.", 1)[1].split(": ", 1)[1].strip()
    return text


def _unexpected(error: Exception) -> int:
    """Say what happened in one line; keep the trace for whoever mends it."""
    if isinstance(error, OSError) and error.errno in STORAGE_FAULTS:
        where = error.filename or "the output"
        print(f"riskva-run: {error.strerror}: {where}; make room or name another output folder", file=sys.stderr)
        return 1
    if any(text in str(error) for text in KILLED_TEXTS):
        print(
            "riskva-run: a process of this run was killed, perhaps because memory ran out; the same command goes on "
            "with what is written (fewer preprocessing_num_workers or nproc_per_node need less memory)",
            file=sys.stderr,
        )
        return 1
    if type(error).__name__ == "OutOfMemoryError":
        print(
            "riskva-run: the accelerator is out of memory. In training, lower per_device_train_batch_size (and raise "
            "gradient_accumulation_steps), lower image_max_pixels, set gradient_checkpointing: true, or use "
            "deepspeed=recipes/deepspeed/zero3.json; in prediction, set bf16: true, or free memory on the device",
            file=sys.stderr,  # also where another process than the main one ran out
        )
        return 1
    with tempfile.NamedTemporaryFile(
        "w", prefix="riskva-error-", suffix=".log", delete=False, encoding="utf-8"
    ) as trace:
        trace.write(traceback.format_exc())
    message = str(error).strip().splitlines() or ["no message"]
    print(f"riskva-run: {type(error).__name__}: {message[0]} (unexpected; details in {trace.name})", file=sys.stderr)
    return 1


if __name__ == "__main__":
    launch.leave(main())
