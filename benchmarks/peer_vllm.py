"""vLLM answers the prompts of ``against_vllm.py``: a process of its own, since it keeps what GPU memory it takes.

    python benchmarks/peer_vllm.py FOLDER WORKLOADS SECONDS

FOLDER holds the checkpoint, or its config alone (random weights then); WORKLOADS and SECONDS are JSON files: what to
answer, and how long it took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def main() -> None:
    """Load, then answer every workload several times."""
    started = time.perf_counter()
    from vllm import LLM, SamplingParams

    folder, workloads, target = map(Path, sys.argv[1:])
    only_config = not list(folder.glob("*.safetensors"))
    llm = LLM(
        str(folder), skip_tokenizer_init=True, enable_prefix_caching=True, gpu_memory_utilization=0.88,
        max_model_len=2048, dtype="bfloat16", max_num_seqs=512, max_num_batched_tokens=8192,
        load_format="dummy" if only_config else "auto",
    )  # fmt: skip
    found: dict[str, object] = {"load_s": time.perf_counter() - started}
    for name, work in json.loads(workloads.read_text()).items():
        prompts = [{"prompt_token_ids": work["prefix"] + suffix} for suffix in work["suffixes"]]
        common = dict(max_tokens=work["new"], ignore_eos=True, logprobs=1, detokenize=False)
        params = [SamplingParams(temperature=0, **common)] * len(prompts)
        if work["samples"]:
            params += [SamplingParams(temperature=1, n=work["samples"], seed=0, **common)] * len(prompts)
            prompts *= 2
        times = []
        for _ in range(work["repeats"]):
            llm.reset_prefix_cache()
            began = time.perf_counter()
            answers = llm.generate(prompts, params, use_tqdm=False)
            times.append(time.perf_counter() - began)
            assert all(len(each.token_ids) == work["new"] for answer in answers for each in answer.outputs)
        found[name] = times
    target.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
