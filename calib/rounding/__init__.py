"""Weight rounding: nearest, GPTQ, learned."""
