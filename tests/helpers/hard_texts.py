"""Pieces of text that, repeated, would make a careless pattern backtrack without end."""

HARD = [
    "a ", "answer ", "answer is ", "answer: ", "$", "{", "\\boxed{", "<think", "</think>", "*",
    "**a**", "_a", "1", "1,",
    "1,234,",     "\\frac", "\\frac{1}{2}", "(", "A or ", "(A) ", "not ", "#### ", "```\n", "\n",
    "Option A ", "\\text{", '{"answer": "',
    "<answer>", "[ ", "x=1\n", "def f():\n", "1/", "'", "so it is ", "is the answer ",
    "answer to ", "\\ ", "答案", "答案是", "A和", "antwort: ", "la respuesta es ", "उत्तर ", "1.234.", "3万", "~~a", "<b>",
    "[THINK]",
    "<|channel|>", "analysis", "\\pm ", "\\text{ and }", "1. a\n", "- a\n", "no, ", "A: wrong. ", "。", "x = 1 and ",
    "1 \\times 10^",
]  # fmt: skip
