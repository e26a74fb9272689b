"""Training jobs for methods that learn: sft, dpo, grpo, classify, reward, rank, on trl, peft and transformers.

A job is a value; ``await context.train(model, job)`` returns the model that it makes of another, trained at most once ever.
Importing this imports no torch.
"""

from moco_toolkit_training.fitting import predicted_memory
from moco_toolkit_training.jobs import Classify, Dpo, Grpo, Job, Judge, Lora, Rank, Reward, Sft
from moco_toolkit_training.keeping import kept, restore_trained, save_trained, stages
from moco_toolkit_training.rows import Completion, Demonstration, Duel, Labelled, Preference, Task, pairing

__all__ = [
    "Classify",
    "Completion",
    "Demonstration",
    "Dpo",
    "Duel",
    "Grpo",
    "Job",
    "Judge",
    "Labelled",
    "Lora",
    "Preference",
    "Rank",
    "Reward",
    "Sft",
    "Task",
    "kept",
    "pairing",
    "predicted_memory",
    "restore_trained",
    "save_trained",
    "stages",
]
