"""Any causal language models that transformers loads, several at once, on CPU or CUDA."""
