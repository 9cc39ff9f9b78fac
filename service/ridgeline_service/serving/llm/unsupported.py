"""Fields of other servers and libraries that ask for generation we do not have.

transformers' GenerationConfig, vLLM's SamplingParams and TGI's parameters: clients send what they
sent there. A field whose value would change the answer is refused, one that changes its speed or
what is told beside it is not missed.
"""

from __future__ import annotations

from collections.abc import Mapping

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "allowed_token_ids": (),
    "bad_words": ([],),
    "bad_sequences": ([],),
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "best_of": (1,),
    "constraints": ([],),
    "detokenize": (True,),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "eos_token_id": (),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "logits_processors": ([],),
    "max_length": (),
    "max_time": (),
    "min_length": (0, 1),
    "n": (1,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0,),
    "prompt_logprobs": (),
    "return_tensors": (False,),
    "sequence_bias": ({}, []),
    "stop_strings": ([],),
    "suppress_tokens": ([],),
    "token_healing": (False,),
    "top_h": (1,),
    "typical_p": (1,),
    "use_beam_search": (False,),
    "watermark": (False,),
    "watermarking_config": (),
}
"""With the values that ask for nothing, as `Body.neutral` has them."""

HARMLESS = frozenset(
    {
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_ensemble_weight",
        "assistant_lookbehind",
        "bos_token_id",
        "cache_config",
        "cache_implementation",
        "clean_up_tokenization_spaces",
        "compile_config",
        "continuous_batching_config",
        "decoder_start_token_id",
        "disable_compile",
        "early_stopping",
        "is_assistant",
        "length_penalty",
        "low_memory",
        "max_cache_len",
        "max_matching_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "pad_token_id",
        "padding",
        "prefill_chunk_size",
        "prompt_lookup_num_tokens",
        "remove_invalid_values",
        "renormalize_logits",
        "request_id",
        "return_dict_in_generate",
        "spaces_between_special_tokens",
        "speculation_type",
        "target_lookbehind",
        "transformers_version",
        "truncation",
        "use_cache",
        "use_mtp",
        "user",
    }
)
"""Speed, memory, the caller's own marks, and what belongs to encoder-decoder models, to padding or
to beams: more than one beam is refused by its own name."""
