"""Every benchmark, one after the other, each in a process of its own; writes results/benchmarks.json.

python benchmarks/run_all.py [WORD ...]      only those whose name holds a word
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from compare import OtherWork

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "benchmarks.json"
SCRIPTS = ("loop", "lenet_epoch", "models", "layers", "dqn")


def main(words: list[str]) -> None:
    from thalweg.training.machine import describe

    held = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    commit = subprocess.check_output(["git", "-C", str(HERE), "rev-parse", "HEAD"], text=True).strip()
    for name in SCRIPTS:
        if words and not any(word in name for word in words):
            continue
        other = OtherWork()
        done = subprocess.run([sys.executable, str(HERE / f"{name}.py")], capture_output=True, text=True)
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        facts = json.loads(done.stdout)
        held[name] = {**facts, **describe(), "commit": commit, "date": time.strftime("%Y-%m-%d"), "other_cpu": other.share()}
        print(json.dumps({name: facts}, indent=2))
    RESULTS.write_text(json.dumps(held, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
