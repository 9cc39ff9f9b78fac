"""Between text and token ids: tokenizer, chat template, detokenisation, stop strings."""
