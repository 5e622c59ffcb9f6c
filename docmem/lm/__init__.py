"""The frozen LM: loaded, run once, its hidden states cached, its forward resumed after them."""
