"""What ptune relies on in vLLM, tried there: run by vLLM's Python on a folder that
``tests/serving/vllm/test_vllm.py`` has made."""

import json
import pathlib
import sys

import torch


def main(folder: pathlib.Path) -> None:
    from vllm import LLM, SamplingParams
    from vllm.config import KVTransferConfig

    task = json.loads((folder / "task.json").read_text())
    llm = LLM(
        str(folder / "lm"),
        dtype="float32",
        max_model_len=128,
        max_num_seqs=16,
        enforce_eager=True,
        block_size=32,
        enable_prompt_embeds=True,
        kv_transfer_config=KVTransferConfig(
            kv_connector="PrefixConnector",
            kv_role="kv_both",
            kv_connector_module_path="ptune_connector",
            kv_connector_extra_config={"registry": str(folder / "registry")},
            kv_load_failure_policy="fail",
        ),
    )

    def ask(requests, salted=True, **settings):
        prompts, parameters = [], []
        for one in requests:
            if one["embeds"]:
                embeds = torch.load(folder / one["embeds"], weights_only=True)
                prompts.append({"prompt_embeds": embeds})
            else:
                prompts.append({"prompt_token_ids": one["ids"]})
            extra = {}
            if one["prefix"] is not None:
                extra = {"kv_transfer_params": {"prefix": one["prefix"]}}
            if salted:
                prompts[-1]["cache_salt"] = one["prefix"] or "none"
            options = {
                "temperature": 0,
                "max_tokens": task["new"],
                "ignore_eos": True,
                "detokenize": False,
            } | settings
            parameters.append(SamplingParams(**options, extra_args=extra))
        return llm.generate(prompts, parameters, use_tqdm=False)

    def tokens(outputs):
        return [list(output.outputs[0].token_ids) for output in outputs]

    def log_probabilities(outputs):
        return [
            [
                list(place.values())[0].logprob if place else None
                for place in output.prompt_logprobs or []
            ]
            for output in outputs
        ]

    requests, deep = task["requests"], task["deep"]
    result = {
        "mixed": tokens(ask(requests)),
        "again": tokens(ask(requests)),
        "one by one": [tokens(ask([one]))[0] for one in requests],
        "without salt": tokens(ask([*deep, *deep], salted=False)),
        "logprobs": log_probabilities(ask(deep[:1], prompt_logprobs=0)),
        "logprobs, read": log_probabilities(
            ask(deep[:1], prompt_logprobs=0, skip_reading_prefix_cache=False)
        ),
    }
    for name in task["wrong names"]:
        output = ask([{**deep[0], "prefix": name}])[0]
        result[f"name {name}"] = [output.outputs[0].finish_reason, tokens([output])[0]]
    result["after"] = tokens(ask(requests))
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
